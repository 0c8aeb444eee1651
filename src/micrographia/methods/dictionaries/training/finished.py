"""A trained member as a Dictionary: the scale folded into its weights, and how it was trained written down."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.methods.dictionaries.training.recipe import Recipe, recipe_fields
from micrographia.methods.dictionaries.training.stack import Stack, State

SAVED_AS = {"batchtopk": "jumprelu"}
"""A batch's top k is, of one row, a threshold (Bussmann et al. 2024, arXiv 2412.06410, section 3)."""


def dictionary(stack: Stack, state: State, member: int, *, cutoff: float = 0.0, known: Mapping[str, Any]) -> Dictionary:
    """The Dictionary of one member, for activations as they come. `cutoff`: BatchTopK's threshold, in training units.

    With one scale s for input and target, latents are those of training divided by s, and so are biases and
    thresholds; the decoder stays. With several, each layer's decoder takes what its scale differs by.
    """
    recipe, layout = stack.recipes[member], stack.layout
    w = {name: value.clone() for name, value in layout.member(state.weights, member).items()}
    weights = _folded(w, state.scale_in[member], state.scale_out[member])
    activation = SAVED_AS.get(recipe.kind, recipe.kind)
    if recipe.kind == "batchtopk":
        weights["threshold"] = torch.full_like(weights["b_enc"], cutoff) / state.scale_out[member].mean()
    form = Form(
        activation=activation,
        k=recipe.k if activation == recipe.kind else None,
        subtract_b_dec=stack.subtracts,
        axes=(recipe.layers, stack.d_in // recipe.layers) if recipe.layers > 1 else (),
    )
    training = {"recipe": recipe_fields(recipe), "loss_terms": loss_terms(stack), "steps": state.step, **known}
    return Dictionary(DictionaryWeights(**weights), form, About(training=training))


def _folded(w: dict[str, Tensor], scale_in: Tensor, scale_out: Tensor) -> dict[str, Tensor]:
    layers = len(scale_in)
    unit = 1 / scale_out.mean()  # what latents are multiplied by
    read = scale_in.repeat_interleave(w["encoder"].shape[-1] // layers)
    write = scale_out.repeat_interleave(w["decoder"].shape[-1] // layers)
    folded = {
        "W_enc": (w["encoder"] * read * unit).T.contiguous(),
        "W_dec": w["decoder"] / (write * unit),
        "b_dec": w["b_dec"] / write,
    }
    if "skip" in w:
        folded["W_skip"] = w["skip"] * read[:, None] / write
    if "r_mag" in w:
        folded["r_mag"] = w["r_mag"]
    return folded | {name: w[name] * unit for name in ("b_enc", "threshold", "b_gate", "b_mag") if name in w}


def loss_terms(stack: Stack) -> dict[str, str]:
    """Name -> each term of the loss in words, with its reduction."""
    return {name: text for name, text in _terms(stack.recipe) if text}


def _terms(r: Recipe) -> list[tuple[str, str]]:
    norm = " ||d_i||" if r.norm_weighted else ""
    penalties = {
        "none": "",
        "l1": f"{r.sparsity} * sum over latents of f_i{norm}, mean over the batch",
        "lp": f"{r.sparsity} * sum over latents of (f_i{norm})^p, mean over the batch; p from 1 to {r.p_end}",
        "l0": f"{r.sparsity} * number of active latents, mean over the batch",
        "l0-target": f"{r.coefficient} * (2 / {r.l0}) * (L0 - {r.l0})^2, L0 the batch's mean number of active latents",
        "tanh": f"{r.sparsity} * sum over latents of tanh({r.tanh_slope} f_i{norm}), mean over the batch",
    }
    return [
        ("reconstruction", "sum over dims of (x - x_hat)^2, mean over the batch"),
        ("sparsity", penalties[r.chosen_penalty]),
    ]
