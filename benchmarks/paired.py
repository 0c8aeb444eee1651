"""Programs timed side by side on one machine, so that its drift hits all alike.

A round times a chunk of every program once, in turn (the next round in the opposite order), and gives one ratio for
each `Match` of two of them; the median ratio is told with its bootstrap 95 % interval. A round in which others took
more than `busy` cores does not count and is taken again. Nothing here knows what is being timed, and nothing writes.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from others import Others

PAUSE = 0.2  # seconds before a chunk: threads of the other contender that still spin go to sleep
DRAWS = 10_000  # bootstrap resamples
PATIENCE = 4  # times the rounds asked for are tried at most
LEAST = 5  # rounds below which there is no interval worth telling


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that does `n` units of work when called with n; a chunk holds a multiple of `whole` units."""

    name: str
    run: Callable[[int], object]
    whole: int = 1
    chunk: int | None = None
    """Units of a chunk; None: as many as last about the seconds asked for."""


@dataclass(frozen=True, slots=True)
class Match:
    """Two contenders whose ratio is told; `target` is what it should reach, `about` goes into the record as it is."""

    ours: Contender
    theirs: Contender
    unit: str
    target: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How many times as long theirs takes as ours, for the same unit of work. Above 1, ours is faster."""

    ours: str
    theirs: str
    unit: str
    ratio: float
    low: float
    high: float
    target: float | None
    n: int
    ours_chunk: int
    theirs_chunk: int
    ours_seconds: list[float] = field(repr=False)
    theirs_seconds: list[float] = field(repr=False)
    cores_of_others: list[float | None] = field(repr=False)
    """What other programs took in each round that counts; None where that is not known."""
    rounds_dropped: int = 0
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.ratio >= self.target

    def as_json(self) -> dict[str, Any]:
        """Every single measurement too, so that a reader can take another statistic."""
        found = asdict(self)
        return {**found.pop("about"), **found, "met": self.met}

    def __str__(self) -> str:
        ours, theirs = np.median(self.ours_seconds), np.median(self.theirs_seconds)
        target = "" if self.target is None else f", target {self.target:g}: {'met' if self.met else 'NOT MET'}"
        dropped = f"; {self.rounds_dropped} busy rounds dropped" if self.rounds_dropped else ""
        return (
            f"{self.theirs} / {self.ours}: {self.ratio:.3g} [{self.low:.3g}, {self.high:.3g}], n={self.n} "
            f"({1 / ours:.4g} against {1 / theirs:.4g} {self.unit}s a second{target}{dropped})"
        )


@dataclass(slots=True)
class Taken:
    """The rounds so far: seconds a unit of every contender."""

    chunks: dict[str, int]
    seconds: dict[str, list[float]]
    cores: list[float | None] = field(default_factory=list)
    dropped: int = 0

    def of(self, match: Match) -> Comparison:
        ours, theirs = (self.seconds[each.name] for each in (match.ours, match.theirs))
        ratios = np.divide(theirs, ours)
        low, high = interval(ratios)
        return Comparison(
            ours=match.ours.name,
            theirs=match.theirs.name,
            unit=match.unit,
            ratio=float(np.median(ratios)),
            low=low,
            high=high,
            target=match.target,
            n=len(ratios),
            ours_chunk=self.chunks[match.ours.name],
            theirs_chunk=self.chunks[match.theirs.name],
            ours_seconds=ours,
            theirs_seconds=theirs,
            cores_of_others=self.cores,
            rounds_dropped=self.dropped,
            about=match.about,
        )


def compare(
    matches: Sequence[Match],
    *,
    rounds: int,
    seconds: float,
    busy: float = math.inf,
    deadline: float = math.inf,
) -> Iterator[list[Comparison]]:
    """The comparisons after every round that counts; chunks last about `seconds` each.

    Ends after `rounds`, or before a round that would not be over by `deadline` (of `time.monotonic`), with one round
    at least. Raises SystemExit when too few rounds were quiet: in four times those asked for, or by the deadline none.
    """
    contenders = list({each.name: each for match in matches for each in (match.ours, match.theirs)}.values())
    chunks = {each.name: each.chunk or _units_in(each, seconds) for each in contenders}
    taken = Taken(chunks, {each.name: [] for each in contenders})
    tried, longest = 0, 0.0
    while len(taken.cores) < rounds and tried < PATIENCE * rounds:
        began = time.monotonic()
        if tried and began + longest > deadline:
            break
        counts = _round(contenders if tried % 2 == 0 else contenders[::-1], taken, busy)
        tried, longest = tried + 1, max(longest, time.monotonic() - began)
        if counts:
            yield [taken.of(match) for match in matches]
    else:
        _refuse_busy(len(taken.cores), min(rounds, LEAST), tried, busy)
    _refuse_busy(len(taken.cores), 1, tried, busy)


def _round(order: Sequence[Contender], taken: Taken, busy: float) -> bool:
    """One chunk of everybody; whether it counts."""
    watch = Others()
    found = {each.name: _seconds_each(each, taken.chunks[each.name]) for each in order}
    cores = watch.cores()
    if cores is not None and cores > busy:
        taken.dropped += 1
        return False
    taken.cores.append(cores)
    for name, each in found.items():
        taken.seconds[name].append(each)
    return True


def _refuse_busy(quiet: int, least: int, tried: int, busy: float) -> None:
    if quiet < least:
        raise SystemExit(
            f"Asked for rounds with at most {busy} cores taken by others, {least} of them at least; of {tried} tried "
            f"{quiet} were so quiet. Stop what else is running, or allow more with --busy."
        )


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median (percentile method; Efron and Tibshirani 1993, section 13.3)."""
    values = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def seconds_of(run: Callable[[], object], *, repeats: int) -> list[float]:
    """Wall time of each of `repeats` calls, after one that is not counted."""
    run()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return found


def _units_in(contender: Contender, seconds: float) -> int:
    """How many units make a chunk of about `seconds`, from one trial after a warm-up."""
    each = _seconds_each(contender, contender.whole)
    return contender.whole * max(1, round(seconds / each / contender.whole))


def _seconds_each(contender: Contender, units: int) -> float:
    time.sleep(PAUSE)
    contender.run(1)  # not counted: brings the contender's own data back into the caches
    began = time.perf_counter()
    contender.run(units)
    return (time.perf_counter() - began) / units
