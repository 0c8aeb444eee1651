"""Attribution beside exact patching, place by place, and how far the two agree by kind of Site."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Generator, Tensor

from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, first_difference
from micrographia.core.sweep import Place, places
from micrographia.core.titles import Mode
from micrographia.core.tokens import ids_of
from micrographia.methods.attribution.agreement import agreement
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.calibrate import calibrate, sentence
from micrographia.methods.patching import patch

KINDS = {  # what is patched in one go, of each kind of Site
    **dict.fromkeys(("z", "q", "k", "v"), ("layer", "pos", "head")),
    **dict.fromkeys(("resid_pre", "attn_out", "mlp_out"), ("layer", "pos")),
    "neurons": ("layer", "pos", "unit"),
    "pattern": ("layer", "head", "query", "key"),
}
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

    def points(self) -> dict[str, NDArray[Any]]:
        """The exact effect of each place and its estimates by method, in the mean over prompts."""
        both: Mapping[str, Tensor] = {"exact": self.exact, **self.estimates}
        return {name: values.mean(1).cpu().numpy() for name, values in both.items()}


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
    sites = sorted({place.site for found in chosen.values() for place in found})
    scores = {}
    for method in METHODS:
        seen = [site for site in sites if site.kind not in UNSCORED.get(method, ())]
        scores[method] = attribute(model, pairs, m, seen, mode=mode, method=method).scores
    base, donor = (model.run(side, keep=sites, logits="last").cache for side in (pairs.base(mode), pairs.donor(mode)))
    patches = [(place,) for found in chosen.values() for place in found]
    exact = patch(model, pairs, [m], patches, mode=mode).effects()[..., 0]
    found = {}
    for (kind, own), effect in zip(chosen.items(), exact.split([len(own) for own in chosen.values()])):
        moved = [_cell(donor[p.site] - base[p.site], p).reshape(len(pairs), -1).norm(dim=1) for p in own]
        estimates = {
            name: torch.stack([_cell(score[p.site], p) for p in own])
            for name, score in scores.items()
            if kind not in UNSCORED.get(name, ())
        }
        found[kind] = Comparison(own, effect, estimates, torch.stack(moved))
    return found


def sampled(model: Model, pairs: Pairs, kind: str, most: int | None, draw: Generator) -> list[Place]:
    """The places of a kind that can have an effect, or `most` of them drawn at random, in the order of a run.

    None before the prompts differ, nor where a query cannot attend.
    """
    begin = first_difference(pairs)
    every = [patch[0] for patch in places(model, f"L*.{kind}", KINDS[kind], ids_of(pairs.clean).shape[1])]
    wheres: list[tuple[Place, Mapping[str, Any]]] = [(place, place.where) for place in every]
    can_matter = [
        place
        for place, at in wheres
        if at.get("pos", at.get("query")) >= begin and at.get("key", 0) <= at.get("query", 0)
    ]
    drawn = torch.randperm(len(can_matter), generator=draw)[:most].sort().values
    return [can_matter[int(i)] for i in drawn]


def _cell(values: Tensor, place: Place) -> Tensor:
    """The values (prompt, *axes) at a place, for every prompt: places of `KINDS` name axes in the Site's order."""
    return values[(slice(None), *place.where.values())]


def correlations(found: Comparison, draw: Generator) -> dict[str, Correlation]:
    """How each method's estimates, and the plain size of the change, agree with the exact effects."""
    exact = found.exact.cpu().double().numpy()
    by_method = {}
    for name, values in {**found.estimates, BY_SIZE: found.estimates["atp"], NORM: found.change}.items():
        estimate, truth = values.cpu().double().numpy(), exact
        if name in SIZES:
            estimate, truth = np.abs(estimate), np.abs(exact)
        pair = agreement(estimate, truth, np.ones(len(exact)), generator=draw, draws=0)
        by_method[name] = Correlation(
            *(each.value if len(exact) >= FEWEST else math.nan for each in pair), places=len(exact)
        )
    return by_method


def calibration(model: Model, pairs: Pairs, m: Metric, budget: int, draw: Generator) -> dict[str, str]:
    """What a user of attribution patching would read: a sentence for each kind of Site, then the first flags."""
    estimated = attribute(model, pairs, m, [f"L*.{kind}" for kind in CALIBRATED])
    check = calibrate(model, pairs, m, estimated, budget=budget, top=budget // 2, generator=draw, draws=N_BOOTSTRAP)
    sentences = {kind: sentence(each, check.unit) for kind, each in check.kinds.items()}
    return sentences | {f"flag {i + 1}": str(flag) for i, flag in enumerate(check.flags[:N_FLAGS])}
