"""One network analysed: every measure of every behaviour that it has learned, in the order in which one asks.

Which places carry the answer, exactly and by estimate; what is written straight to the logits; which set of parts is
enough alone; which kinds of head there are. Everything is plain numbers and arrays, since it comes out of a process of
its own. m is the metric, the logit difference; a share is of the gap between m of clean and of corrupt prompts.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Generator, Tensor

from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, metric_of
from micrographia.core.runtime import generator, settings
from micrographia.core.small.trained import load_trained
from micrographia.core.sweep import grids
from micrographia.core.titles import MODES, Mode
from micrographia.core.tokens import ids_of
from micrographia.labs.ioi.circuits import Circuits, circuits
from micrographia.labs.ioi.config import Config
from micrographia.labs.ioi.estimates import KINDS, Correlation, calibration, compare, correlations
from micrographia.labs.ioi.heads import HeadKind, head_kinds
from micrographia.labs.ioi.performance import Performance, Years, is_learned, perform, years
from micrographia.labs.ioi.task import Case, case_of, prompt_pairs
from micrographia.methods.lens import direct_logit_attribution
from micrographia.methods.patching import patch

MAPS = {"z": ("layer", "pos", "head"), "mlp_out": ("layer", "pos"), "resid_pre": ("layer", "pos")}
N_DIRECT = 12
Shares = Float[Tensor, "row pos"]


class BehaviourAnalysis(NamedTuple):
    """One behaviour of one model."""

    positions: tuple[str, ...]
    maps: dict[str, dict[str, NDArray[Any]]]
    """Kind of Site -> mode -> share of the gap, (row, position); rows by layer and head."""
    asymmetry: float
    """How far denoising and noising differ over heads and positions (`difference`)."""
    split_half: float
    """Its null: how far denoising differs between two halves of the prompts."""
    correlations: dict[str, dict[str, Correlation]]
    """Kind of Site -> method -> agreement with exact effects."""
    points: dict[str, dict[str, NDArray[Any]]]
    """Kind of Site -> "exact" or method -> mean effect of each place."""
    calibration: dict[str, str]
    """Kind of Site -> a sentence on how far to trust attribution patching there, and the flags."""
    direct: list[tuple[str, float]]
    """The parts that write most straight to m on the clean prompts, in logits, the largest first."""
    circuits: Circuits | None

    def r(self, kind: str, method: str) -> float:
        """Pearson's correlation of a method with exact patching at this kind of Site."""
        return self.correlations[kind][method].pearson


class NetworkAnalysis(NamedTuple):
    """`analysed` holds the behaviours that were learned."""

    seed: int
    behaviours: dict[str, Performance]
    analysed: dict[str, BehaviourAnalysis]
    kinds: dict[str, HeadKind]
    years: Years


def analyse(config: Config, out: str) -> NetworkAnalysis:
    """The network trained in this folder; half a minute at `quick()` on one core, most of it exact patching."""
    device = config.machine.device
    with settings(1, device):
        model = load_trained(Path(out), device=device)
        draw, place = generator(config.seed), model.weights.W_E.device
        behaviours = perform(model, n=config.prompts, generator=draw)
        learned = [name for name, x in behaviours.items() if is_learned(x.accuracy, x.null_accuracy, config.least)]
        cases = {name: case_of(name, config.pairs, draw, place) for name in learned}
        analysed = {name: analyse_behaviour(model, case, config, draw) for name, case in cases.items()}
        kinds = head_kinds(model, cases, config.prompts, draw)
        later = years(model, prompt_pairs("greater", config.prompts, draw))
        return NetworkAnalysis(config.seed, behaviours, analysed, kinds, later)


def analyse_behaviour(
    model: Model, case: Case, config: Config, draw: Generator, *, cut: bool = True
) -> BehaviourAnalysis:
    """One behaviour of any model; `cut`: look for circuits too."""
    pairs, m = case.pairs, metric_of("logit-diff", case.pairs, model)
    maps = {kind: {mode: shares(model, pairs, m, kind, mode) for mode in MODES} for kind in MAPS}
    halves = [pairs.rows(slice(begin, None, 2)) for begin in (0, 1)]
    by_half = [shares(model, half, metric_of("logit-diff", half, model), "z", "denoise") for half in halves]
    compared = compare(model, pairs, m, KINDS, mode="denoise", most=config.places, draw=draw)
    return BehaviourAnalysis(
        positions=case.positions,
        maps={kind: {mode: x.cpu().numpy() for mode, x in each.items()} for kind, each in maps.items()},
        asymmetry=difference(maps["z"]["denoise"], maps["z"]["noise"]),
        split_half=difference(*by_half),
        correlations={kind: correlations(found, draw) for kind, found in compared.items()},
        points={kind: found.points() for kind, found in compared.items()},
        calibration=calibration(model, pairs, m, config.places, draw),
        direct=direct_logit_attribution(model, pairs.clean, pairs.answer, pairs.wrong).top(N_DIRECT),
        circuits=circuits(model, case, draw) if cut else None,
    )


def shares(model: Model, pairs: Pairs, m: Metric, kind: str, mode: Mode) -> Shares:
    """The share of the gap that each place restores (denoise) or destroys (noise)."""
    (grid,) = grids(model, f"L*.{kind}", MAPS[kind], ids_of(pairs.clean).shape[1])
    recovered = patch(model, pairs, [m], grid.patches, mode=mode).recovered()[:, 0]
    table = grid.table(recovered if mode == "denoise" else 1 - recovered)
    return table.mT.flatten(0, 1) if table.ndim == 3 else table


def difference(one: Shares, other: Shares) -> float:
    """Sum of |one - other| over that of the larger size: 0 where both are alike, 1 where they share nothing."""
    return float((one - other).abs().sum() / torch.maximum(one.abs(), other.abs()).sum())
