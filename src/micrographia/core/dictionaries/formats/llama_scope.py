"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`, JumpReLU dictionaries of Llama 3.1.

Source: He et al. 2024, arXiv 2410.20526; read as SAELens 6.54.12 reads it. Inputs are scaled to a mean norm of sqrt(d),
which is folded into the weights. One threshold, of raw activations, is for all latents. b_dec is not subtracted.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from types import MappingProxyType
from typing import Any

import torch

from micrographia.core.dictionaries.dictionary import About, Dictionary
from micrographia.core.dictionaries.folding import scaled_input
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.building import agree, built, one_of, renamed, whole_number
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.places import lens_site
from micrographia.core.errors import UnreadableWeights

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
TENSORS = {"W_enc": "encoder.weight.T", "b_enc": "encoder.bias", "W_dec": "decoder.weight.T", "b_dec": "decoder.bias"}
ACTIVATIONS = ("jumprelu", "relu", "topk")
UNITS = (
    "Latents are those of scaled inputs, as in SAELens. In the inference mode of OpenMOSS's own code they are "
    "smaller by "
    "the scale, {scale:.6g}."
)
RELATIVE = (
    "A latent is on by its size times its decoder row's norm (sparsity_include_decoder_norm), which SAELens leaves out."
)


def holds(found: Holding) -> bool:
    return found.has(CONFIG, WEIGHTS)


def read(found: Holding) -> Dictionary:
    config = found.config(CONFIG)
    named = renamed(found, found.tensors(WEIGHTS), TENSORS)
    activation = one_of(found, "activation", str(config.get("act_fn") or "jumprelu").lower(), ACTIVATIONS)
    scale, out = (scale_of(found, config, side, named["W_enc"].shape[0]) for side in ("in", "out"))
    notes = [f"The scale of its inputs, {scale:.6g}, is folded into the weights.", UNITS.format(scale=scale)]
    if activation == "jumprelu":
        threshold = config.get("jump_relu_threshold")
        if not isinstance(threshold, int | float):
            raise UnreadableWeights(f"{CONFIG} in {found.folder} needs jump_relu_threshold. Found {threshold!r}.")
        named["threshold"] = torch.full_like(named["b_enc"], float(threshold) * scale)
    if config.get("sparsity_include_decoder_norm") and activation != "relu":
        norms = named["W_dec"].norm(dim=-1)
        notes += [] if torch.allclose(norms, torch.ones_like(norms), atol=1e-3) else [RELATIVE]
    hook, target = (lens_site(config.get(f"hook_point_{side}")) for side in ("in", "out"))
    about = About(
        model=str(config.get("model_name") or ""), site=hook, target=None if target == hook else target,
        layout="llama_scope", source=str(found.path), notes=tuple(notes), training=MappingProxyType(dict(config)),
    )  # fmt: skip
    k = whole_number(found, "top_k", config.get("top_k")) if activation == "topk" else None
    one = built(found, named, Form(activation=activation, k=k, subtract_b_dec=False), about)
    agree(found, config, {"d_model": one.d_in, "d_sae": one.n_latents})
    if config.get("sparsity_include_decoder_norm"):
        one = gated_by_size(one)
    return scaled_input(one, scale, out)


def scale_of(found: Holding, config: Mapping[str, Any], side: str, d_model: int) -> float:
    """sqrt(d) over the mean norm of activations that the config gives for this side."""
    norms = config.get("dataset_average_activation_norm") or {}
    norm = norms.get(side, norms.get("in")) if isinstance(norms, Mapping) else None
    if config.get("norm_activation", "dataset-wise") != "dataset-wise":
        return 1.0
    if not isinstance(norm, int | float) or norm <= 0:
        raise UnreadableWeights(
            f"{CONFIG} in {found.folder} needs dataset_average_activation_norm, by which inputs are scaled. Found "
            f"{norms!r}."
        )
    return sqrt(d_model) / float(norm)


def gated_by_size(one: Dictionary) -> Dictionary:
    """The dictionary of one whose latents are on by p * ||decoder row||, and are p: the norms go into thresholds.

    Of top-k, which ranks by that product, latents become the product and decoder rows get norm 1.
    """
    norms = one.weights.W_dec.norm(dim=-1)
    if one.weights.threshold is not None:
        return replace(one, weights=replace(one.weights, threshold=one.weights.threshold / norms))
    if one.form.k is None:
        return one
    note = "Latents are in units of decoder norms, by which they are ranked; OpenMOSS's code divides by them again."
    ranked = replace(one, form=replace(one.form, decoder_norms=True))
    return replace(ranked, about=replace(one.about, notes=(*one.about.notes, note)))
