"""Which places of an attribution to measure exactly: the largest estimates, and some of the rest by lot.

Places are numbered within a kind of Site, Site after Site, in the order in which their scores lie. Those that cannot
have an effect, in a model that looks back alone, are left out: nothing is learnt from them, and they would flatter
the estimates.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core.edits import UNIT_AXES
from micrographia.core.errors import BadConfig
from micrographia.core.sites import Site
from micrographia.core.sweep import Patch, Place
from micrographia.methods.attribution.estimate import Attribution
from micrographia.methods.attribution.readers import FEATURES, PLACES


class Spots(NamedTuple):
    """Places of one kind to be measured: the first `n_top` by size of estimate, the others by lot of `n_rest`."""

    kind: str
    patches: list[Patch]
    estimate: Float[Tensor, "place prompt"]
    n_top: int
    n_rest: int
    able: Mapping[Site, int]
    """How many places of each Site can have an effect."""
    n_idle: int
    """How many of the kind cannot."""

    @property
    def weight(self) -> Float[Tensor, "place"]:
        """How many places of the kind each stands for."""
        weight = torch.ones(len(self.patches), dtype=torch.float64)
        weight[self.n_top :] = self.n_rest / max(1, len(self.patches) - self.n_top)
        return weight


def spots(
    attribution: Attribution, *, budget: int, top: int, generator: Generator, begin: int | None = None
) -> list[Spots]:
    """Shares `budget` places, `top` of them the largest, evenly among the kinds of Site; what one kind cannot use is
    left. The largest are those whose mean over prompts is largest in size (of scores that are sizes: the mean of their
    sizes). `begin`: where prompts first differ, of a
    model that looks back alone; None rules no place out. Raises BadConfig.
    """
    kinds: dict[str, list[Site]] = {}
    for site in attribution.scores:
        kinds.setdefault(kind_of(site), []).append(site)
    if not 0 <= top <= budget or budget < len(kinds):
        raise BadConfig(
            f"A check of {budget} places, {top} of them the largest, was asked for over {len(kinds)} kinds of Site. "
            f"Check {len(kinds)} at least, and at most that many of the largest."
        )
    counts = [(budget // len(kinds), top // len(kinds))] * len(kinds)
    return [
        _of_kind(kind, {site: attribution.scores[site] for site in sites}, attribution.gives, *count, generator, begin)
        for (kind, sites), count in zip(kinds.items(), counts)
    ]


def kind_of(site: Site) -> str:
    return f"{site.kind}[{site.dictionary}].{site.part}" if site.part else site.kind


def _of_kind(
    kind: str, scores: dict[Site, Tensor], gives: str, budget: int, top: int, generator: Generator, begin: int | None
) -> Spots:
    ranked = [score.abs() if gives == "size" else score for score in scores.values()]
    means = torch.cat([score.mean(0).flatten() for score in ranked]).cpu()
    masks = {site: able(site, score, begin).flatten() for site, score in scores.items()}
    numbers = torch.cat(list(masks.values())).nonzero()[:, 0]
    n_top = min(top, len(numbers))
    largest = means[numbers].abs().topk(n_top).indices
    left = torch.ones(len(numbers), dtype=torch.bool)
    left[largest] = False
    rest = numbers[left]
    drawn = rest[torch.randperm(len(rest), generator=generator)[: budget - n_top]]
    chosen = [*numbers[largest].tolist(), *drawn.tolist()]
    found = [locate(scores, number) for number in chosen]
    estimate = torch.stack([scores[site][(slice(None), *cell)] for site, cell in found]).cpu().double()
    patches: list[Patch] = [(place(site, scores[site], cell),) for site, cell in found]
    counts = {site: int(mask.sum()) for site, mask in masks.items()}
    return Spots(kind, patches, estimate, n_top, len(rest), counts, len(means) - len(numbers))


def able(site: Site, score: Float[Tensor, "prompt ..."], begin: int | None) -> Bool[Tensor, "..."]:
    """Which cells of a score can have an effect: none before `begin`, none where a query would look ahead."""
    shape = score.shape[1:]
    found = torch.ones(shape, dtype=torch.bool)
    if begin is None or not shape:
        return found
    along = dict(zip(cell_axes(site, score), torch.meshgrid(*map(torch.arange, shape), indexing="ij")))
    for axis in along.keys() & {"pos", "query"}:
        found &= along[axis] >= begin
    return found & (along["key"] <= along["query"]) if {"query", "key"} <= along.keys() else found


def locate(scores: dict[Site, Tensor], number: int) -> tuple[Site, tuple[int, ...]]:
    """The Site and the cell of its score (without the prompt) that has this number."""
    for site, score in scores.items():
        size = score[0].numel()
        if number < size:
            cell = torch.unravel_index(torch.tensor(number), score.shape[1:])
            return site, tuple(int(i) for i in cell)
        number -= size
    raise AssertionError("a number beyond the last place")


def place(site: Site, score: Tensor, cell: Sequence[int]) -> Place:
    """What to patch, to make the change that this cell of the score estimates."""
    return Place(site, {"unit" if axis in UNIT_AXES else axis: i for axis, i in zip(cell_axes(site, score), cell)})


def cell_axes(site: Site, score: Tensor) -> list[str]:
    """What a score's axes are called, the prompt's left out."""
    axes = [axis for axis in site.axes[1:] if axis not in FEATURES]
    if len(axes) != score.ndim - 1:  # positions were summed: the place is all of them
        axes = [axis for axis in axes if axis not in PLACES]
    return axes
