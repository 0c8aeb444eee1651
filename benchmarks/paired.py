"""Two programs timed side by side on one machine, so that its drift hits both alike.

Chunks of a few seconds alternate (ours first, then theirs first, ...); each round gives one ratio, and the median ratio
is told with its bootstrap 95 % interval. A round in which other programs took more than `busy` cores does not count and
is taken again. A result is one JSON object with date, hardware, versions and every single
measurement, so that a reader can take another statistic. Nothing here knows what is being timed.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from others import Others

RESULTS = Path(__file__).parent / "results"
PAUSE = 0.2  # seconds before a chunk: threads of the other contender that still spin go to sleep
DRAWS = 10_000  # bootstrap resamples
BUSY = 0.05  # cores that others may take in a round that counts
PATIENCE = 4  # times the rounds asked for are tried at most
LEAST = 5  # rounds below which there is no interval worth telling


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that does `n` units of work when called with n; a chunk holds a multiple of `whole` units."""

    name: str
    run: Callable[[int], object]
    whole: int = 1


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
    ours_seconds: list[float] = field(repr=False)
    theirs_seconds: list[float] = field(repr=False)
    cores_of_others: list[float | None] = field(repr=False)
    """What other programs took in each round that counts; None where that is not known."""
    rounds_dropped: int = 0

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.ratio >= self.target

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        ours, theirs = np.median(self.ours_seconds), np.median(self.theirs_seconds)
        target = "" if self.target is None else f", target {self.target:g}: {'met' if self.met else 'NOT MET'}"
        dropped = f"; {self.rounds_dropped} busy rounds dropped" if self.rounds_dropped else ""
        return (
            f"{self.theirs} / {self.ours}: {self.ratio:.3g} [{self.low:.3g}, {self.high:.3g}] "
            f"({1 / ours:.4g} against {1 / theirs:.4g} {self.unit}s a second{target}{dropped})"
        )


def compare(
    ours: Contender,
    theirs: Contender,
    *,
    unit: str,
    rounds: int,
    seconds: float,
    target: float | None = None,
    busy: float = math.inf,
) -> Comparison:
    """Time both in alternation, `rounds` times, in chunks of about `seconds` each.

    A round counts when others took at most `busy` cores. Raises SystemExit when too few did in four times the rounds.
    """
    units = {each.name: _units_in(each, seconds) for each in (ours, theirs)}
    taken: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    others: list[float | None] = []
    tried = 0
    while len(others) < rounds and tried < PATIENCE * rounds:
        watch = Others()
        order = (ours, theirs) if tried % 2 == 0 else (theirs, ours)
        found = {each.name: _seconds_each(each, units[each.name]) for each in order}
        tried += 1
        if (cores := watch.cores()) is None or cores <= busy:
            others.append(cores)
            for name, each in found.items():
                taken[name].append(each)
    if len(others) < min(rounds, LEAST):
        raise SystemExit(
            f"Asked for {rounds} rounds with at most {busy} cores taken by others; of {tried} tried {len(others)} were "
            "so quiet. Stop what else is running, or allow more with --busy."
        )
    ratios = np.divide(taken[theirs.name], taken[ours.name])
    low, high = interval(ratios)
    return Comparison(
        ours=ours.name,
        theirs=theirs.name,
        unit=unit,
        ratio=float(np.median(ratios)),
        low=low,
        high=high,
        target=target,
        ours_seconds=taken[ours.name],
        theirs_seconds=taken[theirs.name],
        cores_of_others=others,
        rounds_dropped=tried - len(others),
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


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; by default the cores it may use")
    parser.add_argument("--rounds", type=int, default=15, help="pairs a comparison")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long a chunk lasts")
    parser.add_argument("--busy", type=float, default=BUSY, help="cores that others may take in a round that counts")
    parser.add_argument("--out", type=Path, default=None, help="where the JSON goes instead of benchmarks/results")
    parser.add_argument("--smoke", action="store_true", help="a small problem and one round: shows only that it runs")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.rounds, chosen.seconds, chosen.busy = 1, 0.0, math.inf
    return chosen


def write_result(name: str, found: dict[str, Any], *, out: Path | None, smoke: bool, machine: dict[str, Any]) -> Path:
    """One JSON file: `benchmarks/results/<name>-<date>.json` unless `out` says otherwise."""
    now = datetime.now(UTC)
    path = out or RESULTS / f"{name}-{now:%Y-%m-%d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"benchmark": name, "date": now.isoformat(timespec="seconds"), "smoke": smoke, "machine": machine}
    path.write_text(json.dumps({**about, **found}, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")
    return path


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Hardware, versions and what else keeps the machine busy. Imports torch."""
    from micrographia.core.runtime import allowed_cores, busy_warning, provenance

    return {
        **provenance(None, device, "float32", threads),
        "numpy": np.__version__,
        "cores": allowed_cores(),
        "memory_gib": _memory_gib(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "busy": busy_warning(threads),
        "system": platform.system(),
    }


def _memory_gib() -> float | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


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
