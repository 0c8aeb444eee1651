"""The activations that are trained: pre-activations to latents, and the gradient back. `ACTIVATIONS` is the table.

Axes: member row latent. The backward of each is exact, but JumpReLU's in its threshold: there it is the
straight-through estimator of Rajamanoharan et al. 2024 (arXiv 2407.14435), eq. 11 and 12, with the rectangle kernel.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.dictionaries import form
from micrographia.methods.dictionaries.training.penalties import Sparsity
from micrographia.methods.dictionaries.training.stack import Now, ScaledBatch, Stack

Weights = Mapping[str, Tensor]
passed = torch.ops.aten.threshold_backward
"""passed(g, y, t): g where y > t, else 0; one pass, with no mask in memory."""
IN_CACHE = 1 << 19
"""Elements of a slice that passes one after another read from cache."""


class Latents(NamedTuple):
    """What an activation made of p."""

    f: Tensor
    kept: Tensor
    """What its backward reads: p, or p less the threshold."""
    cutoff: Tensor | None = None
    """(member,): BatchTopK's smallest kept pre-activation."""


class Activation(NamedTuple):
    forward: Callable[[Stack, Weights, Tensor, ScaledBatch, Now], Latents]
    """(stack, weights, p, batch, now) -> Latents; may overwrite p."""
    backward: Callable[[Stack, Weights, Latents, Tensor, Sparsity, ScaledBatch, Weights], Tensor]
    """(stack, weights, latents, df, sparsity, batch, into) -> dp. May overwrite df and latents; writes to `into` the
    gradient of weights of its own."""


def relu(stack: Stack, weights: Weights, p: Tensor, batch: ScaledBatch, now: Now) -> Latents:
    return Latents(p.relu_() if now.dead is None else p.relu(), p)  # the losses of dead latents read p


def topk(stack: Stack, weights: Weights, p: Tensor, batch: ScaledBatch, now: Now) -> Latents:
    return Latents(largest(stack, p), p)


def largest(stack: Stack, p: Tensor, times: int = 1) -> Tensor:
    """The `times` * k largest of each row, those of them that are positive."""
    ks = [min(times * (each.k or 0), p.shape[-1]) for each in stack.recipes]
    values, at = p.topk(max(ks), dim=-1, sorted=min(ks) < max(ks))
    for member, k in enumerate(ks):
        values[member, :, k:] = 0
    return torch.zeros_like(p).scatter_(-1, at, values.relu_())


def batchtopk(stack: Stack, weights: Weights, p: Tensor, batch: ScaledBatch, now: Now) -> Latents:
    """The k * batch largest of the whole batch, over all ranks, those that are positive (arXiv 2412.06410, eq. 5)."""
    cutoff = p.new_empty(len(p))
    for member, recipe in enumerate(stack.recipes):
        assert recipe.k is not None
        count = min(recipe.k * batch.rows, p[member].numel() * now.group.size)
        own = p[member].flatten()
        if now.group.size > 1:  # each rank hands over as many values, the largest that it has
            own = own.topk(min(count, len(own))).values
        cutoff[member] = now.group.gather(own).kthvalue(len(own) * now.group.size - count + 1).values
    at_least = torch.nextafter(cutoff.clamp_min(0), -torch.ones_like(cutoff)).clamp_min(0)
    f = passed(p, p - at_least[:, None, None], 0)
    return Latents(f, p, cutoff.clamp_min(0))


def of_rows(stack: Stack, weights: Weights, p: Tensor, batch: ScaledBatch, now: Now) -> Latents:
    """The activations that a Form computes row by row: abstopk and groupmax."""
    rule = form.ACTIVATIONS[stack.recipe.kind]
    gates = [form.Gate(p.new_zeros(()), each.k or 0) for each in stack.recipes]
    return Latents(torch.stack([rule(each, gate) for each, gate in zip(p, gates)]), p)


def jumprelu(stack: Stack, weights: Weights, p: Tensor, batch: ScaledBatch, now: Now) -> Latents:
    """p where it is above its threshold. Thresholds are positive, so that what is above is positive too."""
    over = p - weights["threshold"][:, None]
    return Latents(passed.grad_input(p, over, 0, grad_input=p), over)


def where_positive(
    stack: Stack, weights: Weights, latents: Latents, df: Tensor, sparsity: Sparsity, batch: ScaledBatch, into: Weights
) -> Tensor:
    return passed.grad_input(df, latents.f, 0, grad_input=df)


def where_not_zero(
    stack: Stack, weights: Weights, latents: Latents, df: Tensor, sparsity: Sparsity, batch: ScaledBatch, into: Weights
) -> Tensor:
    return df.masked_fill_(latents.f == 0, 0)


def jumprelu_back(
    stack: Stack, weights: Weights, latents: Latents, df: Tensor, sparsity: Sparsity, batch: ScaledBatch, into: Weights
) -> Tensor:
    """dp = df where p > threshold; the threshold's gradient from the kernel |p - threshold| < bandwidth / 2.

    From df: -(threshold / bandwidth) * sum df; from the number of active latents: -(1 / bandwidth) * its slope. With
    `estimator_to_input` the same reaches p with the opposite sign.
    """
    recipe, threshold = stack.recipe, weights["threshold"]
    width = recipe.bandwidth
    count = threshold.new_zeros(len(df)) if sparsity.active is None else sparsity.active
    jump = -threshold / width
    at_edge, inside = torch.zeros_like(threshold), torch.zeros_like(threshold)
    size = max(1, IN_CACHE // df.shape[-1])
    for member in range(len(df)):
        for over, slope in zip(latents.kept[member].split(size), df[member].split(size)):
            near = (width / 2 - over.abs()).clamp_min_(0)
            of_jump = passed(slope, near, 0)
            at_edge[member] += of_jump.sum(0)
            near.sign_()
            inside[member] += near.sum(0)
            passed.grad_input(slope, over, 0, grad_input=slope)
            if recipe.estimator_to_input:
                constant = count[member] / (width * batch.rows)
                slope.sub_(of_jump.mul_(jump[member])).add_(near, alpha=float(constant))
    into["threshold"].copy_(jump * at_edge - (count / (width * batch.rows))[:, None] * inside)
    return df


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(relu, where_positive),
    "topk": Activation(topk, where_positive),
    "batchtopk": Activation(batchtopk, where_positive),
    "abstopk": Activation(of_rows, where_not_zero),
    "groupmax": Activation(of_rows, where_positive),
    "jumprelu": Activation(jumprelu, jumprelu_back),
}
