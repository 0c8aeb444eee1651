"""The phases of grokking, from change points of the measures over training instead of by eye.

A loss l is transformed to exp(-l), the (geometric mean) probability of the right answer: it goes from about 0 to about
1 once, whatever the length of the run, while the logarithm of a loss falls as long as training continues. Each step is
a *ramp*, level - line - level, fitted by least squares over all pairs of knots; it counts if it beats "no change" in
description length and passes 1/2. Intervals within a run are profile likelihood intervals.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 5.2 and figure
7, where the three phases are drawn by eye; the change points are ours.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import isotonic_regression

from micrographia.core.errors import BadShape

EASE = 1e-3
"""Misfits smaller than this, in probability or as a fraction of the range of squared weights, are no evidence."""
TINY = 1e-300
"""The value of losses that underflowed to 0, where a logarithm is taken."""
CONFIDENT = 3.84
"""The 95 % quantile of chi^2 with one degree of freedom."""
SETTLED = 0.5
"""The weights have settled when they fall at less than half the speed of cleanup."""
POINTS = 100
"""Long curves are read in at most this many bins even in epochs and as many even in log epochs."""

Curve = Float[np.ndarray, "T"]
Places = Float[np.ndarray, "places"]
NAMES = ("memorised", "circuit", "circuit_formed", "cleanup", "settled")


class Boundary(NamedTuple):
    """The time of an event with its interval, about 95 % within this run. All None: it did not happen."""

    epoch: float | None
    low: float | None
    high: float | None


NEVER = Boundary(None, None, None)


class Phases(NamedTuple):
    """The boundaries, in epochs. The paper's order: memorised, circuit, cleanup, settled."""

    memorised: Boundary
    """The training loss has fallen; where a circuit forms, the excluded loss has turned from falling to rising."""
    circuit: Boundary
    """The restricted loss is half-way down: the key frequencies alone solve the task."""
    circuit_formed: Boundary
    """The test loss begins to fall: the paper's border between circuit formation and cleanup."""
    cleanup: Boundary
    """The test loss is half-way down."""
    settled: Boundary
    """The squared weights have stopped falling: the end of cleanup."""

    def as_json(self) -> dict[str, Any]:
        """Each boundary's epoch by name, None where no change is supported; under `intervals` the ends of each."""
        intervals = {name: None if b.epoch is None else [b.low, b.high] for name, b in self._asdict().items()}
        return {**{name: b.epoch for name, b in self._asdict().items()}, "intervals": intervals}


ORDERED = ("memorised", "circuit", "cleanup", "settled")


def find_phases(
    epochs: Curve | Int[np.ndarray, "T"] | Sequence[float],
    *,
    train_loss: Curve,
    test_loss: Curve,
    restricted_loss: Curve,
    squared_weights: Curve,
    excluded_loss: Curve | None = None,
) -> Phases:
    """The boundaries of one run from its measures; NaN where a measure was not taken. About a tenth of a second.

    Epochs may be spaced in any way, so measures of every epoch and of few snapshots can be combined in one call.

    - memorised: the end of the ramp of exp(-train loss). Where a circuit forms, the paper's border is where the
    excluded loss turns from falling to rising; given `excluded_loss`, that is used.
    - circuit, cleanup: the middle of the ramp of exp(-restricted loss), exp(-test loss).
    - circuit_formed: the beginning of the ramp of exp(-test loss).
    - settled: of two knots in the squared weights from memorisation on, slow - fast - slow, the second. None unless a
    cleanup was found, the fast part falls, and the part after it falls at less than half its speed.
    """
    epochs = np.asarray(epochs, dtype=float)
    for curve in (train_loss, test_loss, restricted_loss, squared_weights, excluded_loss):
        if curve is not None and curve.shape != epochs.shape:
            raise BadShape(
                f"Curves over {len(epochs)} epochs were expected; found one of shape {curve.shape}. Put NaN where a "
                "measure was not taken."
            )
    train, test = (_ramp(*_points(epochs, np.exp(-loss))) for loss in (train_loss, test_loss))
    restricted = _ramp(*_points(epochs, np.exp(-restricted_loss)))
    memorised = NEVER if train is None else train.end
    if restricted is not None and train is not None and excluded_loss is not None:
        turn = _turn(*_points(epochs, np.log(excluded_loss.clip(TINY))), restricted.middle)
        memorised = memorised if turn.epoch is None else turn
    settled = NEVER
    if test is not None and memorised.epoch is not None:
        settled = _settled(*_points(epochs, squared_weights), after=memorised.epoch)
    return Phases(
        memorised=memorised,
        circuit=NEVER if restricted is None else restricted.middle,
        circuit_formed=NEVER if test is None else test.start,
        cleanup=NEVER if test is None else test.middle,
        settled=settled,
    )


def bands(epochs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The three phases as bands of a picture: up to the end of memorisation, of circuit formation, of cleanup.

    `epochs` as `Phases.as_json` gives them.
    """
    edges = [0, *(epochs.get(name) for name in ("memorised", "circuit_formed", "settled"))]
    spans = zip(("memorisation", "circuit formation", "cleanup"), edges[:-1], edges[1:])
    return [{"name": name, "start": a, "end": b} for name, a, b in spans if a is not None and b is not None and a < b]


class _Ramp(NamedTuple):
    start: Boundary
    middle: Boundary
    end: Boundary


def _ramp(x: Curve, y: Curve) -> _Ramp | None:
    """The least-squares ramp, level - line - level; None if a constant is as good, or if it does not pass 1/2.

    All pairs of measured epochs are tried as knots. O(T^3), T at most about 200.
    """
    n = len(x)
    if n < 6:
        return None
    first, second = np.triu_indices(n, 1)
    shape = np.clip((x - x[first, None]) / (x[second] - x[first])[:, None], 0, 1)
    shape -= shape.mean(axis=1, keepdims=True)
    centred = y - y.mean()
    slope = shape @ centred / (shape**2).sum(axis=1)
    misfit = (centred @ centred - slope**2 * (shape**2).sum(axis=1)).clip(min=0) + n * EASE**2
    flat = centred @ centred + n * EASE**2
    best = int(misfit.argmin())
    if n * math.log(misfit[best] / flat) + _places(len(misfit)) + math.log(n) > 0:
        return None
    fit = y.mean() + slope[best] * shape[best]
    if not fit.min() < 0.5 < fit.max() or slope[best] < 0:
        return None
    near = _likely(misfit, y - fit)
    middles = (x[first] + x[second]) / 2
    return _Ramp(
        _boundary(x, x[first], best, near),
        _boundary(x, middles, best, near),
        _boundary(x, x[second], best, near),
    )


def _turn(x: Curve, y: Curve, before: Boundary) -> Boundary:
    """Where a falling curve begins to rise: the split of the best fit "never rising, then never falling".

    Only before the given boundary. Unimodal regression by two isotonic ones; no shape is assumed.
    """
    part = x <= before.epoch
    x, y = x[part], y[part]
    if len(x) < 4:
        return NEVER
    falling = [isotonic_regression(-y[: i + 1]).x for i in range(len(y))]
    rising = [isotonic_regression(y[i:]).x for i in range(len(y))]
    fits = [np.concatenate([-down[:-1], up]) for down, up in zip(falling, rising)]
    misfit = np.array([((y - fit) ** 2).sum() for fit in fits]) + len(y) * EASE**2
    best = int(misfit.argmin())
    if best in (0, len(y) - 1):
        return NEVER
    return _boundary(x, x, best, _likely(misfit, y - fits[best]))


def _settled(x: Curve, y: Curve, *, after: float) -> Boundary:
    """The second knot of the best broken line with two.

    None if one knot or none is as good, or unless it falls between them and at less than half that speed after them.
    """
    part = x >= after
    x, y = x[part], y[part]
    n = len(x)
    if n < 8 or y.max() == y.min():
        return NEVER
    y = (y - y.min()) / (y.max() - y.min())
    none, one, two = _broken_lines(x, y)
    first, second = two.knots
    best = int(two.misfit.argmin())
    lengths = [
        n * math.log(lines.misfit.min()) + _places(len(lines.misfit)) + knots * math.log(n)
        for knots, lines in enumerate((none, one, two))
    ]
    if lengths[2] > min(lengths):
        return NEVER
    fit = _broken_line(x, y, [int(first[best]), int(second[best])])
    fast = (fit[second[best]] - fit[first[best]]) / (x[second[best]] - x[first[best]])
    slow = (fit[-1] - fit[second[best]]) / (x[-1] - x[second[best]])
    if fast >= 0 or slow < SETTLED * fast:
        return NEVER
    return _boundary(x, x[second], best, _likely(two.misfit, y - fit))


class _Lines(NamedTuple):
    knots: tuple[Int[np.ndarray, "places"], ...]
    misfit: Places


def _broken_lines(x: Curve, y: Curve) -> tuple[_Lines, _Lines, _Lines]:
    """Squared misfit of the best continuous broken lines with no knot, one and two, at every (pair of) inner epochs.

    The hinges (x - knot)+ are made orthogonal to a straight line first, which leaves a 2 x 2 system a pair.
    """
    inner = np.arange(1, len(x) - 1)
    straight = np.linalg.qr(np.stack([np.ones_like(x), x - x.mean()], axis=1))[0]
    hinges = np.clip(x - x[inner, None], 0, None) / (x[-1] - x[0])
    hinges -= hinges @ straight @ straight.T
    rest = y - straight @ (straight.T @ y)
    least, along, gram = len(x) * EASE**2, hinges @ rest, hinges @ hinges.T
    alone = rest @ rest - along**2 / np.diag(gram)
    i, j = np.triu_indices(len(inner), 1)
    square = along[i] ** 2 * gram[j, j] + along[j] ** 2 * gram[i, i] - 2 * along[i] * along[j] * gram[i, j]
    pairs = rest @ rest - square / (gram[i, i] * gram[j, j] - gram[i, j] ** 2)
    return (
        _Lines((), np.array([rest @ rest]) + least),
        _Lines((inner,), alone.clip(min=0) + least),
        _Lines((inner[i], inner[j]), pairs.clip(min=0) + least),
    )


def _broken_line(x: Curve, y: Curve, knots: Sequence[int]) -> Curve:
    """Least-squares fit, continuous, straight between the knots."""
    far = (x - x[0]) / (x[-1] - x[0])
    design = np.stack([np.ones_like(x), far, *(np.clip(far - far[knot], 0, None) for knot in knots)], axis=1)
    return design @ np.linalg.lstsq(design, y, rcond=None)[0]


def _places(count: int) -> float:
    """The cost, in units of -2 log likelihood, of the position of a change point among `count` places.

    A scan over places finds chance fits that the log n of the Bayesian criterion would accept.
    """
    return 2 * math.log(count)


def _likely(misfit: Places, residuals: Curve) -> Bool[np.ndarray, "places"]:
    """The positions that the profile likelihood does not reject at 95 %.

    Residuals of neighbouring epochs are correlated (the shape is an idealisation), so n of them count as n (1 - r) / (1
    + r), with r their correlation at lag 1.
    """
    n = len(residuals)
    energy = (residuals**2).sum()
    r = max(0.0, float(residuals[1:] @ residuals[:-1] / energy)) if energy > 0 else 0.0
    return n * np.log(misfit / misfit.min()) * (1 - r) / (1 + r) <= CONFIDENT


def _boundary(x: Curve, places: Places, best: int, near: Bool[np.ndarray, "places"]) -> Boundary:
    """A position and its interval, which reaches at least to the measurements on both sides."""
    place, low, high = places[best], places[near].min(), places[near].max()
    left, right = x[x < place], x[x > place]
    low = min(low, left[-1] if len(left) else place)
    high = max(high, right[0] if len(right) else place)
    return Boundary(float(place), float(low), float(high))


def _points(epochs: Curve, values: Curve) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    """The finite values by rising epoch; of long curves medians in bins, even in epochs and in log epochs together."""
    known = np.isfinite(values)
    order = np.argsort(epochs[known], kind="stable")
    x, y = epochs[known][order].astype(float), values[known][order].astype(float)
    if len(x) <= POINTS:
        bins = x  # equal epochs share a bin
    else:
        edges = np.union1d(np.linspace(x[0], x[-1], POINTS), np.geomspace(x[0] + 1, x[-1] + 1, POINTS) - 1)
        bins = np.searchsorted(edges, x, side="right")
    groups = [bins == i for i in np.unique(bins)]
    return np.array([np.median(x[group]) for group in groups]), np.array([np.median(y[group]) for group in groups])
