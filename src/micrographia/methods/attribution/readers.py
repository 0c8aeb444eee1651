"""Readers: how the score of a Site is taken while two runs and a backward pass go by.

A `ScoreHook` is a pair of edit lists that only look. In the run that gives values (the donor) it holds the Site's
activation; in the run that is explained (the base) it turns what it holds into the difference donor - base and asks for
the product with the gradient, reduced to a score, as soon as the backward pass has the gradient. One tensor
per Site is held (two of one Site while one is subtracted), never two caches. The passes themselves are in `passes`.
Source: Nanda, "Attribution patching: activation patching at industrial scale" (2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.edits import UNIT_AXES, Edit, observe
from micrographia.core.errors import UserError
from micrographia.core.sites import Site
from micrographia.core.sweep import Place

Positions = Literal["each", "sum"]
Give = Callable[[Site, Tensor], None]
"""Takes the score of a Site, (prompt, ...), when the backward pass has it."""

FEATURES = frozenset({"d_model", "d_head", "one"})  # a place is whole along these axes: its score sums over them
PLACES = frozenset({"pos", "query", "key"})


class ScoreHook(NamedTuple):
    """What one or more Sites need of the two runs. Its edits look and change nothing.

    `finish` comes after the last backward pass: it gives zeros where no gradient ever came, because the metric does not
    depend on the Site.
    """

    sites: tuple[Site, ...]
    in_donor: list[Edit]
    in_base: list[Edit]
    finish: Callable[[], None]


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How all readers of one attribution read: what becomes of a score, of positions, of padding.

    `again`: the backward pass comes more than once, so that differences are kept after the first.
    """

    give: Give
    positions: Positions = "each"
    mask: Bool[Tensor, "prompt pos"] | None = None
    again: bool = False

    def score(self, site: Site, product: Float[Tensor, "prompt ..."]) -> Float[Tensor, "prompt ..."]:
        """Sums a product of this Site's axes over what makes one place. Sums are float32 at least."""
        over = [i for i, axis in enumerate(site.axes) if axis in FEATURES or self._sums(axis)]
        wide = torch.promote_types(product.dtype, torch.float32)
        return product.sum(over, dtype=wide) if over else product

    def placed(self, effect: Float[Tensor, "prompt pos head"]) -> Float[Tensor, "prompt ..."]:
        """A score that is there already, with padding and positions treated as in every other."""
        here = effect if self.mask is None else effect.masked_fill(~self.mask[:, :, None].to(effect.device), 0)
        return here.sum(1) if self.positions == "sum" else here

    def _sums(self, axis: str) -> bool:
        return self.positions == "sum" and axis in PLACES

    def blank(self, site: Site, difference: Tensor) -> Tensor:
        """Zeros, in place, where there is only padding."""
        if self.mask is None:
            return difference
        for i, axis in enumerate(site.axes):
            if axis in PLACES:
                shape = [len(self.mask), *(self.mask.shape[1] if j == i else 1 for j in range(1, len(site.axes)))]
                difference.masked_fill_(~self.mask.reshape(shape).to(difference.device), 0)
        return difference


def product_reader(site: Site, reading: ScoreOptions) -> ScoreHook:
    """Scores (donor - base) * gradient of one Site.

    `result` is read at z, of which it is a linear function head by head: (z W_O) . g = z . (W_O g), so that no tensor
    of d_model per head is made.
    """
    tapped = tapped_at(site)
    held: list[Tensor] = []  # the donor's value, then the difference, then nothing

    def meet(value: Tensor) -> None:
        held.append(reading.blank(tapped, difference(tapped, held.pop(), value.detach())))
        hook(site, value, score)

    def score(gradient: Tensor) -> None:
        product = held[0] * gradient if reading.again else held.pop().mul_(gradient)
        reading.give(site, reading.score(tapped, product))

    def finish() -> None:
        if held:
            reading.give(site, reading.score(tapped, held.pop().zero_()))

    look = [observe(tapped, lambda value: held.append(own(value)))]
    return ScoreHook((site,), look, [observe(tapped, meet)], finish)


def tapped_at(site: Site) -> Site:
    """Where a Site is read: a head's `result` at its z."""
    return Site("z", site.layer) if site.kind == "result" and not site.part else site


def difference(site: Site, donor: Tensor, base: Tensor) -> Tensor:
    """donor - base; 0 for a pair that may not attend, whose score is minus infinity in both."""
    delta = donor - base
    return delta.masked_fill_(donor == base, 0) if site.kind == "scores" else delta


def own(value: Tensor) -> Tensor:
    """The value for keeping: a view of something larger (a share of a fused projection) is copied out of it."""
    value = value.detach()
    return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value


def hook(site: Site, value: Tensor, see: Callable[[Tensor], None]) -> None:
    """Have `see` shown the gradient of the metric at this activation. Raises UserError where there can be none."""
    if not value.requires_grad:
        raise UserError(
            f"A score of {site} was asked for, but with these rules no gradient reaches it (a pattern or a "
            "norm's scale that is held). Leave it out, or use another method."
        )
    value.register_hook(see)


def place(site: Site, score: Tensor, cell: Sequence[int]) -> Place:
    """What to patch, to make the change that this cell of the score estimates."""
    return Place(site, {"unit" if axis in UNIT_AXES else axis: i for axis, i in zip(cell_axes(site, score), cell)})


def cell_axes(site: Site, score: Tensor) -> list[str]:
    """What a score's axes are called, the prompt's left out."""
    axes = [axis for axis in site.axes[1:] if axis not in FEATURES]
    if len(axes) != score.ndim - 1:  # positions were summed: the place is all of them
        axes = [axis for axis in axes if axis not in PLACES]
    return axes
