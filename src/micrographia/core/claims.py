"""Claims: from what a lab measured to verdicts and sentences, and the Run that holds them.

A Claim is a published statement with its value; published values live in each lab's `claims.toml` and nowhere else. A
lab measures `Measures`, a figure with its null for each claim id; `over_networks` combines those of several networks;
`judge_all` holds them against the claims; `headline` gives the verdicts in the sentences of `claims.toml`. A Run is a
finished or running piece of work, as read from its folder by `store`.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from micrographia.core.errors import BadConfig
from micrographia.core.figures import Figure

Verdict = Literal["holds", "fails", "not run"]
Kind = Literal["exact", "within", "above", "below", "ordering"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Value = bool | int | float | str | Sequence[Any] | Mapping[str, Any] | None
"""What is measured or published. A figure over several networks is a mapping with `median`, `low` and `high`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A published statement and the figure it stands on.

    `kind` says how a measurement is held against `published`: *exact* (equal), *within* (`tolerance` away at most, a
    share of the published value when `relative`; for lists: at most `tolerance` of the published members missing),
    *above*, *below* (strictly, `tolerance` widening the bound), *ordering* (the measured names come in this order).
    """

    id: str
    source: str
    text: str
    published: Value
    kind: Kind
    tolerance: float = 0.0
    relative: bool = False
    presets: tuple[str, ...] = ()
    """The presets at which it is judged; elsewhere it is *not run*."""
    when: Mapping[str, Any] = field(default_factory=dict)
    """Config fields that must have these values, for instance the seed of the published run."""
    null: str = ""
    """What the measurement is compared with to mean something: a baseline, a control or a null."""
    holds: str = ""
    """The sentence of the summary where it holds, with {measured}, {null} and {published} to be filled in."""
    fails: str = ""
    """The same where it fails. A claim without a sentence is in the table alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A Claim beside what was measured. `null_measured` is the same figure for the claim's null or baseline."""

    claim: Claim
    measured: Value
    verdict: Verdict
    null_measured: Value = None

    @property
    def undecided(self) -> bool:
        """Whether the ends of the measurement lie on both sides of a bound: then it shows no difference from it."""
        found = self.measured
        if self.claim.kind not in ("above", "below") or not isinstance(found, Mapping):
            return False
        return found["low"] <= _bound(self.claim) <= found["high"]

    @property
    def sentence(self) -> str:
        """The claim's sentence for its verdict, with the figures filled in; empty where there is none."""
        template = {"holds": self.claim.holds, "fails": self.claim.fails, "not run": ""}[self.verdict]
        figures = {"measured": self.measured, "null": self.null_measured, "published": self.claim.published}
        filled = template.format(**{name: _Filled(value) for name, value in figures.items()})
        return f"{filled.rstrip('.')}{NO_DIFFERENCE}." if filled and self.undecided else filled

    def __str__(self) -> str:
        """The statement, what was published and what was measured, and the verdict with why it is not one."""
        claim = self.claim
        bound = f"{claim.kind} " if claim.kind in ("above", "below") else ""
        of = [", ".join(claim.presets), *(f"{name} {value}" for name, value in claim.when.items())]
        about = f" here: it is judged at {', '.join(of)}" if self.verdict == "not run" else ""
        about += NO_DIFFERENCE if self.undecided else ""
        return (
            f"{claim.text}\n  published {bound}{_plain(claim.published)}, measured {_plain(self.measured)}: "
            f"{self.verdict}{about}"
        )

    def as_json(self) -> dict[str, Any]:
        claim = self.claim
        return {
            "id": claim.id,
            "source": claim.source,
            "text": claim.text,
            "published": claim.published,
            "kind": claim.kind,
            "tolerance": claim.tolerance,
            "relative": claim.relative,
            "measured": self.measured,
            "null": claim.null,
            "null_measured": self.null_measured,
            "verdict": self.verdict,
        }


NO_DIFFERENCE = "; no difference: the bound lies within the interval"


def _plain(value: Value) -> str:
    """A value in a sentence."""
    if isinstance(value, Mapping):
        return f"{_plain(value['median'])} ({_plain(value['low'])} to {_plain(value['high'])})"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Filled:
    """A figure in the template of a sentence: any format of a number holds for it, whatever it is.

    >>> template = "{0:.2f}"
    >>> [template.format(_Filled(x)) for x in (0.5, None, [1, 2], {"median": 0.5, "low": 0.25, "high": 1.0})]
    ['0.50', 'unknown', '1, 2', '0.50 (0.25 to 1.00)']
    """

    def __init__(self, value: Value) -> None:
        self.value = value

    def __format__(self, spec: str) -> str:
        value = self.value
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "unknown"
        if isinstance(value, Mapping):
            middle, low, high = (format(_Filled(value[name]), spec) for name in ("median", "low", "high"))
            return middle if low == middle == high else f"{middle} ({low} to {high})"
        if isinstance(value, Sequence) and not isinstance(value, str):
            return ", ".join(format(_Filled(part), spec) for part in value) or "none"
        if isinstance(value, str | bool):
            return str(value)
        return format(value, spec) if spec and not isinstance(value, int) else _plain(value)


class Measured(NamedTuple):
    """A figure that a claim is judged by. `null`: the same figure for the claim's null, control or baseline.

    `raw` is the figure before the null was subtracted, where a lab judges what is left above its null. `taken` is False
    where this work could not take it at all, so that the claim is not run.
    """

    value: Value
    null: Value = None
    raw: Value = None
    taken: bool = True


Measures = Mapping[str, Measured]
"""Figures by the id of their claim. What has no claim is stored and shown all the same."""


def above_null(value: float, null: float) -> float:
    """What is left of a figure above its null; a null below zero is none.

    >>> [above_null(0.5, 0.25), above_null(0.5, -0.25), above_null(-0.5, -0.75)]
    [0.25, 0.5, -0.5]
    """
    return value if null <= 0 else value - null


def over_networks(each: Sequence[Measures]) -> dict[str, Measured]:
    """The same figures over several networks: the median with its interval, by `intervals.median`; NaN is left out.

    None where no network has a figure. Raises BadConfig for figures that are no numbers, which have no median.
    """
    names = dict.fromkeys(name for measures in each for name in measures)
    found = {name: [measures[name] for measures in each if name in measures] for name in names}
    figures = {name: zip(*((each.value, each.null, each.raw) for each in rows)) for name, rows in found.items()}
    combined = {name: [_combined(name, column) for column in rows] for name, rows in figures.items()}
    return {name: Measured(value, null, raw) for name, (value, null, raw) in combined.items()}


def _combined(name: str, column: Sequence[Value]) -> Value:
    numbers = [value for value in column if value is not None]
    if odd := [value for value in numbers if not isinstance(value, int | float)]:
        raise BadConfig(f"The figures of {name!r} over networks must be numbers. Found {odd[0]!r}.")
    return median_interval(float(value) for value in numbers if isinstance(value, int | float))


def median_interval(values: Iterable[float]) -> dict[str, float] | None:
    """The median with its interval of 95 % as `median`, `low` and `high`, NaN left out; None of nothing.

    Of fewer than six values no interval is narrower than from the least to the greatest, so that is given.
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    from micrographia.core.intervals import median  # loads scipy and torch, which reading claims does without

    found = median(known)
    return {"median": found.estimate, "low": found.low, "high": found.high}


def judge_all(path: Path, measures: Measures, *, preset: str, config: Mapping[str, Any]) -> list[Judged]:
    """Every claim of a `claims.toml` held against what was measured; what was not measured was not reproduced."""
    nothing = Measured(None)
    found = [(claim, measures.get(claim.id, nothing)) for claim in load_claims(path)]
    return [
        judge(claim, _number(own.value), preset=own.taken * preset, config=config, null_measured=_number(own.null))
        for claim, own in found
    ]


def _number(value: Value) -> Value:
    """NaN as None: what has no value is stored as none."""
    return None if isinstance(value, float) and math.isnan(value) else value


def headline(judged: Iterable[Judged]) -> list[str]:
    """The sentences of the claims that were judged, in their order."""
    return [each.sentence for each in judged if each.sentence]


def load_claims(path: Path) -> tuple[Claim, ...]:
    """The `[[claim]]` tables of a `claims.toml`, in the order of the file."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
    for table in tables:
        if table["kind"] not in KINDS:
            raise BadConfig(f"Claim {table['id']!r} is of kind {table['kind']!r}; known are {', '.join(KINDS)}.")
    claims = tuple(Claim(**{**table, "presets": tuple(table.get("presets", ()))}) for table in tables)
    names = [claim.id for claim in claims]
    if len(set(names)) != len(names):
        raise BadConfig(f"{path} names a claim twice: {sorted(n for n in set(names) if names.count(n) > 1)}.")
    return claims


def judge(
    claim: Claim, measured: Value, *, preset: str, config: Mapping[str, Any], null_measured: Value = None
) -> Judged:
    """Hold one claim against a measurement. *not run* where the preset or the config is not the claim's.

    A measurement of None or NaN, at the claim's own preset, fails: what could not be measured was not reproduced. One
    over several networks is judged by its median.
    """
    if preset not in claim.presets or any(config.get(name) != value for name, value in claim.when.items()):
        return Judged(claim=claim, measured=measured, verdict="not run", null_measured=null_measured)
    figure = measured["median"] if isinstance(measured, Mapping) else measured
    holds = figure is not None and _holds(claim, figure)
    return Judged(claim=claim, measured=measured, verdict="holds" if holds else "fails", null_measured=null_measured)


def _holds(claim: Claim, measured: Any) -> bool:
    published: Any = claim.published
    if claim.kind in ("exact", "ordering"):
        if isinstance(published, Sequence) and not isinstance(published, str):
            return list(measured) == list(published)
        return bool(measured == published)
    if claim.kind == "within" and isinstance(published, Sequence):
        return len(set(published) - set(measured)) <= claim.tolerance
    if not math.isfinite(measured):
        return False
    if claim.kind == "within":
        return abs(measured - published) <= _slack(claim)
    return measured > _bound(claim) if claim.kind == "above" else measured < _bound(claim)


def _slack(claim: Claim) -> float:
    published: Any = claim.published
    return claim.tolerance * abs(published) if claim.relative else claim.tolerance


def _bound(claim: Claim) -> float:
    """Of a claim of kind *above* or *below*, with its tolerance."""
    published: Any = claim.published
    return published - _slack(claim) if claim.kind == "above" else published + _slack(claim)


Status = Literal["running", "interrupted", "finished", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A piece of work on disk. `results` is the object that `--json` prints, less the paths; None until finished."""

    path: Path
    lab: str
    preset: str
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    status: Status
    results: Mapping[str, Any] | None = None
    claims: tuple[Judged, ...] = ()
    figures: tuple[Figure, ...] = ()

    def __repr__(self) -> str:
        return f"Run({self.lab}, {self.preset}, {self.status}, {str(self.path)!r})"

    @property
    def summary(self) -> list[str]:
        """What was found, in a few sentences; empty while there are no results."""
        return list((self.results or {}).get("summary") or [])
