"""Trained members as Dictionaries: the scale folded into their weights, and how they were trained written down."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.stream.batches import Batches
from micrographia.methods.dictionaries.training.calibrate import level
from micrographia.methods.dictionaries.training.loss_words import loss_terms
from micrographia.methods.dictionaries.training.recipe import recipe_fields
from micrographia.methods.dictionaries.training.stack import ScaledBatch, Stack, StackState
from micrographia.methods.dictionaries.training.trainer import Trainer

CALIBRATION_ROWS = 32_768
"""Rows by which thresholds are set: an L0 of 20 counts 655,360 firings."""


def dictionaries(
    trainers: Sequence[Trainer], batches: Batches | None = None, held_out: bool = False
) -> list[Dictionary]:
    """One for each recipe, in their order. With batches, thresholds are set by counting on them (see `calibrate`)."""
    found = {}
    for trainer in trainers:
        thresholds, known = _thresholds(trainer, batches, held_out)
        for member, place in enumerate(trainer.stack.places):
            known_here = {name: values[member] for name, values in known.items()}
            known_here["plan"] = getattr(trainer.plan, "__name__", "")  # how loss and gradient were computed
            found[place] = _dictionary(trainer.stack, trainer.state, member, thresholds, known_here)
    return [found[place] for place in range(len(found))]


def _thresholds(trainer: Trainer, batches: Batches | None, held_out: bool) -> tuple[Tensor | None, dict[str, list]]:
    """(member, latent) in training units, and what is to be said of them."""
    stack, weights = trainer.stack, trainer.weights
    counted = stack.recipe.kind == "batchtopk"
    per_row = [each.k if counted else each.l0 for each in stack.recipes]
    if not counted and stack.recipe.kind != "jumprelu":
        return None, {}
    base = torch.ones_like(weights["b_enc"]) if counted else weights["threshold"]
    if batches is None or None in per_row:
        return (base * trainer.averaged_cutoff()[:, None] if counted else base), {}
    read = _read(trainer, batches, held_out)
    factor = level(stack, weights, read, [float(each) for each in per_row if each is not None])
    name = "threshold" if counted else "threshold_factor"
    rows = sum(batch.rows for batch in read)
    data = "held-out batches" if held_out else "the last batches of training"
    said = f"thresholds set on {rows} rows of {data}, to the L0 that was asked for"
    return base * factor[:, None], {name: factor.tolist(), "calibration": [said] * len(per_row)}


def _read(trainer: Trainer, batches: Batches, held_out: bool) -> list[ScaledBatch]:
    """Batches from the start of those held out, or the last of those trained on."""
    steps = trainer.stack.recipe.steps
    first = trainer.read(0 if held_out else steps - 1, batches)
    count = min(steps, math.ceil(CALIBRATION_ROWS / first.rows))
    start = 0 if held_out else steps - count
    return [trainer.read(step, batches) for step in range(start, start + count)]


def _dictionary(
    stack: Stack, state: StackState, member: int, thresholds: Tensor | None, known: Mapping[str, Any]
) -> Dictionary:
    """The Dictionary of one member, for activations as they come.

    With one scale s for input and target, latents are those of training divided by s, and so are biases and
    thresholds; the decoder stays. With several, each layer's decoder takes what its scale differs by.
    """
    recipe, layers = stack.recipes[member], stack.recipe.layers
    w = dict(stack.layout.member(state.weights, member))
    if thresholds is not None:
        w["threshold"] = thresholds[member]
    form = Form(
        activation="jumprelu" if thresholds is not None else recipe.kind,
        k=recipe.k if thresholds is None else None,
        subtract_b_dec=stack.subtracts,
        axes=(layers, stack.d_in // layers) if layers > 1 else (),
    )
    training = {
        "recipe": recipe_fields(recipe),
        "loss_terms": loss_terms(recipe),
        "steps": state.step,
        "scale_in": state.scale_in[member].tolist(),
        "scale_out": state.scale_out[member].tolist(),
        "dead": int((state.silent[member] >= recipe.dead_after).sum()),
        **known,
    }
    weights = folded(w, state.scale_in[member], state.scale_out[member])
    return Dictionary(DictionaryWeights(**weights), form, About(training=training))


def folded(w: Mapping[str, Tensor], scale_in: Tensor, scale_out: Tensor) -> dict[str, Tensor]:
    """The weights of `DictionaryWeights`, for inputs and targets as they come, from those for scaled ones."""
    layers = len(scale_in)
    unit = 1 / scale_out.mean()  # what latents are multiplied by
    read = scale_in.repeat_interleave(w["encoder"].shape[-1] // layers)
    write = scale_out.repeat_interleave(w["decoder"].shape[-1] // layers)
    result = {
        "W_enc": (w["encoder"] * read * unit).T.contiguous(),
        "W_dec": w["decoder"] / (write * unit),
        "b_dec": w["b_dec"] / write,
        **{name: w[name] * unit for name in ("b_enc", "threshold", "b_gate", "b_mag") if name in w},
    }
    if "skip" in w:
        result["W_skip"] = w["skip"] * read[:, None] / write
    if "r_mag" in w:
        result["r_mag"] = w["r_mag"].clone()
    return result
