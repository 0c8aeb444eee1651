"""The strongest places of a sweep too large to keep: all neurons of a large model, the few with the largest scores.

Scores go by as the backward pass makes them; only the running best are held.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site, SiteLike
from micrographia.core.sweep import Place
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.spots import place


class Best:
    """Takes scores Site by Site and keeps the `k` places whose mean over prompts is largest in size."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._found: list[tuple[float, Place]] = []

    def __call__(self, site: Site, score: Tensor) -> None:
        means = score.mean(0)
        values, where = means.abs().flatten().topk(min(self._k, means.numel()))
        floor = abs(self._found[-1][0]) if len(self._found) == self._k else -1.0
        for i in where[values > floor].tolist():
            cell = [int(x) for x in torch.unravel_index(torch.tensor(i), means.shape)]
            self._found.append((float(means[tuple(cell)]), place(site, score, cell)))
        self._found = sorted(self._found, key=lambda each: -abs(each[0]))[: self._k]

    @property
    def found(self) -> list[tuple[Place, float]]:
        """The places with their mean scores, the largest first."""
        return [(where, value) for value, where in self._found]


def strongest(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    sites: SiteLike | Iterable[SiteLike],
    *,
    k: int,
    **choices: Any,
) -> list[tuple[Place, float]]:
    """The `k` places with the largest scores, mean over prompts, in the metric's unit; no other score is kept.

    `choices` are those of `attribute`; the method must be one that takes its scores once: "atp", "atp-qk" or "relp".
    Cost and memory are the method's, less the scores.
    """
    best = Best(k)
    attribute(model, pairs, metric, sites, give=best, **choices)
    return best.found
