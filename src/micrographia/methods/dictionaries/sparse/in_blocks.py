"""The loss and gradient of relu and jumprelu where many latents are active: the dense products, block by block of rows.

The same five products as the dense plan's, but the passes between them read pre-activations from cache, and nothing of
the size rows x latents is held. Gradients add up over blocks within the products. Axes: row latent d; one member.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.methods.dictionaries.sparse.select import above
from micrographia.methods.dictionaries.training.activations import passed
from micrographia.methods.dictionaries.training.penalties import (
    OF_COUNT,
    PENALTIES,
    Sparsity,
    add_norms_gradient,
    decoder_norms,
)
from micrographia.methods.dictionaries.training.stack import Now, Outcome, ScaledBatch, Stack

Weights = Mapping[str, Tensor]
BLOCK = 1 << 20
"""Pre-activations of a block: two such tensors fit into the last cache."""


class Rows(NamedTuple):
    """What one member reads: encoder input, input and target (row, d), and the batch that they are of."""

    read: Tensor
    x: Tensor
    target: Tensor
    batch: ScaledBatch


def covers(stack: Stack) -> bool:
    """Whether this plan computes all terms of the loss itself."""
    recipe = stack.recipe
    plain = not (recipe.prefixes or recipe.pre_activation or recipe.estimator_to_input)
    return recipe.kind in ("relu", "jumprelu") and plain


def in_blocks(stack: Stack, weights: Weights, rows: Rows, now: Now, into: Weights) -> tuple[Outcome, Tensor]:
    """Loss and gradient, without what goes from b_enc's to b_dec's; and target less output, (row, d_out)."""
    recipe, decoder, batch = stack.recipe, weights["decoder"], rows.batch
    norms = (
        decoder_norms(decoder, recipe.layers)[None] if recipe.norm_weighted else torch.ones_like(decoder[None, :, 0])
    )
    for value in into.values():
        value.zero_()
    base = weights["b_dec"] - rows.target
    if "skip" in weights:
        base = torch.addmm(base, rows.x, weights["skip"])
    totals = _Totals(decoder)
    size = max(1, BLOCK // len(decoder))
    buffers = rows.read.new_empty(2, min(size, len(base)), len(decoder))
    for read, out in zip(rows.read.split(size), base.split(size)):
        p, df = buffers[:, : len(read)].unbind()
        torch.addmm(weights["b_enc"], read, weights["encoder"].T, out=p)
        over = _activate(weights, p, df)
        out.addmm_(p, decoder)  # p holds the latents from here, and base the error
        totals.fired.addmv_(torch.sign(p, out=df).T, totals.ones[: len(read)])
        penalty = None if recipe.chosen_penalty in OF_COUNT else _add(totals, stack, p, norms, now, batch)
        slope = out * (2 / batch.rows)
        into["decoder"].addmm_(p.T, slope)
        if penalty is None or penalty.latents is None:
            torch.mm(slope, decoder.T, out=df)
        else:
            torch.addmm(penalty.latents[0], slope, decoder.T, out=df)
        if over is not None:
            _at_edges(recipe.bandwidth, over, df, totals)
        passed.grad_input(df, p, 0, grad_input=df)
        into["encoder"].addmm_(df.T, read)
        into["b_enc"].addmv_(df.T, totals.ones[: len(read)])
    return _outcome(stack, weights, rows, base, totals, now, into), -base


class _Totals:
    """Sums over the blocks."""

    def __init__(self, decoder: Tensor) -> None:
        self.ones = decoder.new_ones(max(1, BLOCK // len(decoder)))
        self.fired = decoder.new_zeros(len(decoder))
        self.inside = torch.zeros_like(self.fired)
        """Pre-activations within half a bandwidth of the threshold."""
        self.at_edge = torch.zeros_like(self.fired)
        """The gradient in the latents there."""
        self.penalty: list[Sparsity] = []


def _activate(weights: Weights, p: Tensor, spare: Tensor) -> Tensor | None:
    """p to latents in place; of jumprelu also -|p - threshold|."""
    if "threshold" not in weights:
        p.relu_()
        return None
    over = torch.sub(p, weights["threshold"], out=spare)
    passed.grad_input(p, over, 0, grad_input=p)
    return torch.copysign(over, over.new_tensor(-1.0))


def _at_edges(width: float, below: Tensor, df: Tensor, totals: _Totals) -> None:
    """Sum up what the threshold's gradient reads, at the few entries within half a bandwidth."""
    near = above(below, -width / 2)
    totals.inside.index_add_(0, near.latents, torch.ones_like(near.values))
    totals.at_edge.index_add_(0, near.latents, df[near.rows, near.latents])


def _add(totals: _Totals, stack: Stack, f: Tensor, norms: Tensor, now: Now, batch: ScaledBatch) -> Sparsity:
    found = PENALTIES[stack.recipe.chosen_penalty](stack, f[None], norms, now, batch.rows)
    totals.penalty.append(found._replace(latents=None))
    return found


def _outcome(
    stack: Stack, weights: Weights, rows: Rows, error: Tensor, totals: _Totals, now: Now, into: Weights
) -> Outcome:
    recipe, batch = stack.recipe, rows.batch
    if recipe.chosen_penalty in OF_COUNT:
        sparsity = OF_COUNT[recipe.chosen_penalty](totals.fired.sum()[None] / batch.rows, now)
    else:
        sparsity = _sum(totals.penalty)
    if "threshold" in into:
        width = recipe.bandwidth
        count = 0.0 if sparsity.active is None else sparsity.active[0] / (width * batch.rows)
        into["threshold"].copy_(-(weights["threshold"] / width * totals.at_edge + count * totals.inside))
    if recipe.norm_weighted and sparsity.norms is not None:
        add_norms_gradient(into["decoder"], weights["decoder"], sparsity.norms[0], recipe.layers)
    slope = error * (2 / batch.rows)
    into["b_dec"].copy_(slope.sum(0))
    if "skip" in into:
        torch.mm(rows.x.T, slope, out=into["skip"])
    terms = {"reconstruction": error.square().sum() / batch.rows, "sparsity": sparsity.value[0]}
    return Outcome(terms, totals.fired, None, sparsity.powers)


def _sum(parts: list[Sparsity]) -> Sparsity:
    """The blocks' penalties together; none of them has a slope in the number of active latents."""

    def over(found: list[Tensor | None]) -> Tensor | None:
        present = [each for each in found if each is not None]
        return torch.stack(present).sum(0) if present else None

    value = torch.stack([each.value for each in parts]).sum(0)
    norms, powers = over([each.norms for each in parts]), over([each.powers for each in parts])
    return Sparsity(value, norms=norms, powers=powers)
