"""The figure of each published claim beside its null, in the order of the papers.

Li et al. 2023 (arXiv 2210.13382), sections 3 and 4; Nanda, Lee and Wattenberg 2023 (arXiv 2309.00941), sections 3 and
4. Accuracies are over all squares and plies that a move follows, of games that neither model nor probe was trained on;
"at the best layer" is the best of that probe. Axes: site d item class.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from micrographia.core.claims import Measured, Measures, Value
from micrographia.core.intervals import Interval, clustered_ratio
from micrographia.core.runtime import generator
from micrographia.labs.othello.evidence import ActsOn, BoardEvidence
from micrographia.labs.othello.flips import RANDOM, UNFLIP
from micrographia.labs.othello.intervene import ERASE, ON_ITS_OWN, SEVERAL, UNTOUCHED, FlipResult, closed, several
from micrographia.labs.othello.latents import DICTIONARY, PROBE, UNTRAINED, BoardLatents
from micrographia.labs.othello.legality import ACTIVATIONS, MOVES, Legality
from micrographia.labs.othello.reading import BoardProbes
from micrographia.labs.othello.task import EMPTY, OTHER_RULES
from micrographia.methods.probes.score import ProbeCounts

CLAIMS = Path(__file__).with_name("claims.toml")
MID = 1
"""The site after the first layer's attention."""
BLACK, WHITE = 1, 2


def measures(found: BoardEvidence) -> Measures:
    """Each claim's figure with its null."""
    best, linear = found.best, found.linear
    mover, absolute = best(linear, "mover"), best(linear, "absolute")
    untrained = best(found.untrained, "mover")
    majority = linear.counts["absolute"].majority()
    beside = max(found.history.values())
    flip = _flips(found.flips)
    after = {name: float(accuracy.max()) for name, accuracy in found.after_a_pass.items()}
    across = cosines(linear)
    return {
        "legal-moves": Measured(found.scores.legal_rate, found.untrained_scores.legal_rate),
        "mover-is-linear": Measured(span(over_games(found.mover_by_game)), untrained),
        "keeps-its-own-rules": Measured(
            mover - best(linear, OTHER_RULES), untrained - best(found.untrained, OTHER_RULES), raw=mover
        ),
        "absolute-is-not": Measured(absolute, majority),
        "mover-above-absolute": Measured(mover - absolute, untrained - best(found.untrained, "absolute")),
        "mover-above-history": Measured(mover - beside, beside, raw=mover),
        "mover-not-parity": Measured(after["mover"] - after["parity"], after["parity"], raw=after["mover"]),
        "mlp-reads-absolute": Measured(best(found.nonlinear, "absolute") - absolute, absolute),
        "colours-turn-over": Measured(across["colour"], across["colour, other squares"]),
        "empty-stays": Measured(across["empty"], across["empty, other squares"]),
        "empty-by-first-attention": Measured(emptiness(linear, MID), emptiness(linear, 0)),
        "flip-follows": _follows(flip, "add", RANDOM),
        "several-follow": _follows(flip, several(max(SEVERAL))),
        "gradient-follows": _follows(flip, "gradient, MLP"),
        "absolute-does-not": _follows(flip, "add, absolute", "add"),
        "erase-follows": _follows(flip, ERASE),
        "one-square-only": _follows(flip, "another square", "add"),
        "no-promotion": Measured(*(_mean(found.flips, way, "gained_above") for way in ("add", "untouched"))),
        "unflip-follows": _follows(flip, UNFLIP),
        "saliency-is-legality": Measured(found.salient.area(), found.salient_null.area()),
        **_of_parts(found),
        **_of_behaviour(found.behaviour),
        **_of_legality(found.legality),
        "latents-between": _of_latents(found.latents),
        "latents-above-random": _above_random(found.latents),
    }


def _of_parts(found: BoardEvidence) -> Measures:
    own, null = found.parts, found.untrained_parts
    return {
        "heads-take-sides": Measured(own.heads.most_sided(), null.heads.most_sided()),
        "neurons-are-legality": Measured(own.neurons.mean(), max(null.neurons.mean(), own.neurons.shuffled)),
    }


def _of_behaviour(found: ActsOn) -> Measures:
    more = found.illegal_after_flip - found.illegal_untouched
    return {
        "follows-the-board-it-reads": Measured(found.read.follows_read, found.read.control),
        "roll-outs-stay-legal": Measured(more, found.illegal_untouched, raw=found.illegal_after_flip),
        "order-matters-little": Measured(found.transposed.first_choice_differs, found.transposed.control),
    }


def _of_legality(found: Legality) -> Measures:
    activations, moves = (found.found[name] for name in (ACTIVATIONS, MOVES))
    return {
        "follows-board-not-patterns": Measured(span(activations.follows_board), activations.null),
        "patterns-without-a-board": Measured(moves.first_choice, found.chance),
    }


def _of_latents(found: BoardLatents | None) -> Measured:
    """Most coverage first; beside it the coverage of the dictionary without training."""
    if found is None:
        return Measured(None, taken=False)
    order = [name for name in found.order if name in (PROBE, DICTIONARY, UNTRAINED)]
    return Measured(order, found.found[UNTRAINED].coverage)


def _above_random(found: BoardLatents | None) -> Measured:
    """Coverage of the dictionary less that of as many random directions."""
    if found is None:
        return Measured(None, taken=False)
    own = found.found[DICTIONARY]
    random = own.nulls["random directions"][0]
    return Measured(own.coverage - random, random, raw=own.coverage)


def _flips(results: Sequence[FlipResult]) -> Mapping[str, Interval]:
    """Way -> the share of the error that it takes away."""
    ways = [each.name for each in results if not each.name.endswith((UNTOUCHED, ON_ITS_OWN))]
    return {name: closed(results, name) for name in ways}


def _follows(flip: Mapping[str, Interval], way: str, null: str = "") -> Measured:
    return Measured(span(flip[way]), flip[null or f"{way}, {RANDOM}"].estimate)


def over_games(counts: ProbeCounts) -> Interval:
    """Accuracy at one site, of counts by game."""
    cells = counts.counts[0].double()
    right, n = cells.diagonal(dim1=-2, dim2=-1).sum((1, 2)).numpy(), cells.sum((1, 2, 3)).numpy()
    return clustered_ratio(right, n, np.arange(len(n)), generator=generator(0))


def span(found: Interval) -> Value:
    """A figure with the ends of its interval, as claims have it; None where there is none."""
    if math.isnan(found.estimate):
        return None
    return {"median": found.estimate, "low": found.low, "high": found.high}


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
