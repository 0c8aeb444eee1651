"""The figure of each published claim beside its null, in the order of the papers.

Li et al. 2023 (arXiv 2210.13382), sections 3 and 4; Nanda, Lee and Wattenberg 2023 (arXiv 2309.00941), sections 3 and
4. Accuracies are over all squares and plies that a move follows, of games that neither model nor probe was trained on;
"at the best layer" is the best of that probe. Axes: site d item class.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from micrographia.core.claims import Measured, Measures
from micrographia.core.intervals import Interval
from micrographia.labs.othello.evidence import ActsOn, BoardEvidence
from micrographia.labs.othello.flips import RANDOM, UNFLIP
from micrographia.labs.othello.intervene import ERASE, ON_ITS_OWN, SEVERAL, UNTOUCHED, closed, several
from micrographia.labs.othello.latents import DICTIONARY, PROBE, UNTRAINED, BoardLatents
from micrographia.labs.othello.legality import ACTIVATIONS, MOVES, Legality
from micrographia.labs.othello.reading import BoardProbes
from micrographia.labs.othello.task import EMPTY, OTHER_RULES

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
    ways = [each.name for each in found.flips if not each.name.endswith((UNTOUCHED, ON_ITS_OWN))]
    flip = {way: closed(found.flips, way) for way in ways}
    after = {name: float(accuracy.max()) for name, accuracy in found.after_a_pass.items()}
    above = {each.name: each.scores.means()["gained_above"] for each in found.flips}
    across = cosines(linear)
    rules, rules_null = _by_rules(found.by_rules), _by_rules(found.untrained_by_rules)
    return {
        "legal-moves": Measured(found.scores.legal_rate, found.untrained_scores.legal_rate),
        "mover-is-linear": Measured(found.mover_over_games.ends(), untrained),
        "keeps-its-own-rules": Measured(rules - rules_null, rules_null, raw=rules),
        "absolute-is-not": Measured(absolute, majority),
        "mover-above-absolute": Measured(mover - absolute, untrained - best(found.untrained, "absolute")),
        "mover-above-history": Measured(mover - beside, beside, raw=mover),
        "mover-not-parity": Measured(after["mover"] - after["parity"], after["parity"], raw=after["mover"]),
        "mlp-reads-absolute": Measured(best(found.nonlinear, "absolute") - absolute, absolute),
        "colours-turn-over": Measured(across["colour"], across["colour, other squares"]),
        "empty-stays": Measured(across["empty"], across["empty, other squares"]),
        "empty-by-first-attention": Measured(emptiness(linear, MID), emptiness(linear, 0)),
        "flip-follows": _follows(flip, "add", RANDOM),
        "several-at-once-follows": _follows(flip, several(max(SEVERAL))),
        "gradient-follows": _follows(flip, "gradient, MLP"),
        "absolute-does-not": _follows(flip, "add, absolute", "add"),
        "erase-follows": _follows(flip, ERASE),
        "one-square-only": _follows(flip, "another square", "add"),
        "no-promotion": Measured(above["add"], above[UNTOUCHED]),
        "unflip-follows": _follows(flip, UNFLIP),
        "saliency-is-legality": Measured(found.salient.area(), found.salient_null.area()),
        **_of_parts(found),
        **_of_behaviour(found.behaviour),
        **_of_legality(found.legality),
        **_of_latents(found.latents),
    }


def _by_rules(accuracy: Mapping[str, Tensor]) -> float:
    return float(accuracy["mover"].max() - accuracy[OTHER_RULES].max())


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
    own, moves = (found.found[name] for name in (ACTIVATIONS, MOVES))
    return {
        "follows-board-not-patterns": Measured(own.beyond.ends(), own.board_right, raw=own.follows_board),
        "patterns-without-a-board": Measured(moves.first_choice, found.chance),
    }


def _of_latents(found: BoardLatents | None) -> Measures:
    """Most coverage first; and coverage of the dictionary less that of as many random directions."""
    if found is None:
        return dict.fromkeys(("latents-between", "latents-above-random"), Measured(None, taken=False))
    order = [name for name in found.order if name in (PROBE, DICTIONARY, UNTRAINED)]
    own = found.found[DICTIONARY]
    random = own.nulls["random directions"][0]
    return {
        "latents-between": Measured(order, found.found[UNTRAINED].coverage),
        "latents-above-random": Measured(own.coverage - random, random, raw=own.coverage),
    }


def _follows(flip: Mapping[str, Interval], way: str, null: str = "") -> Measured:
    return Measured(flip[way].ends(), flip[null or f"{way}, {RANDOM}"].estimate)


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
