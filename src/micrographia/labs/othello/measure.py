"""The figure of each published claim beside its null, in the order of the papers.

Li et al. 2023 (arXiv 2210.13382), sections 3 and 4; Nanda, Lee and Wattenberg 2023 (arXiv 2309.00941), sections 3 and
4. Accuracies are over all squares and plies that a move follows, of games that neither model nor probe was trained on;
"at the best layer" is the best of that probe. Axes: site d item class.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.claims import Measured, Measures
from micrographia.labs.othello.intervene import ERASE, FlipResult, closed
from micrographia.labs.othello.network import LegalScores
from micrographia.labs.othello.reading import BoardProbes
from micrographia.labs.othello.task import EMPTY

CLAIMS = Path(__file__).with_name("claims.toml")
MID = 1
"""The site after the first layer's attention."""
BLACK, WHITE = 1, 2


class Evidence(NamedTuple):
    """All that was measured of one model."""

    scores: LegalScores
    untrained_scores: LegalScores
    linear: BoardProbes
    nonlinear: BoardProbes
    untrained: BoardProbes
    history: Mapping[str, float]
    """Accuracy of probes of the moves so far, in the mover's frame: linear, and with a hidden layer."""
    flips: Sequence[FlipResult]

    def best(self, probes: BoardProbes, target: str) -> float:
        return float(probes.counts[target].accuracy().max())


def measures(found: Evidence) -> Measures:
    """Each claim's figure with its null."""
    best, linear = found.best, found.linear
    mover, absolute = best(linear, "mover"), best(linear, "absolute")
    untrained = best(found.untrained, "mover")
    majority = linear.counts["absolute"].majority()
    beside = max(found.history.values())
    flip = _flips(found.flips)
    across = cosines(linear)
    return {
        "legal-moves": Measured(found.scores.legal_rate, found.untrained_scores.legal_rate),
        "mover-is-linear": Measured(mover, untrained),
        "absolute-is-not": Measured(absolute, majority),
        "mover-above-absolute": Measured(
            mover - absolute, best(found.untrained, "mover") - best(found.untrained, "absolute")
        ),
        "mover-above-history": Measured(mover - beside, beside, raw=mover),
        "mlp-reads-absolute": Measured(best(found.nonlinear, "absolute") - absolute, absolute),
        "colours-turn-over": Measured(across["colour"], across["colour, other squares"]),
        "empty-stays": Measured(across["empty"], across["empty, other squares"]),
        "empty-by-first-attention": Measured(emptiness(linear, MID), emptiness(linear, 0)),
        "flip-follows": Measured(flip["add"], flip["random direction"]),
        "gradient-follows": Measured(flip["gradient, MLP"], flip["random direction"]),
        "absolute-does-not": Measured(flip["add, absolute"], flip["add"]),
        "erase-follows": Measured(flip[ERASE], flip["random direction"]),
        "one-square-only": Measured(flip["another square"], flip["add"]),
        "no-promotion": Measured(
            _mean(found.flips, "add", "gained_above"), _mean(found.flips, "untouched", "gained_above")
        ),
    }


def _flips(results: Sequence[FlipResult]) -> Mapping[str, float]:
    """Way -> the share of the error that it takes away."""
    return {each.name: closed(results, each.name) for each in results}


def _mean(results: Sequence[FlipResult], name: str, score: str) -> float:
    return next(each for each in results if each.name == name).scores.means()[score]


def emptiness(probes: BoardProbes, site: int) -> float:
    """How often the mover's probe tells empty squares from taken ones."""
    counts = probes.counts["mover"].counts[site].sum((0, 1)).double()
    both_empty, both_taken = counts[EMPTY, EMPTY], counts[EMPTY + 1 :, EMPTY + 1 :].sum()
    return float((both_empty + both_taken) / counts.sum())


def cosines(probes: BoardProbes) -> dict[str, float]:
    """Mean over squares, at the best layer of the mover's probe, of the cosine between the directions that even and odd
    plies have by themselves: of black less white, and of empty less the mean of both. Beside each the same between
    different squares: what chance would give."""
    site = int(probes.counts["mover"].accuracy().argmax())
    found = {}
    for name, of in (("colour", _colour), ("empty", _empty)):
        even, odd = (of(probes.probes[parity].directions[site]) for parity in ("even", "odd"))
        every = _unit(even) @ _unit(odd).T
        found[name] = float(every.diagonal().mean())
        found[f"{name}, other squares"] = float(every[~torch.eye(len(every), dtype=torch.bool)].abs().mean())
    return found


def _colour(W: Tensor) -> Tensor:
    """(square, d) of W (d, square, class)."""
    return (W[..., BLACK] - W[..., WHITE]).T


def _empty(W: Tensor) -> Tensor:
    return (W[..., EMPTY] - (W[..., BLACK] + W[..., WHITE]) / 2).T


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)
