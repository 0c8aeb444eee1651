"""The start of training: the constant that inputs are multiplied by, b_dec, and the weights.

All of it follows from the first batches and the recipes' seeds. Axes: member layer row d.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import Stack

START_ROWS = 32_768
"""Rows that scale and b_dec are measured on, as OpenAI's sparse_autoencoder does."""
START_VALUES = 1 << 26
"""Numbers among them at most, where many members have sites of their own."""


def measured_scale(recipe: Recipe, rows: Tensor) -> Tensor:
    """(..., layers): the constant that each layer of (..., row, d) is multiplied by.

    unit: 1 / sqrt(E||x||^2). root-d: sqrt(d) / E||x||. Rows of zeros alone keep the scale 1.
    """
    norms = rows.unflatten(-1, (recipe.layers, -1)).norm(dim=-1)
    width = rows.shape[-1] // recipe.layers
    means: Mapping[str, Tensor] = {
        "unit": norms.square().mean(-2).sqrt(),
        "root-d": norms.mean(-2) / width**0.5,
        "none": torch.ones_like(norms[..., 0, :]),
    }
    mean = means[recipe.scale]
    return torch.where(mean > 0, 1 / mean, 1.0)


def geometric_median(rows: Tensor, steps: int = 100, tolerance: float = 1e-6) -> Tensor:
    """(..., row, d) -> (..., d): the point with the smallest mean distance to all rows, by Weiszfeld's iteration."""
    at = rows.mean(-2, keepdim=True)
    for _ in range(steps):
        weight = 1 / (rows - at).norm(dim=-1, keepdim=True).clamp_min(1e-8)
        new = (weight * rows).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)
        moved, at = (new - at).norm(), new
        if moved <= tolerance * at.norm():
            break
    return at.squeeze(-2)


def first_weights(stack: Stack, targets: Tensor) -> dict[str, Tensor]:
    """Name -> (member, *shape): the weights before the first step, from scaled targets (member or 1, row, d_out)."""
    recipe = stack.recipe
    starts = {"zero": torch.zeros_like, "mean": lambda x: x, "median": geometric_median}
    b_dec = starts[recipe.b_dec_start](targets if recipe.b_dec_start == "median" else targets.mean(-2))
    members = [dict(_draw(stack, each)) for each in stack.recipes]
    weights = {name: torch.stack([each[name] for each in members]).to(targets) for name in members[0]}
    return {**weights, "b_dec": b_dec.expand(len(members), -1).clone()}


def _draw(stack: Stack, recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
    """He-uniform decoder rows at the recipe's norm; the encoder their transpose, or drawn so too; all else constant."""
    random = generator(recipe.seed or 0)
    n, d_out = stack.shapes["decoder"]
    decoder = _directions((n, d_out), random) * recipe.row_norm
    alike = stack.d_in == d_out and not stack.transcodes
    encoder = decoder
    if recipe.encoder_start != "tied" or not alike:
        fresh = kaiming(stack.shapes["encoder"], n, random)
        encoder = fresh if recipe.encoder_start == "kaiming" else fresh / fresh.norm(dim=-1, keepdim=True)
    constants = {"threshold": recipe.first_threshold}
    for name, shape in stack.shapes.items():
        if name == "decoder":
            yield name, decoder * 0 if recipe.decoder_zero else decoder
        elif name == "encoder":
            yield name, encoder * recipe.encoder_scale
        elif name != "b_dec":
            yield name, torch.full(shape, constants.get(name, 0.0), dtype=torch.float64)


def _directions(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """He-uniform rows at norm 1."""
    drawn = kaiming(shape, shape[-1], random)
    return drawn / drawn.norm(dim=-1, keepdim=True)


def kaiming(shape: tuple[int, ...], fan: int, random: torch.Generator) -> Tensor:
    """He et al. 2015, uniform with gain sqrt 2: between -sqrt(6 / fan) and sqrt(6 / fan)."""
    return (torch.rand(shape, generator=random, dtype=torch.float64) * 2 - 1) * (6 / fan) ** 0.5
