"""OpenAI's sparse_autoencoder: one file of `torch.save`, the state dict of its Autoencoder.

Read from its source (github.com/openai/sparse_autoencoder, model.py): latents = activation(encoder(x - pre_bias) +
latent_bias). Whether inputs are layer-normed is not stored: it is so for the activation TopK and for no other.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import built, one_of, renamed, whole_number
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.writing import Carries, ToolFiles, fitted, single, untold
from micrographia.core.dictionaries.several import AnyDictionary
from micrographia.core.errors import CannotCarry, UnreadableWeights
from micrographia.core.store.foreign import torch_bytes

FILE = "autoencoder.pt"
TENSORS = {"W_enc": "encoder.weight.T", "b_enc": "latent_bias", "b_dec": "pre_bias"}
STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
TIED = "decoder.linear.weight"
"""The encoder's weight once more, where the decoder is its transpose."""
AFTER = {"ReLU": "topk", "Identity": "topk-signed"}
"""What becomes of the k largest -> our activation."""
NORMALISED = (
    "Inputs are layer-normed, because its activation is TopK: the file has no word on it. OpenAI's code decides so too."
)


def holds(found: Holding) -> bool:
    """Any single pickle: what is in it is known only once it is read."""
    return len(found.pickles()) == 1


def read(found: Holding) -> Dictionary:
    content = dict(found.pickled(found.pickles()[0]))
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not {"pre_bias", "latent_bias"} <= set(tensors):
        raise UnreadableWeights(
            f"Asked for the dictionary in {found.path}, a pickle. Found the entries "
            f"{', '.join(sorted(map(str, content))) or '(none)'}: it is neither OpenAI's (pre_bias, latent_bias ...) "
            "nor, with a config.json beside it, dictionary_learning's."
        )
    decoder = TIED if TIED in tensors else "decoder.weight"
    W_dec = {"W_dec": decoder if decoder == TIED else f"{decoder}.T"}
    form, notes = _form(found, content.get("activation", "ReLU"), content.get("activation_state_dict") or {})
    training = MappingProxyType({"architecture": content.get("activation", "ReLU")})
    about = About(layout="openai", source=str(found.path), notes=notes, training=training)
    return built(found, renamed(found, tensors, TENSORS | W_dec, aside=STATISTICS), form, about)


def _form(found: Holding, name: object, state: Mapping[str, Any]) -> tuple[Form, tuple[str, ...]]:
    if one_of(found, "activation", name, ("ReLU", "TopK")) == "ReLU":
        return Form(), ()
    after = AFTER[one_of(found, "function after top-k", state.get("postact_fn", "ReLU"), list(AFTER))]
    k = whole_number(found, "k", state.get("k"))
    return Form(activation=after, k=k, normalise="layer-norm"), (NORMALISED,)


CARRIES = Carries(
    "openai", {"relu": "relu", "topk": "topk", "topk-signed": "topk-signed"}, subtracts=True,
    normalisations=frozenset({"layer-norm"}),
)  # fmt: skip


def write(value: AnyDictionary) -> ToolFiles:
    """autoencoder.pt, a pickle, since OpenAI's code reads nothing else."""
    one = fitted(single(value, "openai"), CARRIES)
    ranked = one.form.activation != "relu"
    if ranked != (one.form.normalise == "layer-norm"):
        has = "does not normalise" if ranked else "normalises"
        raise CannotCarry(
            f"Asked to write {one!r} as openai: there inputs are layer-normed with TopK and with no other activation, "
            f"and this dictionary {has} them."
        )
    w = one.weights
    assert w.b_enc is not None
    content: dict[str, Any] = {
        "pre_bias": w.b_dec, "latent_bias": w.b_enc, "encoder.weight": w.W_enc.T, "decoder.weight": w.W_dec.T,
        "stats_last_nonzero": torch.zeros(one.n_latents, dtype=torch.long),
        "latents_activation_frequency": torch.ones(one.n_latents),
        "latents_mean_square": torch.zeros(one.n_latents),
    }  # fmt: skip
    content = {name: each.detach().cpu().contiguous().clone() for name, each in content.items()}
    post = {ours: theirs for theirs, ours in AFTER.items()}.get(one.form.activation)
    state = {"k": one.form.k, "postact_fn": post} if ranked else {}
    content |= {"activation": "TopK" if ranked else "ReLU", "activation_state_dict": state}
    return ToolFiles({FILE: torch_bytes(content)}, untold(one))
