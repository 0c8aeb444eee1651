"""Every method held against every planted circuit: what it finds, what it misses, and whether theory said so."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.prompts import metric_of
from micrographia.core.sites import Site
from micrographia.core.sweep import grids
from micrographia.labs.planted.planted import Planted
from micrographia.labs.planted.theory import MODES, PLANTED, WAYS, Mode, Way, area, missed, missed_in_theory
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.patching import patch

REFUSED: Mapping[Way, tuple[str, ...]] = {"relp": ("q", "k")}
"""Kinds that a method gives no score: it sees nothing there, which counts as 0."""


class Finding(NamedTuple):
    """`area` under the ROC curve over all heads and neurons by position; the roles `missed`, and those theory says."""

    circuit: str
    way: Way
    mode: Mode
    area: float
    missed: frozenset[str]
    expected: frozenset[str]


def findings() -> Iterator[Finding]:
    """All of them: seven circuits, six methods, both modes. A few seconds on one core."""
    for name, build in PLANTED.items():
        here = build()
        for way in WAYS:
            for mode in MODES:
                scores = scores_by(here, way, mode)
                expected = missed_in_theory(name, way, mode)
                yield Finding(name, way, mode, area(here, scores), missed(here, scores), expected)


def scores_by(here: Planted, way: Way, mode: Mode) -> Mapping[Site, Tensor]:
    """(prompt, pos, head or neuron) of every Site in question: the effect of each place on logit(right) - logit(wrong),
    patched exactly one at a time, or as estimated."""
    metric = metric_of("logit-diff", here.pairs, here.model)
    if way != "exact":
        asked = [site for site in here.sites if site.kind not in REFUSED.get(way, ())]
        found = attribute(here.model, here.pairs, metric, asked, mode=mode, method=way).scores
        silent = set(here.sites) - set(asked)
        return found | {site: torch.zeros(len(here.pairs), *here.lengths(site), dtype=torch.float64) for site in silent}
    tables = [
        grid
        for site in here.sites
        for grid in grids(
            here.model, site, ("pos", "unit" if site.kind == "neurons" else "head"), here.lengths(site)[0]
        )
    ]
    found = patch(here.model, here.pairs, [metric], [patch for grid in tables for patch in grid.patches], mode=mode)
    effects = found.effects()[:, :, 0].split([len(grid.patches) for grid in tables])
    return {site: grid.table(effect).movedim(-1, 0) for site, grid, effect in zip(here.sites, tables, effects)}
