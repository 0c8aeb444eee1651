"""The loss of a step and its gradient through the active latents: the sparse plan.

The same sums as the dense plan's, over the entries that are not zero: 2 d latents + 8 d active FLOPs a row, against
10 d latents. Nothing of the size rows x latents is held. Members are taken one after another. Where too many latents
are active (as at the start of training with an L1 penalty) or a loss reads all of them, the dense plan steps in.
Axes: row latent d; entry, an active latent of a row.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.methods.dictionaries.sparse import in_blocks
from micrographia.methods.dictionaries.sparse.active import DTYPES, Active, ByLatent, by_latent, decode, dots, ragged
from micrographia.methods.dictionaries.sparse.find import FINDERS, Found
from micrographia.methods.dictionaries.sparse.in_blocks import Rows
from micrographia.methods.dictionaries.training.auxiliary import AUXILIARY
from micrographia.methods.dictionaries.training.dense import dense, encoder_input
from micrographia.methods.dictionaries.training.penalties import (
    PENALTIES,
    Sparsity,
    add_norms_gradient,
    decoder_norms,
)
from micrographia.methods.dictionaries.training.prefixes import blocks
from micrographia.methods.dictionaries.training.stack import Now, Outcome, ScaledBatch, Stack

Weights = Mapping[str, Tensor]


def sparse(stack: Stack, weights: Weights, batch: ScaledBatch, now: Now, into: Weights) -> Outcome:
    """Loss and gradient of relu, topk, batchtopk and jumprelu. Equal to the dense plan's, to rounding."""
    if not covers(stack):
        return dense(stack, weights, batch, now, into)
    read = encoder_input(stack, weights, batch)
    outcomes = []
    for member, recipe in enumerate(stack.recipes):
        one = replace(stack, recipes=(recipe,), places=stack.places[member : member + 1])
        rows = Rows(read[member], batch.x[member % len(batch.x)], batch.target[member % len(batch.target)], batch)
        outcomes.append(_member(one, _of(weights, member), rows, now.of(member), _of(into, member)))
    return _together(outcomes)


def sparse_on_cpu(stack: Stack, weights: Weights, batch: ScaledBatch, now: Now, into: Weights) -> Outcome:
    """The sparse plan where it was measured to be the faster: on a CPU, in a dtype that its products have."""
    decoder = weights["decoder"]
    fits = decoder.device.type == "cpu" and decoder.dtype in DTYPES
    return (sparse if fits else dense)(stack, weights, batch, now, into)


def covers(stack: Stack) -> bool:
    """Whether this plan computes all terms of the loss itself."""
    recipe = stack.recipe
    return recipe.kind in FINDERS and not recipe.multi_topk and not recipe.pre_activation


class Decoded(NamedTuple):
    terms: dict[str, Tensor]
    slopes: list[Tensor]
    """The gradient in the output of each block of latents."""
    residual: Tensor


def _member(stack: Stack, weights: Weights, rows: Rows, now: Now, into: Weights) -> Outcome:
    found = FINDERS[stack.recipe.kind](stack.recipe, weights, rows.read, rows.batch, now)
    if now.group.sum(rows.read.new_tensor(float(found is None))) == 0:  # all ranks go the same way
        assert found is not None
        outcome, residual = _through_active(stack, weights, rows, now, found, into)
    elif in_blocks.covers(stack):
        outcome, residual = in_blocks.in_blocks(stack, weights, rows, now, into)
    else:
        return _by_dense(stack, weights, rows, now, into)
    if now.dead is not None:
        outcome.terms["revival"] = _revive(stack, weights, rows, residual, now, into)
    if stack.subtracts:
        into["b_dec"].sub_(into["b_enc"] @ weights["encoder"])
    return outcome


def _by_dense(stack: Stack, weights: Weights, rows: Rows, now: Now, into: Weights) -> Outcome:
    """One member by the dense plan."""
    alone = ScaledBatch(rows.x[None], rows.target[None], rows.batch.rows)
    found = dense(stack, _stacked(weights), alone, now, _stacked(into))
    terms = {name: value[0] for name, value in found.terms.items()}
    return Outcome(terms, found.fired[0], None if found.cutoff is None else found.cutoff[0], found.powers)


def _through_active(
    stack: Stack, weights: Weights, rows: Rows, now: Now, found: Found, into: Weights
) -> tuple[Outcome, Tensor]:
    """Loss and gradient, without what goes from b_enc's to b_dec's; and target less output, (row, d_out)."""
    recipe, n, batch = stack.recipe, stack.recipe.n_latents, rows.batch
    p = ragged(*found.entries, n_rows=len(rows.read))
    threshold = weights["threshold"][p.latents] if recipe.kind == "jumprelu" else None
    f = p if threshold is None else p._replace(values=torch.where(p.values > 0, p.values + threshold, 0))
    latents = by_latent(p, n)
    decoded = _forward(stack, weights, f, rows)
    sparsity, norms_slope = _penalty(stack, weights, f, now, batch)
    df = _back(stack, weights, f, latents, decoded.slopes, rows, into)
    if sparsity.latents is not None:
        df += sparsity.latents[0, 0]
    if norms_slope is not None:
        add_norms_gradient(into["decoder"], weights["decoder"], norms_slope, recipe.layers)
    dp = df if threshold is None else _through_jump(stack, p, threshold, df, sparsity, batch, into)
    into["encoder"].copy_(latents.sums(dp, rows.read))
    into["b_enc"].zero_().index_add_(0, p.latents, dp)
    terms = {**decoded.terms, "sparsity": sparsity.value[0]}
    fired = latents.counts if threshold is None else torch.bincount(p.latents[p.values > 0], minlength=n)
    return Outcome(terms, fired.to(p.values.dtype), found.cutoff, sparsity.powers), decoded.residual


def _forward(stack: Stack, weights: Weights, f: Active, rows: Rows) -> Decoded:
    """The reconstructions' losses and their gradients in the outputs, as the dense plan's `forward`."""
    recipe, decoder = stack.recipe, weights["decoder"]
    parts = _parts(stack, f)
    weight = 1 / len(parts) if recipe.prefix_mean else 1.0
    out, losses, slopes = weights["b_dec"] - rows.target, [], []
    if "skip" in weights:
        out = torch.addmm(out, rows.x, weights["skip"])
    for part, _ in parts:
        out = out + decode(part, decoder)
        losses.append(out.square().sum() * (weight / rows.batch.rows))
        slopes.append(out * (2 * weight / rows.batch.rows))
    for earlier in range(len(slopes) - 1, 0, -1):
        slopes[earlier - 1] += slopes[earlier]
    terms = {"reconstruction": losses[-1]}
    if len(losses) > 1:
        terms["prefixes"] = torch.stack(losses[:-1]).sum(0)
    return Decoded(terms, slopes, -out)


def _back(
    stack: Stack,
    weights: Weights,
    f: Active,
    latents: ByLatent,
    slopes: list[Tensor],
    rows: Rows,
    into: Weights,
) -> Tensor:
    """The gradient in every entry; writes those of decoder, b_dec and skip."""
    into["b_dec"].copy_(slopes[0].sum(0))
    if "skip" in into:
        torch.mm(rows.x.T, slopes[0], out=into["skip"])
    if len(slopes) == 1:
        into["decoder"].copy_(latents.sums(f.values, slopes[0]))
        return dots(f, slopes[0], weights["decoder"])
    df = torch.empty_like(f.values)
    for (part, at), (start, stop), slope in zip(_parts(stack, f), blocks(stack), slopes):
        df[at] = dots(part, slope, weights["decoder"])
        into["decoder"][start:stop] = latents.part(start, stop).sums(f.values, slope)
    return df


def _parts(stack: Stack, f: Active) -> list[tuple[Active, Tensor | None]]:
    """The entries of each block of latents, and their places."""
    bounds = blocks(stack)
    if len(bounds) == 1:
        return [(f, None)]
    rows, found = f.rows(), []
    for start, stop in bounds:
        at = ((f.latents >= start) & (f.latents < stop)).nonzero()[:, 0]
        found.append((ragged(rows[at], f.latents[at], f.values[at], f.n_rows), at))
    return found


def _penalty(stack: Stack, weights: Weights, f: Active, now: Now, batch: ScaledBatch) -> tuple[Sparsity, Tensor | None]:
    """The penalty of the entries, which are handed over as the latents of one row; its slope in the decoder's norms."""
    recipe, decoder = stack.recipe, weights["decoder"]
    norms = decoder_norms(decoder, recipe.layers)[f.latents] if recipe.norm_weighted else torch.ones_like(f.values)
    found = PENALTIES[recipe.chosen_penalty](stack, f.values[None, None], norms[None], now, batch.rows)
    if not recipe.norm_weighted or found.norms is None:
        return found, None
    return found, decoder.new_zeros(len(decoder)).index_add_(0, f.latents, found.norms[0])


def _through_jump(
    stack: Stack,
    over: Active,
    threshold: Tensor,
    df: Tensor,
    sparsity: Sparsity,
    batch: ScaledBatch,
    into: Weights,
) -> Tensor:
    """dp of JumpReLU, and its threshold's gradient: the dense plan's `jumprelu_back` at the entries."""
    recipe = stack.recipe
    width = recipe.bandwidth
    near = over.values.abs() < width / 2
    of_jump = torch.where(near, df, 0) * (threshold / width)
    of_count = near.to(df) * (0.0 if sparsity.active is None else sparsity.active[0] / (width * batch.rows))
    into["threshold"].zero_().index_add_(0, over.latents, -(of_jump + of_count))
    dp = torch.where(over.values > 0, df, 0)
    return dp + of_jump + of_count if recipe.estimator_to_input else dp


def _revive(stack: Stack, weights: Weights, rows: Rows, residual: Tensor, now: Now, into: Weights) -> Tensor:
    """The auxiliary loss, if any latent is dead; adds its gradient. Costs 2 d FLOPs a row and dead latent, and more."""
    assert now.dead is not None
    at = now.dead[0].nonzero()[:, 0]
    if not len(at):
        return residual.new_zeros(())
    p = torch.addmm(weights["b_enc"][at], rows.read, weights["encoder"][at].T)
    found = AUXILIARY[stack.recipe.revival](stack, p, weights["decoder"][at], residual, rows.batch, now)
    into["decoder"].index_add_(0, at, found.decoder)
    into["encoder"].index_add_(0, at, found.p.T @ rows.read)
    into["b_enc"].index_add_(0, at, found.p.sum(0))
    return found.value


def _together(outcomes: list[Outcome]) -> Outcome:
    """The members' outcomes, with a leading axis."""
    terms = {name: torch.stack([each.terms[name] for each in outcomes]) for name in outcomes[0].terms}
    fired = torch.stack([each.fired for each in outcomes])
    cutoff = (
        None
        if outcomes[0].cutoff is None
        else torch.stack([each.cutoff for each in outcomes if each.cutoff is not None])
    )
    powers = (
        None if outcomes[0].powers is None else torch.cat([each.powers for each in outcomes if each.powers is not None])
    )
    return Outcome(terms, fired, cutoff, powers)


def _of(weights: Weights, member: int) -> dict[str, Tensor]:
    return {name: value[member] for name, value in weights.items()}


def _stacked(weights: Weights) -> dict[str, Tensor]:
    return {name: value[None] for name, value in weights.items()}
