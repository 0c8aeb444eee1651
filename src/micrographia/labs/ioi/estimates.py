"""Attribution beside exact patching, place by place, and how far the two agree by kind of Site."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Generator, Tensor

from micrographia.core.effects import axes_of_scores
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, first_difference
from micrographia.core.sites import Site
from micrographia.core.sweep import Place, places
from micrographia.core.titles import Mode
from micrographia.core.tokens import ids_of
from micrographia.methods.attribution.agreement import agreement
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.calibrate import calibrate, sentence
from micrographia.methods.patching import patch

KINDS = ("z", "q", "k", "v", "resid_pre", "attn_out", "mlp_out", "neurons", "pattern")
METHODS = ("atp", "atp-qk", "atp-star", "ig", "relp")
UNSCORED = {"relp": ("q", "k", "pattern")}
"""Kinds that a method gives no score, since no gradient goes through attention patterns there."""
NORM = "change"
"""The baseline: how far the activation itself moves, without any gradient."""
BY_SIZE = "atp-size"
"""The sizes of attribution patching, which can be compared with the baseline: both rank sizes."""
SIZES = frozenset({"atp-star", BY_SIZE, NORM})
"""What ranks by size alone, and is compared with the size of the exact effect."""
FEWEST = 8
"""Places below which no correlation is given: two points always correlate fully."""
CALIBRATED = ("z", "neurons", "resid_pre", "mlp_out", "q", "k")
N_BOOTSTRAP, N_FLAGS = 200, 3


class Comparison(NamedTuple):
    """Places of one kind of Site: their exact effects, estimates by method, and the size of what is written."""

    places: list[Place]
    exact: Float[Tensor, "place prompt"]
    estimates: dict[str, Float[Tensor, "place prompt"]]
    change: Float[Tensor, "place prompt"]

    @property
    def effects(self) -> dict[str, Float[Tensor, "place prompt"]]:
        """The exact effects, and the estimates of them."""
        return {"exact": self.exact, **self.estimates}

    def points(self) -> dict[str, NDArray[Any]]:
        """The same in the mean over prompts."""
        return {name: values.mean(1).cpu().numpy() for name, values in self.effects.items()}


class Correlation(NamedTuple):
    """Over the places of one kind of Site; NaN where nothing varies or places are few."""

    pearson: float
    spearman: float
    places: int


def compare(
    model: Model, pairs: Pairs, m: Metric, kinds: Iterable[str], *, mode: Mode, most: int | None, draw: Generator
) -> dict[str, Comparison]:
    """Every estimate beside the exact effect, at all places of each kind, or at `most` of them drawn at random."""
    chosen = {kind: sampled(model, pairs, kind, most, draw) for kind in kinds}
    every = [place for found in chosen.values() for place in found]
    sites = sorted({place.site for place in every})
    scores = {}
    for method in METHODS:
        seen = [site for site in sites if site.kind not in UNSCORED.get(method, ())]
        scores[method] = attribute(model, pairs, m, seen, mode=mode, method=method).scores
    base, donor = (model.run(side, keep=sites, logits="last").cache for side in (pairs.base(mode), pairs.donor(mode)))
    exact = patch(model, pairs, [m], [(place,) for place in every], mode=mode).effects()[..., 0]
    found = {}
    for (kind, own), effect in zip(chosen.items(), exact.split([len(own) for own in chosen.values()])):
        moved = [_cell(donor[p.site] - base[p.site], p).reshape(len(pairs), -1).norm(dim=1) for p in own]
        scored = {name: score for name, score in scores.items() if kind not in UNSCORED.get(name, ())}
        estimates = {name: torch.stack([_cell(score[p.site], p) for p in own]) for name, score in scored.items()}
        found[kind] = Comparison(own, effect, estimates, torch.stack(moved))
    return found


def sampled(model: Model, pairs: Pairs, kind: str, most: int | None, draw: Generator) -> list[Place]:
    """The places of a kind that can have an effect, or `most` of them drawn at random, in the order of a run.

    None before the prompts differ, nor where a query cannot attend.
    """
    begin, axes = first_difference(pairs), axes_of_scores(Site(kind, 0))  # type: ignore[arg-type]  # a kind by its name

    def can_matter(at: Mapping[str, Any]) -> bool:
        return at.get("pos", at.get("query")) >= begin and at.get("key", 0) <= at.get("query", 0)

    every = [patch[0] for patch in places(model, f"L*.{kind}", ("layer", *axes), ids_of(pairs.clean).shape[1])]
    alive = [place for place in every if can_matter(place.where)]
    return [alive[i] for i in torch.randperm(len(alive), generator=draw)[:most].sort().values.tolist()]


def _cell(values: Tensor, place: Place) -> Tensor:
    """The values (prompt, *axes) at a place, for every prompt: places of a kind name axes in the Site's order."""
    return values[(slice(None), *place.where.values())]


def correlations(found: Comparison, draw: Generator) -> dict[str, Correlation]:
    """How each method's estimates, and the plain size of the change, agree with the exact effects."""
    exact = found.exact.cpu().double().numpy()
    by_method = {}
    for name, values in {**found.estimates, BY_SIZE: found.estimates["atp"], NORM: found.change}.items():
        pair = [values.cpu().double().numpy(), exact]
        estimate, truth = map(np.abs, pair) if name in SIZES else pair
        each = agreement(estimate, truth, np.ones(len(exact)), generator=draw, draws=0)
        enough = len(exact) >= FEWEST
        by_method[name] = Correlation(*(one.value if enough else math.nan for one in each), places=len(exact))
    return by_method


def calibration(model: Model, pairs: Pairs, m: Metric, budget: int, draw: Generator) -> dict[str, str]:
    """What a user of attribution patching would read: a sentence for each kind of Site, then the first flags."""
    estimated = attribute(model, pairs, m, [f"L*.{kind}" for kind in CALIBRATED])
    check = calibrate(model, pairs, m, estimated, budget=budget, top=budget // 2, generator=draw, draws=N_BOOTSTRAP)
    sentences = {kind: sentence(each, check.unit) for kind, each in check.kinds.items()}
    return sentences | {f"flag {i + 1}": str(flag) for i, flag in enumerate(check.flags[:N_FLAGS])}
