"""Readers: hooks that compute a Site's score during the two runs and the backward pass.

A `ScoreHook` is a pair of lists of observing edits. In the donor run it stores the Site's activation; in the base run
it replaces it by the difference donor - base; in the backward pass it multiplies this by the gradient and reduces the
product to a score. One tensor per Site is stored (two of one Site during the subtraction), never two caches. The passes
themselves are in `passes`. Source: Nanda, "Attribution patching: activation patching at industrial scale" (2023).
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
OnScore = Callable[[Site, Tensor], None]
"""Called with the score of a Site, (prompt, ...), during the backward pass."""

FEATURES = frozenset({"d_model", "d_head", "one"})  # a place includes all of these axes: its score sums over them
PLACES = frozenset({"pos", "query", "key"})


class ScoreHook(NamedTuple):
    """The observing edits of one or more Sites in the two runs; they change nothing.

    `finish` is called after the last backward pass: it gives zeros where there was no gradient, because the metric does
    not depend on the Site.
    """

    sites: tuple[Site, ...]
    in_donor: list[Edit]
    in_base: list[Edit]
    finish: Callable[[], None]


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """Options shared by all readers of one attribution: the use of scores, positions, padding.

    `again`: there are several backward passes, so differences are kept after the first.
    """

    on_score: OnScore
    positions: Positions = "each"
    mask: Bool[Tensor, "prompt pos"] | None = None
    again: bool = False

    def score(self, site: Site, product: Float[Tensor, "prompt ..."]) -> Float[Tensor, "prompt ..."]:
        """Sum a product with this Site's axes over the axes within one place. Sums are float32 at least."""
        over = [i for i, axis in enumerate(site.axes) if axis in FEATURES or self._sums(axis)]
        wide = torch.promote_types(product.dtype, torch.float32)
        return product.sum(over, dtype=wide) if over else product

    def placed(self, effect: Float[Tensor, "prompt pos head"]) -> Float[Tensor, "prompt ..."]:
        """A score computed elsewhere, with padding and positions treated as in every other."""
        here = effect if self.mask is None else effect.masked_fill(~self.mask[:, :, None].to(effect.device), 0)
        return here.sum(1) if self.positions == "sum" else here

    def _sums(self, axis: str) -> bool:
        return self.positions == "sum" and axis in PLACES

    def blank(self, site: Site, difference: Tensor) -> Tensor:
        """Set padding to zero, in place."""
        if self.mask is None:
            return difference
        for i, axis in enumerate(site.axes):
            if axis in PLACES:
                shape = [len(self.mask), *(self.mask.shape[1] if j == i else 1 for j in range(1, len(site.axes)))]
                difference.masked_fill_(~self.mask.reshape(shape).to(difference.device), 0)
        return difference


def product_reader(site: Site, reading: ScoreOptions) -> ScoreHook:
    """A reader for the score (donor - base) * gradient of one Site.

    `result` is read at z, of which it is a linear function head by head: (z W_O) . g = z . (W_O g), so that no tensor
    of d_model per head is made.
    """
    tapped = tapped_at(site)
    held: list[Tensor] = []  # the donor's value, then the difference, then nothing

    def on_base(value: Tensor) -> None:
        held.append(reading.blank(tapped, difference(tapped, held.pop(), value.detach())))
        hook(site, value, score)

    def score(gradient: Tensor) -> None:
        product = held[0] * gradient if reading.again else held.pop().mul_(gradient)
        reading.on_score(site, reading.score(tapped, product))

    def finish() -> None:
        if held:
            reading.on_score(site, reading.score(tapped, held.pop().zero_()))

    look = [observe(tapped, lambda value: held.append(detached_copy(value)))]
    return ScoreHook((site,), look, [observe(tapped, on_base)], finish)


def tapped_at(site: Site) -> Site:
    """The Site that is read for a Site: z for a head's `result`."""
    return Site("z", site.layer) if site.kind == "result" and not site.part else site


def difference(site: Site, donor: Tensor, base: Tensor) -> Tensor:
    """donor - base; 0 for a masked pair, whose score is minus infinity in both."""
    delta = donor - base
    return delta.masked_fill_(donor == base, 0) if site.kind == "scores" else delta


def detached_copy(value: Tensor) -> Tensor:
    """The value for storage: a view of a larger tensor (part of a fused projection) is copied."""
    value = value.detach()
    return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value


def hook(site: Site, value: Tensor, callback: Callable[[Tensor], None]) -> None:
    """Call `callback` with the gradient of the metric at this activation. Raises UserError where there is none."""
    if not value.requires_grad:
        raise UserError(
            f"A score of {site} was asked for, but with these rules no gradient reaches it (a pattern or a "
            "norm's scale that is frozen). Leave it out, or use another method."
        )
    value.register_hook(callback)


def place(site: Site, score: Tensor, cell: Sequence[int]) -> Place:
    """The Place to patch for the change that this cell of the score estimates."""
    return Place(site, {"unit" if axis in UNIT_AXES else axis: i for axis, i in zip(cell_axes(site, score), cell)})


def cell_axes(site: Site, score: Tensor) -> list[str]:
    """The names of a score's axes, without the prompt's."""
    axes = [axis for axis in site.axes[1:] if axis not in FEATURES]
    if len(axes) != score.ndim - 1:  # positions were summed: the place covers all of them
        axes = [axis for axis in axes if axis not in PLACES]
    return axes
