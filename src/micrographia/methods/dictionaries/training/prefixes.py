"""Decoding and its gradient: the reconstruction, and those of the first latents alone (Matryoshka).

The loss is sum_n w_n ||x - x_hat_{1:n}||^2 over the recipe's prefixes and the whole, w_n = 1 or 1 / their number
(Bussmann et al. 2025, arXiv 2503.17547, eq. 3). Each latent is decoded once: the prefixes' outputs are partial sums, so
that they cost no product more. Axes: member row latent d.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.methods.dictionaries.training.stack import ScaledBatch, Stack

Weights = Mapping[str, Tensor]


class Decoding(NamedTuple):
    terms: dict[str, Tensor]
    """reconstruction, of all latents; prefixes, of the others together."""
    slopes: list[Tensor]
    """The gradient in the output of each block of latents: of all prefixes that contain it."""
    residual: Tensor
    """Target less output, of all latents."""


def blocks(stack: Stack) -> list[tuple[int, int]]:
    """The latents between one prefix and the next."""
    ends = [*stack.recipe.prefixes, stack.recipe.n_latents]
    return list(zip([0, *ends], ends))


def forward(stack: Stack, weights: Weights, f: Tensor, batch: ScaledBatch, *, whole: bool = False) -> Decoding:
    """The reconstructions' losses, and their gradients in the outputs. `whole`: without prefixes."""
    recipe, decoder = stack.recipe, weights["decoder"]
    parts = [(0, recipe.n_latents)] if whole else blocks(stack)
    weight = 1 / len(parts) if recipe.prefix_mean else 1.0
    out, losses, slopes = weights["b_dec"][:, None] - batch.target, [], []
    if "skip" in weights:
        out = torch.baddbmm(out, batch.x.expand(len(f), -1, -1), weights["skip"])
    for start, stop in parts:
        out = torch.baddbmm(out, f[..., start:stop], decoder[:, start:stop])
        losses.append(out.square().sum((1, 2)) * (weight / batch.rows))
        slopes.append(out * (2 * weight / batch.rows))
    for earlier in range(len(slopes) - 1, 0, -1):
        slopes[earlier - 1] += slopes[earlier]
    terms = {"reconstruction": losses[-1]}
    if len(losses) > 1:
        terms["prefixes"] = torch.stack(losses[:-1]).sum(0)
    return Decoding(terms, slopes, -out)


def back(
    stack: Stack,
    weights: Weights,
    f: Tensor,
    slopes: Sequence[Tensor],
    constant: Tensor | None,
    batch: ScaledBatch,
    into: Weights,
) -> Tensor:
    """The gradient in the latents, `constant` added; writes those of decoder, b_dec and skip."""
    decoder = weights["decoder"]
    into["b_dec"].copy_(slopes[0].sum(1))
    if "skip" in into:
        torch.bmm(batch.x.expand(len(f), -1, -1).mT, slopes[0], out=into["skip"])
    if len(slopes) == 1:
        torch.bmm(f.mT, slopes[0], out=into["decoder"])
        return _product(slopes[0], decoder.mT, constant)
    df = torch.empty_like(f)
    for (start, stop), slope in zip(blocks(stack), slopes):
        into["decoder"][:, start:stop] = torch.bmm(f[..., start:stop].mT, slope)
        part = None if constant is None else constant[..., start:stop]
        df[..., start:stop] = _product(slope, decoder[:, start:stop].mT, part)
    return df


def _product(slope: Tensor, decoder: Tensor, constant: Tensor | None) -> Tensor:
    return torch.bmm(slope, decoder) if constant is None else torch.baddbmm(constant, slope, decoder)
