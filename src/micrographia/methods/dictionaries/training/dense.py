"""The loss of a step and its gradient, written out: the dense plan, five products of 2 d latents FLOPs a row each.

The gradient stands by itself (no autograd); tests hold it against autograd of the plain loss. The loss is a sum of
terms, each a sum over dims or latents and a mean over the batch.
Axes: member row latent d.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from micrographia.methods.dictionaries.training.activations import ACTIVATIONS, Latents, largest, passed
from micrographia.methods.dictionaries.training.auxiliary import AUXILIARY
from micrographia.methods.dictionaries.training.penalties import PENALTIES, add_norms_gradient, decoder_norms
from micrographia.methods.dictionaries.training.prefixes import back, forward
from micrographia.methods.dictionaries.training.stack import Now, Outcome, ScaledBatch, Stack

Weights = Mapping[str, Tensor]


def dense(stack: Stack, weights: Weights, batch: ScaledBatch, now: Now, into: Weights) -> Outcome:
    """Loss and gradient of any kind but gated.

    Holds two tensors (member, row, latent), three where p is read again, and slices of the batch beside.
    """
    recipe, decoder = stack.recipe, weights["decoder"]
    latents = encode(stack, weights, batch, now)
    f = latents.f
    decoded = forward(stack, weights, f, batch)
    norms = decoder_norms(decoder, recipe.layers) if recipe.norm_weighted else torch.ones_like(decoder[..., 0])
    sparsity = PENALTIES[recipe.chosen_penalty](stack, f, norms, now, batch.rows)
    terms = {**decoded.terms, "sparsity": sparsity.value}
    df = back(stack, weights, f, decoded.slopes, sparsity.latents, batch, into)
    if recipe.norm_weighted and sparsity.norms is not None:
        add_norms_gradient(into["decoder"], decoder, sparsity.norms, recipe.layers)
    fired = f.sign().abs_().sum(1)
    wide = _multi_topk(stack, weights, latents.kept, batch, into) if recipe.multi_topk else None
    dead = _pre(recipe.kind, weights, latents)
    dp = ACTIVATIONS[recipe.kind].backward(stack, weights, latents, df, sparsity, batch, into)
    if wide is not None:
        terms["multi_topk"] = wide[0]
        dp += wide[1]
    if recipe.pre_activation:
        terms["pre_activation"] = _pre_activation(stack, weights, latents.kept, norms, batch, dp, into)
    if now.dead is not None:
        terms["revival"] = _revive(stack, weights, dead, decoded.residual, batch, now, dp, into)
    torch.bmm(dp.mT, encoder_input(stack, weights, batch), out=into["encoder"])
    total = dp.sum(1)
    into["b_enc"].copy_(total)
    if stack.subtracts:
        into["b_dec"].sub_((total[:, None] @ weights["encoder"])[:, 0])
    return Outcome(terms, fired, latents.cutoff, sparsity.powers)


def encode(stack: Stack, weights: Weights, batch: ScaledBatch, now: Now) -> Latents:
    """The latents of a batch."""
    p = torch.baddbmm(weights["b_enc"][:, None], encoder_input(stack, weights, batch), weights["encoder"].mT)
    return ACTIVATIONS[stack.recipe.kind].forward(stack, weights, p, batch, now)


def encoder_input(stack: Stack, weights: Weights, batch: ScaledBatch) -> Tensor:
    """(member, row, d_in)."""
    read = batch.x - weights["b_dec"][:, None] if stack.subtracts else batch.x
    return read.expand(len(weights["decoder"]), -1, -1)


def _pre(kind: str, weights: Weights, latents: Latents) -> Callable[[int, Tensor], Tensor]:
    """(member, latents) -> their pre-activations (row, some)."""
    if kind == "jumprelu":
        return lambda member, at: latents.kept[member][:, at] + weights["threshold"][member, at]
    return lambda member, at: latents.kept[member][:, at]


def _multi_topk(stack: Stack, weights: Weights, p: Tensor, batch: ScaledBatch, into: Weights) -> tuple[Tensor, Tensor]:
    """The loss with the 4 k largest latents, times its weight (arXiv 2406.04093, section 4.2.1), and its dp."""
    f, decoder = largest(stack, p, 4), weights["decoder"]
    decoded = forward(stack, weights, f, batch, whole=True)
    slope = decoded.slopes[0].mul_(stack.recipe.multi_topk)
    into["decoder"].baddbmm_(f.mT, slope)
    into["b_dec"].add_(slope.sum(1))
    if "skip" in into:
        into["skip"].baddbmm_(batch.x.expand(len(f), -1, -1).mT, slope)
    value = decoded.terms["reconstruction"] * stack.recipe.multi_topk
    return value, passed(torch.bmm(slope, decoder.mT), f, 0)


def _pre_activation(
    stack: Stack, weights: Weights, over: Tensor, norms: Tensor, batch: ScaledBatch, dp: Tensor, into: Weights
) -> Tensor:
    """weight * sum ReLU(threshold - p) ||d||, mean over the batch; adds its gradient (Anthropic, January 2025)."""
    each = stack.recipe.pre_activation / batch.rows
    below = (-over).relu_()
    lack = below.sum(1)
    slope = below.sign_().mul_(each * norms[:, None])
    dp.sub_(slope)
    into["threshold"].add_(slope.sum(1))
    if stack.recipe.norm_weighted:
        add_norms_gradient(into["decoder"], weights["decoder"], each * lack, stack.recipe.layers)
    return each * (lack * norms).sum(1)


def _revive(
    stack: Stack,
    weights: Weights,
    pre: Callable[[int, Tensor], Tensor],
    residual: Tensor,
    batch: ScaledBatch,
    now: Now,
    dp: Tensor,
    into: Weights,
) -> Tensor:
    """The auxiliary loss of each member with dead latents; adds its gradient."""
    assert now.dead is not None
    values = residual.new_zeros(len(residual))
    for member, dead in enumerate(now.dead):
        at = dead.nonzero()[:, 0]
        if len(at):
            p, decoder = pre(member, at), weights["decoder"][member, at]
            found = AUXILIARY[stack.recipe.revival](stack, p, decoder, residual[member], batch, now)
            values[member] = found.value
            dp[member].index_add_(1, at, found.p)
            into["decoder"][member].index_add_(0, at, found.decoder)
    return values
