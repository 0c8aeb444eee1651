"""The activations that are trained: pre-activations to latents, and the gradient back. `ACTIVATIONS` is the table.

Axes: member row latent. The backward of each is exact, but JumpReLU's in its threshold: there it is the
straight-through estimator of Rajamanoharan et al. 2024 (arXiv 2407.14435), eq. 11 and 12.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.methods.dictionaries.training.penalties import Sparsity
from micrographia.methods.dictionaries.training.stack import Now, Stack

Weights = Mapping[str, Tensor]
passed = torch.ops.aten.threshold_backward
"""passed(g, y, t): g where y > t, else 0; one pass, with no mask in memory."""


class Activation(NamedTuple):
    forward: Callable[[Stack, Weights, Tensor, Now], tuple[Tensor, Tensor | None]]
    """(stack, weights, p, now) -> latents (member, row, latent), and BatchTopK's cutoff (member,)."""
    backward: Callable[[Stack, Weights, Tensor, Tensor, Tensor, Sparsity, Weights], Tensor]
    """(stack, weights, p, f, df, sparsity, into) -> dp; may overwrite df; writes the gradient of weights of its own."""


def relu(stack: Stack, weights: Weights, p: Tensor, now: Now) -> tuple[Tensor, None]:
    keep = now.dead is not None  # the losses of dead latents read p
    return (p.relu() if keep else p.relu_()), None


def topk(stack: Stack, weights: Weights, p: Tensor, now: Now) -> tuple[Tensor, None]:
    return largest(stack, p, 1), None


def largest(stack: Stack, p: Tensor, times: int) -> Tensor:
    """The `times` * k largest of each row, those of them that are positive."""
    ks = [min(times * (each.k or 0), p.shape[-1]) for each in stack.recipes]
    values, at = p.topk(max(ks), dim=-1, sorted=min(ks) < max(ks))
    for member, k in enumerate(ks):
        values[member, :, k:] = 0
    return torch.zeros_like(p).scatter_(-1, at, values.relu_())


def where_active(
    stack: Stack, weights: Weights, p: Tensor, f: Tensor, df: Tensor, sparsity: Sparsity, into: Weights
) -> Tensor:
    return passed.grad_input(df, f, 0, grad_input=df)


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(relu, where_active),
    "topk": Activation(topk, where_active),
}
