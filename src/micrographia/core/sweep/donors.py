"""Replacement values for patching: zeros, or the mean, a resample or Gaussian noise of a reference set.

The choice changes the meaning of a patch (Zhang and Nanda 2023; Miller et al. 2024): zeros and noise are
off-distribution, the mean keeps what all prompts share, a resample stays on-distribution.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from micrographia.core.edits import mean_of_rows, spread, wide
from micrographia.core.errors import UserError
from micrographia.core.sites import Site
from micrographia.core.sweep.places import Donor

Replacement = Literal["zero", "mean", "resample", "noise"]


class Reference(NamedTuple):
    """Reference activations by Site: (row, ...). `mask` (row, pos) is False at padding."""

    values: Donor
    mask: Bool[Tensor, "row pos"] | None = None


def replacement(
    replace: Replacement,
    reference: Reference,
    n_prompts: int,
    n_pos: int,
    generator: Generator | None = None,
    mask: Bool[Tensor, "prompt pos"] | None = None,
) -> dict[Site, Tensor]:
    """A donor for `n_prompts` prompts of `n_pos` positions; `mask` is theirs, where they are padded.

    "zero": zeros. "mean": over the rows at the same position; over all positions where the length differs; padding and
    pairs that may not attend take no part (`edits.mean_of_rows`), and no pattern attends to padding. "resample":
    for each prompt one row, drawn with `generator`, the same at every Site. "noise": Gaussian draws with the mean and
    standard deviation of each unit over rows and positions.
    Errors: UserError for draws without a generator, and for lengths or Sites that do not fit the choice.
    """
    if replace in ("resample", "noise") and generator is None:
        raise UserError(f"{replace} draws at random and was given no generator. Pass one, such as torch.Generator().")
    if replace == "resample" and reference.mask is not None and not bool(reference.mask.all()):
        raise UserError(
            "Resampling was asked for from padded prompts, whose padding would be written onto tokens. Give a "
            "reference of one length, or take the mean."
        )
    scales = [str(site) for site in reference.values if site.kind.endswith("_scale")]
    if replace == "zero" and scales:
        raise UserError(
            f"Zeros were to be written to {', '.join(scales[:4])}, which divides what its norm reads, so that nothing "
            "has a number. Leave it out, or zero the norm's output."
        )
    rows = len(next(iter(reference.values.values())))
    drawn = torch.randint(rows, (n_prompts,), generator=generator) if replace == "resample" else None
    make = MAKERS[replace]
    return {
        site: make(_Request(site, value, reference.mask, n_prompts, n_pos, generator, drawn, mask))
        for site, value in reference.values.items()
    }


class _Request(NamedTuple):
    site: Site
    value: Tensor
    mask: Tensor | None
    n_prompts: int
    n_pos: int
    generator: Generator | None
    drawn: Tensor | None
    prompts: Tensor | None
    """The mask of the prompts that are written into."""

    @property
    def fits(self) -> bool:
        """Whether the reference is as long as the prompts."""
        axis = self.site.axes.index("pos") if "pos" in self.site.axes else self.site.axes.index("query")
        return self.value.shape[axis] == self.n_pos

    def refuse(self, why: str) -> UserError:
        return UserError(f"{self.site} cannot be replaced in this way: {why}. Choose another replacement or reference.")

    def weight(self) -> Tensor:
        """1 for tokens and 0 for padding, as (row, pos, 1, ...)."""
        mask = self.value.new_ones(self.value.shape[:2], dtype=torch.bool) if self.mask is None else self.mask
        return spread(self.site, mask).to(wide(self.value))

    def over_everything(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each unit over rows and positions, each (1, 1, ...), in float32 at least."""
        if "pos" not in self.site.axes:
            raise self.refuse("it has no positions to take a mean over; its reference must be as long as the prompts")
        weight, values = self.weight(), wide(self.value)
        mean = (values * weight).sum((0, 1), keepdim=True) / weight.sum((0, 1), keepdim=True)
        variance = ((values - mean).pow(2) * weight).sum((0, 1), keepdim=True) / weight.sum((0, 1), keepdim=True)
        return mean, variance.sqrt()


def _zero(request: _Request) -> Tensor:
    if request.fits:
        return torch.zeros_like(request.value[:1])
    nothing = torch.zeros_like(request.over_everything()[0], dtype=request.value.dtype)
    return nothing.expand(1, request.n_pos, *request.value.shape[2:])


def _mean(request: _Request) -> Tensor:
    if not request.fits:
        found = request.over_everything()[0].expand(1, request.n_pos, *request.value.shape[2:])
    else:
        found = mean_of_rows(request.site, request.value, request.mask)
    if request.site.kind == "pattern" and request.prompts is not None:
        found = found * spread(request.site, request.prompts.to(found.device))
    return found.to(request.value)


def _resample(request: _Request) -> Tensor:
    assert request.drawn is not None
    if not request.fits:
        raise request.refuse(f"the prompts have {request.n_pos} positions and the reference another number")
    return request.value[request.drawn.to(request.value.device)]


def _noise(request: _Request) -> Tensor:
    mean, std = request.over_everything()
    shape = (request.n_prompts, request.n_pos, *request.value.shape[2:])
    drawn = torch.randn(shape, generator=request.generator, dtype=mean.dtype)
    return (mean + std * drawn.to(mean.device)).to(request.value)


MAKERS: Mapping[Replacement, Callable[[_Request], Tensor]] = {
    "zero": _zero,
    "mean": _mean,
    "resample": _resample,
    "noise": _noise,
}
