"""Every way of flipping a square, with layers and scale chosen on other games than those that judge it.

Besides the scores of the next move: whether the moves of a roll-out from the edited position are legal on the changed
board, and whether two histories that reach one board are continued alike. Axes: case pos vocab.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch
from micrographia.core.intervals import Interval, clustered_ratio
from micrographia.core.model import Model
from micrographia.core.runtime import batch_generator, generator
from micrographia.labs.othello.cases import Cases, erased, random_cases
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.flips import RANDOM, UNFLIP, WAYS, FlipScores, Way, edits_of, flip_scores, logits_at_last
from micrographia.methods.probes.probe import Probes, SiteProbes

TUNED_ON, JUDGED_ON = 10, 11  # numbers of samples
UNTOUCHED, ON_ITS_OWN, ERASE = "untouched", "on its own board", "erase"
SEVERAL = (2, 3)
"""Squares that are flipped together, with the layers and the scale of one."""
CONTROLLED = "add"
"""The way whose layers and scale the controls take."""


class Chosen(NamedTuple):
    layers: tuple[int, ...]
    scale: float


class FlipResult(NamedTuple):
    """A way of flipping, as it was judged."""

    name: str
    scores: FlipScores
    chosen: Chosen | None = None
    by_layer: Mapping[int, float] = {}
    """Mean error with one layer alone, at the best scale, on the games that it was chosen on."""

    def row(self) -> dict[str, Any]:
        layers = "" if self.chosen is None else ", ".join(map(str, self.chosen.layers))
        scale = None if self.chosen is None else self.chosen.scale
        return {"way": self.name, "layers": layers, "scale": scale, **self.scores.means()}


def cases_of_config(config: Config, sample: int, n: int, *, squares: int = 1, just_flipped: bool = False) -> Cases:
    drawn_by = batch_generator(config.seed, (1 << 31) + sample)
    return random_cases(config.board, n, drawn_by, squares=squares, just_flipped=just_flipped)


def intervene(
    config: Config, model: Model, linear: Probes, nonlinear: Probes, watch: Watch, cases: Cases | None = None
) -> list[FlipResult]:
    """Judge every way, beside the untouched model on the changed board (the null) and on its own (its own error).

    Cost: a run of the model over `tuning_cases` for each way, set of layers and scale (about 30 a layer and way), and
    one over the judged cases a way.
    """
    tuning = cases_of_config(config, TUNED_ON, config.flipping.tuning_cases)
    judged = cases or cases_of_config(config, JUDGED_ON, config.flipping.cases)
    untouched = logits_at_last(model, judged)
    found = [
        FlipResult(UNTOUCHED, flip_scores(untouched, judged)),
        FlipResult(ON_ITS_OWN, flip_scores(untouched, judged._replace(after=judged.before))),
    ]
    taken: dict[str, tuple[Chosen, Mapping[int, float]]] = {}
    for i, (name, way) in enumerate((name, way) for name, way in WAYS.items() if name != UNFLIP):
        watch(Progress("flip squares", i, len(WAYS), "method"))
        probe = (nonlinear if way.hidden else linear)[way.frame]
        taken[name] = taken[CONTROLLED] if way.control else choose(model, way, probe, tuning)
        chosen, by_layer = taken[name]
        scores = _judged(model, way, probe, judged, chosen)
        found.append(FlipResult(name, scores, chosen, {} if way.control else by_layer))
        if way.hidden:
            found.append(_at_random(model, name, way, probe, judged, chosen))
    for n in SEVERAL:
        together = cases_of_config(config, JUDGED_ON, config.flipping.cases, squares=n)
        found += _on_other_boards(model, several(n), WAYS[CONTROLLED], linear, together, taken[CONTROLLED][0])
    chosen, _ = choose(model, WAYS[CONTROLLED], linear[WAYS[CONTROLLED].frame], erased(tuning))
    found += _on_other_boards(model, ERASE, WAYS[CONTROLLED], linear, erased(judged), chosen)
    turned = [
        cases_of_config(config, sample, n, just_flipped=True)
        for sample, n in ((JUDGED_ON, config.flipping.cases), (TUNED_ON, config.flipping.tuning_cases))
    ]
    chosen, _ = choose(model, WAYS[UNFLIP], linear[WAYS[UNFLIP].frame], turned[1])
    found += _on_other_boards(model, UNFLIP, WAYS[UNFLIP], linear, turned[0], chosen)
    watch(Progress("flip squares", len(WAYS), len(WAYS), "method"))
    return found


def several(n: int) -> str:
    """The name of flipping so many squares together."""
    return f"{CONTROLLED}, {n} squares"


def _on_other_boards(
    model: Model, name: str, way: Way, linear: Probes, judged: Cases, chosen: Chosen
) -> list[FlipResult]:
    """A way that is judged on cases of its own, and the untouched model on these."""
    untouched = logits_at_last(model, judged)
    null = FlipResult(f"{name}, untouched", flip_scores(untouched, judged))
    own = FlipResult(f"{name}, {ON_ITS_OWN}", flip_scores(untouched, judged._replace(after=judged.before)))
    probe = linear[way.frame]
    here = FlipResult(name, _judged(model, way, probe, judged, chosen), chosen)
    return [null, own, here, _at_random(model, name, way, probe, judged, chosen)]


def _at_random(model: Model, name: str, way: Way, probe: SiteProbes, judged: Cases, chosen: Chosen) -> FlipResult:
    """The control of a way: random directions of its own lengths, at its own layers, on its own cases."""
    scores = _judged(model, way._replace(control=RANDOM), probe, judged, chosen)
    return FlipResult(f"{name}, {RANDOM}", scores, chosen)


def choose(model: Model, way: Way, probe: SiteProbes, tuning: Cases) -> tuple[Chosen, dict[int, float]]:
    """The layers and scale of the least mean error: one layer, or all from one on."""
    n = model.shape.n_layers
    if not len(tuning.last):
        raise UserError("No case is left to choose layers and scale of a flip on. Ask for more --tuning-cases.")
    errors = {
        each: float(_judged(model, way, probe, tuning, each).error.mean())
        for layers in dict.fromkeys(_sets(n))
        for each in (Chosen(layers, scale) for scale in way.scales)
    }
    by_layer = {layer: min(e for each, e in errors.items() if each.layers == (layer,)) for layer in range(n)}
    return min(errors, key=lambda each: errors[each]), by_layer


def _sets(n_layers: int) -> Iterator[tuple[int, ...]]:
    for layer in range(n_layers):
        yield (layer,)
        yield tuple(range(layer, n_layers))


def _judged(model: Model, way: Way, probe: SiteProbes, cases: Cases, chosen: Chosen) -> FlipScores:
    edits = edits_of(way, probe, cases, chosen.layers, chosen.scale, batch_generator(0, len(cases.last)))
    return flip_scores(logits_at_last(model, cases, edits), cases)


def closed(results: Sequence[FlipResult], name: str) -> Interval:
    """How much of the error a way takes away, as a share of what there is to take: the null less the own error.

    Its interval is over cases, each of a game of its own where they are drawn. NaN where the model errs no more on the
    changed boards than on its own.
    """
    error = {each.name: each.scores.error.numpy() for each in results}
    way = name.removesuffix(f", {RANDOM}")
    null, own = (error.get(f"{way}, {each}", error[each]) for each in (UNTOUCHED, ON_ITS_OWN))
    return clustered_ratio(null - error[name], null - own, np.arange(len(null)), generator=generator(0))
