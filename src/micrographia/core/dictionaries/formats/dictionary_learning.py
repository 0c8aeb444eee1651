"""dictionary_learning: `ae.pt`, a pickle of tensors, and `config.json`.

Measured with dictionary-learning 0.1.0. encoder.weight is (latent, d_in), decoder.weight (d_in, latent); W_enc and
W_dec have no such transpose. Its loader rescales the class AutoEncoder to decoder columns of norm 1, and so does this
reader. The factor of `normalize_activations` is folded into the biases on saving and written nowhere.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.folding import in_decoder_units, scaled_latents, subtracting
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import Named, agree, built, per_latent, renamed, whole_number
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.writing import Carries, ToolFiles, fitted, single, untold
from micrographia.core.dictionaries.several import AnyDictionary
from micrographia.core.errors import UnreadableWeights
from micrographia.core.sites import Site
from micrographia.core.store.foreign import foreign_json, torch_bytes

CONFIG, WEIGHTS = "config.json", "ae.pt"
LINEAR = {"W_enc": "encoder.weight.T", "W_dec": "decoder.weight.T"}
PLAIN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}


class Class(NamedTuple):
    """How a dictionary class of theirs is read: our tensors by its names, and the numbers that lie beside them."""

    tensors: Named
    activation: str
    subtract_b_dec: bool = True
    numbers: tuple[str, ...] = ()


CLASSES: Mapping[str, Class] = {
    "AutoEncoder": Class({**LINEAR, "b_enc": "encoder.bias", "b_dec": "bias"}, "relu"),
    "AutoEncoderNew": Class({**LINEAR, "b_enc": "encoder.bias", "b_dec": "decoder.bias"}, "relu", False),
    "GatedAutoEncoder": Class(
        {**LINEAR, "b_dec": "decoder_bias", "r_mag": "r_mag", "b_gate": "gate_bias", "b_mag": "mag_bias"}, "gated"
    ),
    "AutoEncoderTopK": Class({**LINEAR, "b_enc": "encoder.bias", "b_dec": "b_dec"}, "topk", True, ("k", "threshold")),
    "BatchTopKSAE": Class(
        {**LINEAR, "b_enc": "encoder.bias", "b_dec": "b_dec", "threshold": "threshold"}, "jumprelu", True, ("k",)
    ),
    "MatryoshkaBatchTopKSAE": Class(PLAIN, "jumprelu", True, ("k", "group_sizes")),
    "JumpReluAutoEncoder": Class(PLAIN, "jumprelu", False),
}
UNSAID = (
    "If it was trained with normalize_activations, the factor is folded into biases and threshold; the files do not "
    "say whether it was, nor the factor."
)
NOTES: Mapping[str, str] = {
    "AutoEncoderTopK": (
        "A threshold is stored and, as in dictionary_learning by default, not used: the k largest are kept."
    ),
    "BatchTopKSAE": (
        "Latents above the stored threshold; dictionary_learning's use_threshold=False ranks the whole batch."
    ),
    "JumpReluAutoEncoder": (
        "The file does not say whether b_dec is subtracted (apply_b_dec_to_input); as in dictionary_learning it is not."
    ),
}
PLACES = (("resid_post", "resid_post"), ("attn_out", "attn_out"), ("mlp_out", "mlp_out"), ("attention_out", "attn_out"))


def holds(found: Holding) -> bool:
    """A file of that name, or a pickle beside the config of a trainer."""
    return found.has(WEIGHTS) or (len(found.pickles()) == 1 and "dict_class" in _trainer(found))


def read(found: Holding) -> Dictionary:
    name = WEIGHTS if found.has(WEIGHTS) else found.pickles()[0]
    content, trainer = dict(found.pickled(name)), _trainer(found)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    label = _class(found, trainer.get("dict_class"), tensors)
    kind = CLASSES[label]
    ours = renamed(found, {key: value for key, value in tensors.items() if key not in kind.numbers}, kind.tensors)
    k = _k(found, tensors, trainer) if "k" in kind.numbers else None
    about, learnt = _about(found, label, trainer, tensors, k), ours.get("threshold")
    if learnt is not None:
        ours["threshold"] = per_latent(learnt, ours["b_enc"])
        if learnt.numel() == 1 and float(learnt) < 0:
            about = _more(about, "No threshold was learned (it is below 0): every positive latent passes.")
    form = Form(
        activation=kind.activation, k=k if kind.activation == "topk" else None, subtract_b_dec=kind.subtract_b_dec
    )
    one = built(found, ours, form, about)
    agree(found, trainer, {"activation_dim": one.d_in, "dict_size": one.n_latents})
    return _rescaled(one) if label == "AutoEncoder" else one


def _trainer(found: Holding) -> Mapping[str, Any]:
    trainer = found.config(CONFIG).get("trainer")
    return trainer if isinstance(trainer, Mapping) else {}


def _class(found: Holding, stated: object, tensors: Mapping[str, Tensor]) -> str:
    """The class that the config states, else the one that has these tensors."""
    if stated is not None and stated not in CLASSES:
        raise UnreadableWeights(
            f"The dictionary in {found.path} is of dictionary_learning's class {stated!r}. Read here are "
            f"{', '.join(CLASSES)}."
        )
    if isinstance(stated, str):
        return stated
    fit = [name for name, kind in CLASSES.items() if _names(kind) == set(tensors)]
    if len(fit) != 1:
        which = f"that may be {' or '.join(fit)}" if fit else "of no class of dictionary_learning"
        raise UnreadableWeights(
            f"Asked for the dictionary in {found.path}. Found the tensors {', '.join(sorted(tensors)) or '(none)'}, "
            f"{which}. Its {CONFIG}, which names the class, is missing: put it beside the file."
        )
    return fit[0]


def _names(kind: Class) -> set[str]:
    return {name.removesuffix(".T") for name in kind.tensors.values()} | set(kind.numbers)


def _k(found: Holding, tensors: Mapping[str, Tensor], trainer: Mapping[str, Any]) -> int:
    stored, stated = tensors.get("k"), trainer.get("k")
    k = whole_number(found, "k", stated if stored is None else stored)
    agree(found, trainer, {"k": k})
    return k


def _about(
    found: Holding, label: str, trainer: Mapping[str, Any], tensors: Mapping[str, Tensor], k: int | None
) -> About:
    training = {"architecture": label, **trainer, **({"k": k} if k is not None else {})}
    if "group_sizes" in tensors:
        training["group_sizes"] = tensors["group_sizes"].tolist()
    notes = [UNSAID, *([NOTES[label]] if label in NOTES else [])]
    if (site := _site(trainer)) is None and trainer:
        notes.append(f"Its place is written as {trainer.get('submodule_name')!r}, layer {trainer.get('layer')!r}.")
    return About(
        model=str(trainer.get("lm_name") or ""), site=site, layout="dictionary_learning", source=str(found.path),
        notes=tuple(notes), training=MappingProxyType(training),
    )  # fmt: skip


def _site(trainer: Mapping[str, Any]) -> Site | None:
    """The Site of a submodule that its users name so: "resid_post_layer_3"."""
    name = str(trainer.get("submodule_name") or "")
    layer = re.search(r"(\d+)", name)
    at = int(layer[1]) if layer else trainer.get("layer")
    kind = next((kind for word, kind in PLACES if word in name), None)
    return Site(kind, at) if kind and isinstance(at, int) else None


def _rescaled(one: Dictionary) -> Dictionary:
    """Decoder rows of norm 1, latents as much larger: what the class AutoEncoder's loader does."""
    norms = one.weights.W_dec.norm(dim=-1)
    if torch.allclose(norms, torch.ones_like(norms)):
        return one
    scaled = scaled_latents(one, torch.where(norms == 0, 1.0, norms))
    note = (
        "Decoder rows are rescaled to norm 1 and latents multiplied by the old norms, as dictionary_learning's loader "
        f"does for AutoEncoder; the file itself has norms from {float(norms.min()):.3g} to {float(norms.max()):.3g}."
    )
    return replace(scaled, about=_more(scaled.about, note))


def _more(about: About, *notes: str) -> About:
    return replace(about, notes=(*about.notes, *notes))


CARRIES = Carries(
    "dictionary_learning",
    {"relu": "relu", "gated": "gated", "topk": "topk", "jumprelu": "jumprelu", "jump": "jumprelu"},
)


def write(value: AnyDictionary) -> ToolFiles:
    """ae.pt, a pickle of tensors since dictionary_learning reads nothing else, and config.json.

    A ReLU dictionary becomes an AutoEncoderNew, which subtracts no b_dec and which the loader does not rescale.
    """
    one = fitted(single(value, "dictionary_learning"), CARRIES)
    label = {"relu": "AutoEncoderNew", "gated": "GatedAutoEncoder", "topk": "AutoEncoderTopK"}.get(
        one.form.activation, "JumpReluAutoEncoder"
    )
    kind = CLASSES[label]
    one = subtracting(in_decoder_units(one), kind.subtract_b_dec)
    named = one.weights.named()
    content = {}
    for ours, theirs in kind.tensors.items():
        value_of = named[ours].detach().cpu()
        content[theirs.removesuffix(".T")] = (value_of.T if theirs.endswith(".T") else value_of).contiguous().clone()
    if "k" in kind.numbers:
        content |= {"k": torch.tensor(one.form.k, dtype=torch.int), "threshold": torch.tensor(-1.0)}
    about, site = one.about, one.about.site
    trainer = {
        "dict_class": label, "activation_dim": one.d_in, "dict_size": one.n_latents, "lm_name": about.model,
        "layer": None if site is None else site.layer,
        "submodule_name": None if site is None else f"{site.kind}_layer_{site.layer}",
        **({"k": one.form.k} if one.form.k is not None else {}),
    }  # fmt: skip
    lost = untold(one, model=True, site=about.target is None)
    if label == "AutoEncoderNew":
        lost += ("its forward(x, output_features=True) multiplies latents by decoder norms; encode does not",)
    return ToolFiles({CONFIG: foreign_json({"trainer": trainer}), WEIGHTS: torch_bytes(content)}, lost)
