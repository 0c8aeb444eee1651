"""The loss of a step and its gradient, written out: the dense plan, five products of 2 d latents FLOPs a row each.

A Plan may be replaced by a faster one that agrees with it. The gradient stands by itself (no autograd); tests hold it
against autograd of the plain loss. The loss is a sum of terms, each a sum over dims and a mean over the batch.
Axes: member row latent d.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from micrographia.methods.dictionaries.training.activations import ACTIVATIONS
from micrographia.methods.dictionaries.training.penalties import PENALTIES, add_norms_gradient, decoder_norms
from micrographia.methods.dictionaries.training.stack import Batch, Now, Outcome, Stack

Weights = Mapping[str, Tensor]
Plan = Callable[[Stack, Weights, Batch, Now, Weights], Outcome]
"""(stack, weights, batch, now, into) -> Outcome. Writes this rank's share of the gradient of every weight to `into`."""


def dense(stack: Stack, weights: Weights, batch: Batch, now: Now, into: Weights) -> Outcome:
    """Loss and gradient of any kind but gated. Holds two tensors (member, row, latent), three where p is read again."""
    recipe, rows, decoder = stack.recipe, batch.rows, weights["decoder"]
    read = batch.x - weights["b_dec"][:, None] if stack.subtracts else batch.x
    read = read.expand(len(decoder), -1, -1)
    p = torch.baddbmm(weights["b_enc"][:, None], read, weights["encoder"].mT)
    activation = ACTIVATIONS[recipe.kind]
    f, cutoff = activation.forward(stack, weights, p, now)
    out = torch.baddbmm(weights["b_dec"][:, None], f, decoder)
    error = out.sub_(batch.target)
    terms = {"reconstruction": error.square().sum((1, 2)) / rows}
    slope = error.mul_(2 / rows)
    norms = decoder_norms(decoder, recipe.layers) if recipe.norm_weighted else torch.ones_like(decoder[..., 0])
    sparsity = PENALTIES[recipe.chosen_penalty](stack, f, norms, now, rows)
    terms["sparsity"] = sparsity.value
    torch.bmm(f.mT, slope, out=into["decoder"])
    if recipe.norm_weighted and sparsity.norms is not None:
        add_norms_gradient(into["decoder"], decoder, sparsity.norms, recipe.layers)
    into["b_dec"].copy_(slope.sum(1))
    df = _back(slope, decoder, sparsity.latents)
    fired = f.sign().abs_().sum(1)
    dp = activation.backward(stack, weights, p, f, df, sparsity, into)
    torch.bmm(dp.mT, read, out=into["encoder"])
    total = dp.sum(1)
    into["b_enc"].copy_(total)
    if stack.subtracts:
        into["b_dec"].sub_((total[:, None] @ weights["encoder"])[:, 0])
    return Outcome(terms, fired, cutoff)


def _back(slope: Tensor, decoder: Tensor, constant: Tensor | None) -> Tensor:
    """slope @ decoder^T, plus the penalty's slope."""
    return torch.bmm(slope, decoder.mT) if constant is None else torch.baddbmm(constant, slope, decoder.mT)


PLANS: Mapping[str, Plan] = dict.fromkeys(ACTIVATIONS, dense)
