"""What keeps latents sparse: each a sum over latents and a mean over the batch, with its slopes.

`PENALTIES` is the table. `norms` (member, latent) are 1, or the norms of decoder rows where a recipe weights by them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.methods.dictionaries.training.stack import Now, Stack

FLOOR = 1e-6
"""Latents below this count as 0 in the penalty lp, whose slope at 0 is infinite for p < 1."""


class Sparsity(NamedTuple):
    """A penalty's value, and its slopes in what it was computed from."""

    value: Tensor
    """(member,): this rank's share of it."""
    latents: Tensor | None = None
    """In each latent: (member, row or 1, latent); as a constant it holds where the latent is active."""
    active: Tensor | None = None
    """(member,): in the number of active latents of a row, over all rows."""
    norms: Tensor | None = None
    """(member, latent): in `norms`."""
    powers: Tensor | None = None
    """(member, 2): the penalty lp over its coefficient, at the present p and the next."""


def none(stack: Stack, f: Tensor, norms: Tensor, now: Now, rows: int) -> Sparsity:
    return Sparsity(f.new_zeros(len(f)))


def l1(stack: Stack, f: Tensor, norms: Tensor, now: Now, rows: int) -> Sparsity:
    """coefficient * sum f ||d||."""
    each = now.sparsity[:, None] / rows
    total = f.sum(1)
    return Sparsity((each * norms * total).sum(1), (each * norms)[:, None], None, each * total)


def lp(stack: Stack, f: Tensor, norms: Tensor, now: Now, rows: int) -> Sparsity:
    """coefficient * sum (f ||d||)^p (Karvonen et al. 2024, arXiv 2408.00113, section 3.2)."""
    each = now.sparsity[:, None, None] / rows
    weighted = f * norms[:, None]
    above = weighted > FLOOR
    present, later = (torch.where(above, weighted.clamp_min(FLOOR) ** p, 0) for p in (now.power, now.next_power))
    slope = each * now.power * torch.where(above, present / weighted.clamp_min(FLOOR), 0)
    powers = torch.stack([present.sum((1, 2)), later.sum((1, 2))], -1) / rows
    return Sparsity(now.sparsity * powers[:, 0], slope * norms[:, None], None, (slope * f).sum(1), powers)


def l0(stack: Stack, f: Tensor, norms: Tensor, now: Now, rows: int) -> Sparsity:
    return of_l0(_mean_l0(f, rows), now)


def l0_target(stack: Stack, f: Tensor, norms: Tensor, now: Now, rows: int) -> Sparsity:
    return of_l0_target(_mean_l0(f, rows), now)


def l0_quadratic(stack: Stack, f: Tensor, norms: Tensor, now: Now, rows: int) -> Sparsity:
    return of_l0_quadratic(_mean_l0(f, rows), now)


def of_l0(mean: Tensor, now: Now) -> Sparsity:
    """coefficient * ||f||_0 (arXiv 2407.14435, eq. 9), from this rank's share of its mean."""
    return Sparsity(now.sparsity * mean, None, now.sparsity)


def of_l0_quadratic(mean: Tensor, now: Now) -> Sparsity:
    """coefficient * (2 / L0*) * (L0 - L0*)^2 of the batch's mean L0, over all ranks (Gemma Scope 2's loss)."""
    off = now.group.sum(mean.clone()) - now.target_l0
    scale = 2 * now.sparsity / now.target_l0
    return Sparsity(scale * off.square() / now.group.size, None, 2 * scale * off)


def of_l0_target(mean: Tensor, now: Now) -> Sparsity:
    """coefficient * (m r + h(r)), r = L0 / L0* - 1 of the batch's mean L0 over all ranks, h Huber's r^2 / 2 to |r| = 1.

    m is a multiplier, which grows while L0 is too large and falls while it is too small (`schedule.multiplied`), so
    that L0 becomes what was asked for and not something near it.
    """
    relative = now.group.sum(mean.clone()) / now.target_l0 - 1
    bounded = relative.clamp(-1, 1)
    value = now.multiplier * relative + bounded * (relative - bounded / 2)
    slope = now.sparsity * (now.multiplier + bounded) / now.target_l0
    return Sparsity(now.sparsity * value / now.group.size, None, slope)


def tanh(stack: Stack, f: Tensor, norms: Tensor, now: Now, rows: int) -> Sparsity:
    """coefficient * sum tanh(c f ||d||) (Anthropic, Circuits Updates, January 2025)."""
    c = stack.recipe.tanh_slope
    each = now.sparsity[:, None, None] / rows
    bent = (c * f * norms[:, None]).tanh()
    slope = each * c * (1 - bent.square())
    return Sparsity((each * bent).sum((1, 2)), slope * norms[:, None], None, (slope * f).sum(1))


def _mean_l0(f: Tensor, rows: int) -> Tensor:
    return f.sign().sum((1, 2)) / rows


PENALTIES: Mapping[str, Callable[[Stack, Tensor, Tensor, Now, int], Sparsity]] = {
    "none": none,
    "l1": l1,
    "lp": lp,
    "l0": l0,
    "l0-target": l0_target,
    "l0-quadratic": l0_quadratic,
    "tanh": tanh,
}
OF_COUNT: Mapping[str, Callable[[Tensor, Now], Sparsity]] = {
    "l0": of_l0,
    "l0-target": of_l0_target,
    "l0-quadratic": of_l0_quadratic,
}
"""The penalties of the number of active latents alone, from this rank's share of its mean (member,)."""


def decoder_norms(decoder: Tensor, layers: int) -> Tensor:
    """(member, latent): the norm of each decoder row; of a crosscoder the sum over layers of their norms."""
    return decoder.unflatten(-1, (layers, -1)).norm(dim=-1).sum(-1)


def add_norms_gradient(gradient: Tensor, decoder: Tensor, slope: Tensor, layers: int) -> None:
    """Add the gradient of sum slope * decoder_norms, in place. 0 for a row of zeros."""
    split = decoder.unflatten(-1, (layers, -1))
    unit = split / split.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(decoder.dtype).tiny)
    gradient.add_((unit * slope[..., None, None]).flatten(-2))
