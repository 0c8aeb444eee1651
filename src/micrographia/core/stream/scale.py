"""The scale of activations, from a sample: norms, the mean, and the geometric median.

By these a dictionary's input is brought to one scale (E|x|^2 = 1: Gemma Scope, arXiv 2408.05147, section 3.2; elsewhere
a mean norm of sqrt(d)) and its decoder bias begun (at the geometric median: Bricken et al., "Towards
Monosemanticity", 2023).
Axes: token d.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import UserError

STEPS = 100
CLOSE = 1e-7
"""A step of this share of the mean distance ends the search."""
NEAR = 1e-6
"""Points within this share of the mean distance count as met: by their weight alone they would hold the search fast."""


class ActivationScale(NamedTuple):
    """Of a sample of activations at one Site."""

    n_tokens: int
    mean_norm: float
    mean_square_norm: float
    mean: Float[Tensor, "d"]
    median: Float[Tensor, "d"]
    """The geometric median: the point with the least mean distance to all."""
    steps: int
    """Of the search for it; `STEPS` where it had not settled."""

    @property
    def to_unit(self) -> float:
        """The factor that brings E|x|^2 to 1."""
        return self.mean_square_norm**-0.5

    @property
    def to_root_d(self) -> float:
        """The factor that brings the mean norm to sqrt(d)."""
        return len(self.mean) ** 0.5 / self.mean_norm


def measure_scale(x: Float[Tensor, "token d"]) -> ActivationScale:
    """The scale of a sample; 32,768 tokens are plenty. In float64 inside; up to 100 passes over it.

    Raises UserError for no tokens, NaN or infinite activations, and a sample that is zero throughout.
    """
    if not len(x) or not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x).all(-1)).sum()) if len(x) else 0
        raise UserError(f"Asked for the scale of {len(x)} activations, {bad} of them NaN or infinite. Leave those out.")
    wide = x.detach().double()
    norms = wide.norm(dim=-1)
    if not bool(norms.any()):
        raise UserError(f"Asked for the scale of {len(x)} activations, all of which are zero. Choose another site.")
    median, steps = geometric_median(wide)
    return ActivationScale(
        len(x), float(norms.mean()), float(norms.square().mean()), wide.mean(0).to(x), median.to(x), steps
    )


def geometric_median(x: Float[Tensor, "token d"], *, most: int = STEPS) -> tuple[Float[Tensor, "d"], int]:
    """The geometric median, and the steps that the search took.

    Weiszfeld's iteration, also where it meets a point of the sample: Vardi & Zhang, "The multivariate L1-median and
    associated data depth", PNAS 97 (2000), eq. 2.6. It ends after `most` steps, or when a step moves it by less than
    1e-7 of the mean distance. Two passes over x a step.
    """
    y = x.mean(0)
    for step in range(1, most + 1):
        distance = (x - y).norm(dim=-1)
        apart = distance > NEAR * distance.mean()
        if not bool(apart.any()):
            return y, step
        weight = torch.where(apart, 1 / distance.clamp(min=1e-300), 0.0)
        target = (weight @ x) / weight.sum()
        pull = (weight[:, None] * (x - y)).sum(0).norm()
        here = (~apart).sum()
        share = (here / pull).clamp(max=1.0) if bool(here) else here.to(x)
        new = (1 - share) * target + share * y
        moved, y = (new - y).norm(), new
        if float(moved) <= CLOSE * float(distance.mean()):
            return y, step
    return y, most


def sample_of(batches: Iterable[Float[Tensor, "token d"]], n_tokens: int = 2**15) -> Float[Tensor, "token d"]:
    """The first `n_tokens` of these batches, or all that there are."""
    found, left = list[Tensor](), n_tokens
    for each in batches:
        found.append(each[:left])
        left -= len(found[-1])
        if left <= 0:
            break
    if not found:
        raise UserError("Asked for a sample of no activations. Give some batches.")
    return torch.cat(found)
