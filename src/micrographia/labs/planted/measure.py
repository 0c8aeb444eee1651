"""Every method applied to every planted circuit: what it finds, what it misses, and whether theory agrees."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from micrographia.core.claims import Measured, Measures
from micrographia.core.prompts import metric_of
from micrographia.core.sites import Site
from micrographia.core.sweep import grids
from micrographia.core.titles import Mode
from micrographia.labs.planted.planted import Planted
from micrographia.labs.planted.theory import MODES, PLANTED, WAYS, Way, area, missed, missed_in_theory
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.patching import patch

CLAIMS = Path(__file__).with_name("claims.toml")
UNSCORED: Mapping[Way, tuple[str, ...]] = {"relp": ("q", "k")}
"""Kinds that a method gives no score, which counts as 0."""
NOTHING = "nothing"
Row = dict[str, Any]


def findings() -> Iterator[Row]:
    """Seven circuits, six methods, both modes: the roles missed, those that theory says, and the area under the ROC
    curve over all heads and neurons by position. A few seconds on one core."""
    for name, build in PLANTED.items():
        planted = build()
        for way in WAYS:
            for mode in MODES:
                scores = scores_by(planted, way, mode)
                yield {
                    "circuit": name,
                    "mode": mode,
                    "method": way,
                    "misses": ", ".join(sorted(missed(planted, scores))) or NOTHING,
                    "theory_says": ", ".join(sorted(missed_in_theory(name, way, mode))) or NOTHING,
                    "area": area(planted, scores),
                }


def measures(rows: list[Row]) -> Measures:
    """What the claims are judged by, beside their nulls."""
    right = sum(row["misses"] == row["theory_says"] for row in rows) / len(rows)
    nothing = sum(row["misses"] == NOTHING for row in rows) / len(rows)

    def misses(circuit: str, way: Way) -> set[str]:
        """In either mode."""
        some = [row["misses"] for row in rows if (row["circuit"], row["method"]) == (circuit, way)]
        return {role for each in some for role in each.split(", ")} - {NOTHING}

    attention = {"query", "keys"}
    statements = {
        "atp misses saturated attention": attention <= misses("saturated", "atp"),
        "the QK-fix finds its queries and keys": not attention & misses("saturated", "atp-qk"),
        "atp misses a cancelling head": "head" in misses("cancelling", "atp"),
        "GradDrop finds it": "head" not in misses("cancelling", "atp-star"),
    }
    true = [text for text, holds in statements.items() if holds]
    return {
        "planted-circuits-as-theory-says": Measured(right, nothing),
        "two-false-negatives": Measured(true, len(misses("chain", "atp"))),
    }


def scores_by(planted: Planted, way: Way, mode: Mode) -> Mapping[Site, Tensor]:
    """(prompt, pos, head or neuron) of every Site in question: the effect of each place on logit(right) - logit(wrong),
    patched exactly one at a time, or as estimated."""
    metric = metric_of("logit-diff", planted.pairs, planted.model)
    if way != "exact":
        scored = [site for site in planted.sites if site.kind not in UNSCORED.get(way, ())]
        found = attribute(planted.model, planted.pairs, metric, scored, mode=mode, method=way).scores
        zeros = {site: (len(planted.pairs), *planted.lengths(site)) for site in set(planted.sites) - set(scored)}
        return found | {site: torch.zeros(shape, dtype=torch.float64) for site, shape in zeros.items()}
    tables = [
        grid
        for site in planted.sites
        for grid in grids(
            planted.model, site, ("pos", "unit" if site.kind == "neurons" else "head"), planted.lengths(site)[0]
        )
    ]
    patches = [each for grid in tables for each in grid.patches]
    effects = patch(planted.model, planted.pairs, [metric], patches, mode=mode).effects()[:, :, 0]
    each = effects.split([len(grid.patches) for grid in tables])
    return {site: grid.table(effect).movedim(-1, 0) for site, grid, effect in zip(planted.sites, tables, each)}
