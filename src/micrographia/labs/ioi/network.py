"""One trained network taken apart: every measure of every behaviour that it has learned, as numbers and plain arrays.

It runs in a process of its own, so what it gives can be pickled and holds no model.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, metric_of
from micrographia.core.runtime import generator, settings
from micrographia.core.small.trained import load_trained
from micrographia.labs.ioi import measure
from micrographia.labs.ioi.behaviour import Performance, Years, is_learned, perform, years
from micrographia.labs.ioi.cases import Case, case_of
from micrographia.labs.ioi.circuit import Circuits, circuits
from micrographia.labs.ioi.config import Config
from micrographia.labs.ioi.roles import Role, roles
from micrographia.labs.ioi.spots import KINDS
from micrographia.labs.ioi.task import prompt_pairs
from micrographia.labs.ioi.templates import Behaviour
from micrographia.methods.attribution.agreement import agreement
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.calibrate import calibrate, sentence

Array = NDArray[Any]
CHANGE = "change"
"""The baseline: how far the activation itself moves, without any gradient."""
BY_SIZE = "atp-size"
"""The sizes of attribution patching, which can be held against the baseline: both rank sizes."""
SIZES = frozenset({"atp-star", BY_SIZE, CHANGE})
"""What ranks by size alone, and is held against the size of the exact effect."""


FEWEST = 8
"""Places below which no correlation is given: two points always correlate fully."""


class Agreement(NamedTuple):
    """Correlations over the places of one kind of Site; NaN where nothing varies or places are few."""

    pearson: float
    spearman: float
    places: int


class Studied(NamedTuple):
    """One behaviour of one network."""

    positions: tuple[str, ...]
    maps: dict[str, dict[str, Array]]
    """Kind of Site -> mode -> share of the gap, (row, position)."""
    mirror: float
    """How far denoising and noising differ over heads and positions: sum of |d - n| over sum of the larger |.|."""
    mirror_null: float
    """The same of one mode on two halves of the prompts."""
    trust: dict[str, dict[str, Agreement]]
    """Kind of Site -> method -> agreement with exact effects."""
    points: dict[str, dict[str, Array]]
    """Kind of Site -> "exact" or method -> mean effect of each place."""
    calibration: dict[str, str]
    """Kind of Site -> a sentence on how far to trust attribution patching there, and the flags."""
    direct: list[tuple[str, float]]
    """The parts that write most straight to the logit difference, in logits, the largest first."""
    circuits: Circuits | None


class Network(NamedTuple):
    """`studied` holds the behaviours that were learned."""

    seed: int
    behaviours: dict[Behaviour, Performance]
    studied: dict[Behaviour, Studied]
    roles: dict[str, Role]
    years: Years


def take_apart(config: Config, seed: int, run: str) -> Network:
    """Everything of one network; about half a minute at `quick()` on one core, most of it exact patching."""
    with settings(1, config.device):
        model = load_trained(Path(run), device=config.device)
        draw = generator(seed)
        behaviours = perform(model, n=config.prompts, generator=draw)
        learned = [name for name, x in behaviours.items() if is_learned(x.accuracy, x.null_accuracy, config.least)]
        device = model.weights.W_E.device
        cases = {name: case_of(name, config.pairs, draw, device) for name in learned}
        studied = {name: study(model, case, config, draw) for name, case in cases.items()}
        kinds = roles(model, cases, config.prompts, draw)
        return Network(seed, behaviours, studied, kinds, years(model, prompt_pairs("greater", config.prompts, draw)))


def study(model: Model, case: Case, config: Config, draw: Generator, *, cut: bool = True) -> Studied:
    """One behaviour, in the order of `measure`; `cut`: look for circuits too."""
    m = metric_of("logit-diff", case.pairs, model)
    maps = measure.maps(model, case.pairs, m)
    halves = [_half(model, case.pairs, part) for part in (slice(0, None, 2), slice(1, None, 2))]
    kinds = measure.estimates(model, case.pairs, m, KINDS, mode="denoise", most=config.places, generator=draw)
    return Studied(
        positions=case.positions,
        maps={kind: {mode: x.cpu().numpy() for mode, x in shares.items()} for kind, shares in maps.items()},
        mirror=difference(maps["z"]["denoise"], maps["z"]["noise"]),
        mirror_null=difference(*halves),
        trust={kind: trust(found, draw) for kind, found in kinds.items()},
        points={kind: points(found) for kind, found in kinds.items()},
        calibration=calibration(model, case.pairs, m, config.places, draw),
        direct=measure.direct(model, case.pairs),
        circuits=circuits(model, case, draw) if cut else None,
    )


def _half(model: Model, pairs: Pairs, part: slice) -> torch.Tensor:
    rows = pairs.rows(part)
    return measure.maps(model, rows, metric_of("logit-diff", rows, model), ("z",))["z"]["denoise"]


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """0 where both are alike at every place, 1 where what one shows the other does not."""
    return float((one - other).abs().sum() / torch.maximum(one.abs(), other.abs()).sum())


def trust(kind: measure.Kind, draw: Generator) -> dict[str, Agreement]:
    """How each method's estimates agree with the exact effects, and how the plain size of the change does."""
    exact = kind.exact.cpu().double().numpy()
    found = {}
    for name, values in {**kind.estimates, BY_SIZE: kind.estimates["atp"], CHANGE: kind.change}.items():
        estimate = values.cpu().double().numpy()
        truth = exact
        if name in SIZES:
            estimate, truth = np.abs(estimate), np.abs(exact)
        pair = agreement(estimate, truth, np.ones(len(exact)), generator=draw, draws=0)
        values = (each.value if len(exact) >= FEWEST else math.nan for each in pair)
        found[name] = Agreement(*values, len(exact))
    return found


def points(kind: measure.Kind) -> dict[str, Array]:
    """The exact effect of each place and what each method estimates, in the mean over prompts."""
    both: Mapping[str, torch.Tensor] = {"exact": kind.exact, **kind.estimates}
    return {name: values.mean(1).cpu().numpy() for name, values in both.items()}


def calibration(model: Model, pairs: Pairs, m: Metric, budget: int, draw: Generator) -> dict[str, str]:
    """What a user of attribution patching would be told: a sentence for each kind of Site, then the first flags."""
    told = attribute(model, pairs, m, [f"L*.{kind}" for kind in CALIBRATED])
    check = calibrate(model, pairs, m, told, budget=budget, top=budget // 2, generator=draw, draws=BOOTSTRAP)
    said = {kind: sentence(each, check.unit) for kind, each in check.kinds.items()}
    for i, flag in enumerate(check.flags[:FLAGS]):
        said[f"flag {i + 1}"] = str(flag)
    return said


CALIBRATED = ("z", "neurons", "resid_pre", "mlp_out", "q", "k")
BOOTSTRAP, FLAGS = 200, 3
