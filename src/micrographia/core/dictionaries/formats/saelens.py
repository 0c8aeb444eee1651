"""SAELens: `cfg.json` and `sae_weights.safetensors`, of version 6 (and of 5 and before: `saelens_flat`).

Measured with sae-lens 6.54.12. Order there: cast, flatten heads, normalise, subtract b_dec, encode. W_skip is
(d_out, d_in). BatchTopK and Matryoshka are saved for inference as JumpReLU, with one threshold for all latents.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.folding import scaled_input, whitened_input
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import agree, built, one_of, per_latent, renamed, whole_number
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.places import lens_name, lens_site
from micrographia.core.dictionaries.formats.saelens_flat import is_flat, modern
from micrographia.core.dictionaries.formats.writing import Carries, ToolFiles, fitted, single
from micrographia.core.dictionaries.several import AnyDictionary
from micrographia.core.errors import CannotCarry, UnreadableWeights
from micrographia.core.runtime import DTYPES
from micrographia.core.store.foreign import foreign_json
from micrographia.core.store.formats import tensors_bytes

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
VERSION = "6.54.12"
"""The version whose layout is written."""


class SaeKind(NamedTuple):
    """How a name in `architecture` is read."""

    activation: str
    transcodes: bool = False
    training: bool = False
    """Saved by a trainer, with the activation of the whole batch."""


ARCHITECTURES: Mapping[str, SaeKind] = {
    "standard": SaeKind("relu"),
    "gated": SaeKind("gated"),
    "topk": SaeKind("topk"),
    "abstopk": SaeKind("abstopk"),
    "jumprelu": SaeKind("jumprelu"),
    "batchtopk": SaeKind("jumprelu", training=True),
    "matryoshka_batchtopk": SaeKind("jumprelu", training=True),
    "transcoder": SaeKind("relu", transcodes=True),
    "skip_transcoder": SaeKind("relu", transcodes=True),
    "jumprelu_transcoder": SaeKind("jumprelu", transcodes=True),
    "jumprelu_skip_transcoder": SaeKind("jumprelu", transcodes=True),
}
ELSEWHERE: Mapping[str, str] = {
    "matching_pursuit": "chooses latents one after the other, each from what the others left",
    "temporal": "has latents that depend on the tokens before",
}
NORMALISED: Mapping[str, str] = {
    "none": "none",
    "layer_norm": "layer-norm",
    "constant_norm_rescale": "constant-norm",
    "expected_average_only_in": "none",
    "covariance_whitening": "none",
}
WRITTEN = {"none": "none", "layer-norm": "layer_norm", "constant-norm": "constant_norm_rescale"}
METADATA = (
    "context_size", "prepend_bos", "dataset_path", "neuronpedia_id", "hook_head_index", "seqpos_slice",
    "model_from_pretrained_kwargs", "exclude_special_tokens", "training_architecture", "training_architecture_details",
    "l0", "num_dead_features",
)  # fmt: skip
"""What SAELens keeps in `metadata`; what else is known of the training goes below `micrographia` there."""
STANDARD = {"W_enc": "W_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
GATES = {"b_gate": "b_gate", "b_mag": "b_mag", "r_mag": "r_mag"}
SKIP_NOTE = f"SAELens' own decode leaves the skip out; its forward adds it ({VERSION})."


def holds(found: Holding) -> bool:
    return found.has(CONFIG, WEIGHTS)


def read(found: Holding) -> Dictionary:
    """The dictionary of this folder. Folds an activation scale or whitening that is kept beside it."""
    config, notes = found.config(CONFIG), ()
    if is_flat(config):
        config, notes = modern(found, config)
    architecture = _architecture(found, config)
    tensors, more = _tensors(found, config, architecture)
    about = _about(found, config, architecture, (*notes, *more))
    one = built(found, tensors, _form(found, config, architecture, about), about)
    agree(found, config, {"d_in": one.d_in, "d_sae": one.n_latents, "d_out": one.d_out})
    return _unnormalised(found, config, one)


def _architecture(found: Holding, config: Mapping[str, Any]) -> SaeKind:
    name = str(config.get("architecture"))
    if name in ELSEWHERE:
        raise UnreadableWeights(
            f"The dictionary in {found.folder} has SAELens' architecture {name!r}, which {ELSEWHERE[name]}: its "
            "latents are no function of one product, and it is not read here. Use SAELens for it."
        )
    return ARCHITECTURES[one_of(found, "architecture", name, list(ARCHITECTURES))]


def _tensors(
    found: Holding, config: Mapping[str, Any], architecture: SaeKind
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under our names, in the dtype of the config, as SAELens casts them."""
    tensors, notes = found.tensors(WEIGHTS), ()
    if "log_threshold" in tensors and architecture.activation == "jumprelu":  # checkpoints of old trainers
        tensors["threshold"] = tensors.pop("log_threshold").exp()
    scaling = next(
        (tensors.pop(name) for name in ("scaling_factor", "finetuning_scaling_factor") if name in tensors), None
    )
    biases = GATES if architecture.activation == "gated" else {"b_enc": "b_enc"}
    threshold = {}
    if architecture.activation == "jumprelu":
        threshold = {"threshold": "topk_threshold" if architecture.training else "threshold"}
    skip = {"W_skip": "W_skip.T"} if "skip" in config["architecture"] else {}
    named = renamed(found, tensors, {**STANDARD, **biases, **threshold, **skip})
    dtype = _dtype(found, config)
    if dtype is not None and named["W_enc"].dtype != dtype:
        notes = (f"The tensors are cast to the config's {config['dtype']}, as SAELens casts them.",)
    named = {name: value if dtype is None else value.to(dtype) for name, value in named.items()}
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        named["W_dec"] = named["W_dec"] * scaling.to(named["W_dec"])[:, None]
        notes += ("A fine-tuned scale of the latents is folded into W_dec. SAELens 6 refuses such a file.",)
    if "threshold" in named:
        named["threshold"] = per_latent(named["threshold"], named["b_enc"])
    return named, notes


def _dtype(found: Holding, config: Mapping[str, Any]) -> torch.dtype | None:
    name = str(config.get("dtype") or "").removeprefix("torch.")
    return DTYPES[one_of(found, "dtype", name, list(DTYPES))] if name else None


def _form(found: Holding, config: Mapping[str, Any], architecture: SaeKind, about: About) -> Form:
    normalise = one_of(found, "normalisation", config.get("normalize_activations", "none"), list(NORMALISED))
    subtract = config.get("apply_b_dec_to_input", not architecture.transcodes)
    if subtract and architecture.transcodes:
        raise UnreadableWeights(
            f"The config in {found.folder} is of a transcoder and has apply_b_dec_to_input = true, which SAELens "
            "refuses too: b_dec is of the output. Set it to false if that is what was meant."
        )
    counted = architecture.activation in ("topk", "abstopk")
    norms = config.get("rescale_acts_by_decoder_norm", architecture.training)
    return Form(
        activation=config.get("activation", architecture.activation),
        k=whole_number(found, "k", config.get("k")) if counted else None,
        subtract_b_dec=bool(subtract),
        normalise=NORMALISED[normalise],
        restore=not architecture.transcodes,
        decoder_norms=bool(norms) and (counted or architecture.training),
        heads=config.get("reshape_activations") == "hook_z",
    )


def _about(found: Holding, config: Mapping[str, Any], architecture: SaeKind, notes: tuple[str, ...]) -> About:
    metadata = dict(config.get("metadata") or {})
    hook, out = metadata.get("hook_name"), metadata.get("hook_name_out")
    said = list(notes)
    if hook and lens_site(hook) is None:
        said.append(f"It reads {hook}, which is no Site known here.")
    if (head := metadata.get("hook_head_index")) is not None:
        said.append(f"It reads head {head} alone.")
    if architecture.training:
        said.append(
            "Saved by a trainer: latents above the moving threshold are taken, as SAELens' inference form does. In "
            "training they depend on the batch. SAELens' SAE.load_from_disk refuses this folder."
        )
    if "skip" in config["architecture"]:
        said.append(SKIP_NOTE)
    training = {"architecture": config["architecture"], **metadata.pop("micrographia", {}), **metadata}
    return About(
        model=str(metadata.get("model_name") or ""),
        site=lens_site(hook),
        target=lens_site(out),
        layout="saelens",
        source=str(found.path),
        notes=tuple(said),
        training=MappingProxyType(training),
    )


def _unnormalised(found: Holding, config: Mapping[str, Any], one: Dictionary) -> Dictionary:
    """The scale or whitening of a trainer's folder folded in; a note where it is missing."""
    asked = config.get("normalize_activations", "none")
    scaler = found.config(SCALER)
    if asked == "expected_average_only_in" and scaler.get("scaling_factor"):
        note = f"The activation scale of {SCALER} ({scaler['scaling_factor']:.6g}) is folded into the weights."
        return _noted(scaled_input(one, float(scaler["scaling_factor"])), note, _APPLIES_NOTHING)
    if asked == "covariance_whitening" and found.has(WHITENING):
        if one.weights.W_skip is not None:
            raise UnreadableWeights(f"{found.folder} whitens the input of a transcoder with a skip, which is not read.")
        kept = found.tensors(WHITENING)
        try:
            folded = whitened_input(one, kept["mean"], kept["matrix"], kept["inverse_matrix"])
        except KeyError as error:
            raise UnreadableWeights(f"{WHITENING} in {found.folder} lacks {error}.") from error
        return _noted(folded, f"The whitening of {WHITENING} is folded into the weights.", _APPLIES_NOTHING)
    if asked in ("expected_average_only_in", "covariance_whitening"):
        kept = SCALER if asked == "expected_average_only_in" else WHITENING
        return _noted(
            one,
            f"The config says normalize_activations = {asked!r}, and {kept} is not here, so that its factor is not "
            "known:"
            " activations are read as they are, as SAELens' load_from_disk reads them. Scale the input as in training.",
        )
    return one


_APPLIES_NOTHING = "SAELens' load_from_disk does not apply it and gives other latents."


def _noted(one: Dictionary, *notes: str) -> Dictionary:
    return replace(one, about=replace(one.about, notes=(*one.about.notes, *notes)))


CARRIES = Carries(
    "saelens",
    {
        "relu": "relu",
        "jumprelu": "jumprelu",
        "jump": "jumprelu",
        "gated": "gated",
        "topk": "topk",
        "abstopk": "abstopk",
    },
    skip=True,
    normalisations=frozenset({"layer-norm", "constant-norm"}),
    square=False,
    decoder_norms=True,
)
NAMES = {"relu": "standard", "gated": "gated", "topk": "topk", "abstopk": "abstopk", "jumprelu": "jumprelu"}
TRANSCODERS = {("relu", False): "transcoder", ("relu", True): "skip_transcoder",
               ("jumprelu", False): "jumprelu_transcoder", ("jumprelu", True): "jumprelu_skip_transcoder"}  # fmt: skip


def write(value: AnyDictionary) -> ToolFiles:
    """cfg.json and sae_weights.safetensors of version 6, its version in the metadata, so that it is not taken for 5."""
    of = single(value, "saelens")
    counted = of.form.activation in ("topk", "abstopk")
    one = fitted(of, CARRIES._replace(decoder_norms=counted))
    architecture = _written_as(one)
    transcodes = architecture.endswith("transcoder")
    if transcodes:
        one = fitted(one, CARRIES._replace(subtracts=False))
    _refuse_scale(one, transcodes)
    w, form = one.weights, one.form
    tensors = w.named()
    if w.W_skip is not None:
        tensors["W_skip"] = w.W_skip.T
    heads = form.heads or (one.about.site is not None and one.about.site.kind == "z")
    metadata, lost = _metadata(one)
    if one.about.target is not None and not transcodes:
        lost += (f"that it writes to {one.about.target}: SAELens opens it as an autoencoder at its input",)
    config = {
        "architecture": architecture, "d_in": one.d_in, "d_sae": one.n_latents,
        "dtype": str(one.dtype).removeprefix("torch."), "device": "cpu",
        "apply_b_dec_to_input": form.subtract_b_dec,
        "normalize_activations": WRITTEN[form.normalise],
        "reshape_activations": "hook_z" if heads and not transcodes else "none",
        **({"d_out": one.d_out} if transcodes else {}),
        **({"k": form.k, "rescale_acts_by_decoder_norm": form.decoder_norms} if counted else {}),
        "metadata": metadata,
    }  # fmt: skip
    return ToolFiles({CONFIG: foreign_json(config), WEIGHTS: tensors_bytes(tensors)}, lost)


def _written_as(one: Dictionary) -> str:
    w, form = one.weights, one.form
    transcodes = (
        one.d_in != one.d_out or w.W_skip is not None or (one.about.target is not None and not form.subtract_b_dec)
    )
    if transcodes and (form.activation, w.W_skip is not None) in TRANSCODERS:
        return TRANSCODERS[form.activation, w.W_skip is not None]
    if one.d_in == one.d_out and w.W_skip is None:
        return NAMES[form.activation]
    raise CannotCarry(
        f"Asked to write {one!r} as saelens: SAELens' transcoders, and dictionaries with a skip, are of the "
        "activations relu and jumprelu."
    )


def _refuse_scale(one: Dictionary, transcodes: bool) -> None:
    """SAELens scales the output back for an autoencoder, and never for a transcoder."""
    if one.form.normalise != "none" and one.form.restore == transcodes:
        does = "does not scale back" if transcodes else "scales back"
        raise CannotCarry(
            f"Asked to write {one!r} as saelens: there the output of this kind {does}, and here otherwise."
        )


def _metadata(one: Dictionary) -> tuple[dict[str, Any], tuple[str, ...]]:
    about, lost = one.about, []
    found: dict[str, Any] = {"sae_lens_version": VERSION, "sae_lens_training_version": None}
    found |= {"model_name": about.model} if about.model else {}
    for key, site in (("hook_name", about.site), ("hook_name_out", about.target)):
        if name := lens_name(site):
            found[key] = name
        elif site is not None:
            lost.append(f"{site} (TransformerLens has no name for it)")
    kept = {key: value for key, value in about.training.items() if key not in found and _simple(value)}
    if dropped := sorted(set(about.training) - set(kept) - set(found)):
        lost.append(f"how it was trained: {', '.join(dropped)}")
    found |= {key: kept.pop(key) for key in METADATA if key in kept}
    return {**found, **({"micrographia": kept} if kept else {})}, tuple(lost)


def _simple(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _simple(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_simple, value))
    return value is None or isinstance(value, bool | int | float | str)
