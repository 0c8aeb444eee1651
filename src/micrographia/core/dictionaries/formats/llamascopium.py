"""Llamascopium (Language-Model-SAEs): `config.json` and `sae_weights.safetensors`; Llama Scope R1-Distill too.

Measured with llamascopium 2.0.0b34. Inputs and outputs are scaled to a mean norm of sqrt(d) by factors in the file,
which are folded into the weights. W_E is (d, latent); the layout before it has encoder.weight (latent, d). A latent is
on by its size times its decoder row's norm, and keeps its own size.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import inf, sqrt
from types import MappingProxyType
from typing import Any

from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.folding import scaled_input
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import built, one_of, per_latent, renamed, whole_number
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.llama_scope import gated_by_size
from micrographia.core.dictionaries.formats.places import lens_site
from micrographia.core.errors import UnreadableWeights

CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"
NORM = "dataset_average_activation_norm."
NEW = {"W_enc": "W_E", "b_enc": "b_E", "W_dec": "W_D", "b_dec": "b_D"}
OLD = {"W_enc": "encoder.weight.T", "b_enc": "encoder.bias", "W_dec": "decoder.weight.T", "b_dec": "decoder.bias"}
THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")
ACTIVATIONS = ("relu", "jumprelu", "topk")
PER_ROW = {"token-wise": "constant-norm", "inference": "none", "dataset-wise": "none"}
UNSCALED = (
    "Llamascopium's encode expects activations that are scaled already; here it is given them as they are. Its "
    "inference mode (fold_activation_scale) leaves thresholds as they are while it scales what they are compared with."
)


def holds(found: Holding) -> bool:
    return found.has(CONFIG, WEIGHTS) and not found.has("cfg.json")


def read(found: Holding) -> Dictionary:
    config, tensors = found.config(CONFIG), found.tensors(WEIGHTS)
    if config.get("sae_type", "sae") != "sae" or config.get("use_glu_encoder"):
        what = "a GLU encoder" if config.get("use_glu_encoder") else f"sae_type {config['sae_type']!r}"
        raise UnreadableWeights(f"The dictionary in {found.folder} has {what}, which is not read here; only 'sae' is.")
    norms = {name.removeprefix(NORM): float(tensors.pop(name)) for name in list(tensors) if name.startswith(NORM)}
    named = _named(found, tensors, config)
    activation = one_of(found, "activation", str(config.get("act_fn") or _guess(named)).lower(), ACTIVATIONS)
    normalise = one_of(found, "norm_activation", config.get("norm_activation", "dataset-wise"), list(PER_ROW))
    hooks = [str(config.get(f"hook_point_{side}") or "") for side in ("in", "out")]
    site, target = map(lens_site, hooks)
    about = About(
        site=site, target=None if target == site else target, layout="llamascopium", source=str(found.path),
        notes=(UNSCALED,), training=MappingProxyType(dict(config)),
    )  # fmt: skip
    k = whole_number(found, "top_k", config.get("top_k")) if activation == "topk" else None
    restore = hooks[0] == hooks[1]  # else by the norm of what is written, which the input does not tell
    form = Form(activation=activation, k=k, subtract_b_dec=False, normalise=PER_ROW[normalise], restore=restore)
    one = built(found, named, form, about)
    if config.get("sparsity_include_decoder_norm", True):
        one = gated_by_size(one)
    return _scaled(found, one, norms, hooks) if normalise == "dataset-wise" else one


def _named(found: Holding, tensors: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    layout = NEW if "W_E" in tensors else OLD
    log = next((name for name in THRESHOLDS if name in tensors), "")
    biased = {name: where for name, where in layout.items() if name != "b_dec"}
    named = renamed(found, tensors, biased, {"b_dec": layout["b_dec"]} | ({"threshold": log} if log else {}))
    if "b_dec" not in named:
        if config.get("use_decoder_bias", True):
            raise UnreadableWeights(f"The dictionary in {found.folder} lacks {layout['b_dec']}.")
        named["b_dec"] = named["W_dec"].new_zeros(named["W_dec"].shape[1])
    if log:
        named["threshold"] = per_latent(named["threshold"].exp(), named["b_enc"])
    return named


def _guess(named: Mapping[str, Tensor]) -> str:
    """The activation where the config has none, as those of Llama Scope R1-Distill may."""
    return "jumprelu" if "threshold" in named else "relu"


def _scaled(found: Holding, one: Dictionary, norms: Mapping[str, float], hooks: list[str]) -> Dictionary:
    if not set(hooks) <= set(norms):
        note = (
            "Its inputs were scaled to a mean norm of sqrt(d), and the mean norm is not in the file: activations are "
            "read as they are. Scale them first."
        )
        return replace(one, about=replace(one.about, notes=(*one.about.notes, note)))
    if odd := {hook: norms[hook] for hook in hooks if not 0 < norms[hook] < inf}:
        raise UnreadableWeights(f"The mean norms of activations in {found.path} are {odd}, which are none.")
    scale, out = (sqrt(one.d_in) / norms[hook] for hook in hooks)
    folded = scaled_input(one, scale, out)
    note = f"The scales of its inputs ({scale:.6g}) and outputs ({out:.6g}) are folded into the weights."
    return replace(folded, about=replace(folded.about, notes=(*folded.about.notes, note)))
