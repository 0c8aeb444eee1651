"""Claim, Figure and Run: what a lab hands to the faces.

A Claim is a published statement with its value; `judge` holds it against a measurement. A Figure is the data of a
picture; the faces draw it. A Run is a finished or running piece of work, as read from its folder by `store`.
Published values live in each lab's `claims.toml` and nowhere else.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from micrographia.core.errors import BadConfig, BadShape

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


NO_DIFFERENCE = "; no difference: networks lie on both sides of the bound"


def _plain(value: Value) -> str:
    """A value in a sentence."""
    if isinstance(value, Mapping):
        return f"{_plain(value['median'])} ({_plain(value['low'])} to {_plain(value['high'])})"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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


# What each kind of Figure needs in `data`, beside the optional entries named in `OPTIONAL`.
# Arrays may carry one more leading axis, `frames`, when they are named in `Figure.framed`.
REQUIRED: dict[str, tuple[str, ...]] = {
    "lines": ("x", "y", "names", "x_label", "y_label"),  # x (n,) or (series, n); y (series, n), NaN leaves a gap
    "bars": ("y", "names", "x_label", "y_label"),  # y (n,) with one name a bar, or (series, n) with `series` names
    "histogram": ("values", "x_label", "y_label"),  # values (n,)
    "heatmap": ("z", "panels", "x_label", "y_label"),  # z (panels, rows, columns); rows upward along y
    "scatter": ("x", "y", "x_label", "y_label"),  # x, y (n,)
    "tokens": ("tokens", "values", "names", "value_label"),  # tokens: texts of each row; values (row, n); a name a row
    "attention": ("z", "panels", "tokens"),  # z (panels, query, key); tokens: the text at each position, in order
    "graph": ("nodes", "levels", "sources", "targets", "weights"),  # nodes: names; levels (nodes,): the lowest first;
    # sources, targets (edges,): places in nodes; weights (edges,): positive raises, negative lowers
    "table": ("columns", "rows"),  # columns: names; rows: lists of str, int, float, bool or None
    "explorer": ("folded", "full", "full_frames", "labels", "key_frequencies"),  # see labs/grokking/figures
}
OPTIONAL: dict[str, tuple[str, ...]] = {
    "lines": ("log_x", "log_y", "low", "high", "bands", "marks", "highlight", "hidden"),
    # low, high (series, n): an interval; bands: [{"name", "start", "end"}]; marks: [{"name", "x"}];
    # highlight: indices of series drawn strong; hidden: indices of series shown only from the legend
    "bars": ("highlight", "series", "log_y", "low", "high", "reference"),  # reference: [{"name", "y"}]
    "histogram": ("bins", "marks", "log_y"),
    "heatmap": ("x_names", "y_names", "colour", "midpoint", "value_label", "texts"),
    # colour: "diverging" or "sequential"; texts: a word in each cell, as [panel][row][column]
    "scatter": ("colour", "colour_label", "names", "log_x", "log_y", "categorical", "diagonal"),
    # colour (n,); diagonal: draw y = x, for an estimate beside the truth
    "tokens": ("colour", "midpoint"),
    "attention": ("colour", "midpoint", "value_label"),
    "graph": ("level_names", "values", "weight_label"),  # level_names: [{"level", "name"}]; values (nodes,)
    "table": ("highlight",),
    "explorer": ("modulus", "full_train", "counts_train", "counts_all", "epochs"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """The data of one picture, drawn alike by terminal, report, notebook and web.

    `data` holds strings, numbers, lists and numpy arrays under the names in `REQUIRED[kind]` and `OPTIONAL[kind]`.
    With `frames` the picture has a slider: each array named in `framed` carries a leading axis of that length.
    """

    name: str
    kind: str
    title: str
    caption: str
    """What to see, in plain words."""
    source: str = ""
    """Paper and figure that this repeats, if any."""
    claims: tuple[str, ...] = ()
    """Ids of the claims that the picture bears on."""
    data: Mapping[str, Any]
    frames: tuple[str, ...] = ()
    framed: tuple[str, ...] = ()
    group: str = ""
    """The section of the report it belongs to."""

    def __post_init__(self) -> None:
        if self.kind not in REQUIRED:
            raise BadConfig(f"Figure {self.name!r} is of kind {self.kind!r}; known are {', '.join(REQUIRED)}.")
        missing = set(REQUIRED[self.kind]) - set(self.data)
        unknown = set(self.data) - set(REQUIRED[self.kind]) - set(OPTIONAL[self.kind])
        if missing or unknown:
            raise BadConfig(
                f"Figure {self.name!r} ({self.kind}) lacks {sorted(missing)}, has unknown {sorted(unknown)}."
            )
        for name in self.framed:
            if name not in self.data:
                raise BadConfig(f"Figure {self.name!r} has frames of {name!r}, but its data are {sorted(self.data)}.")
            if len(self.data[name]) != len(self.frames):
                raise BadShape(
                    f"Figure {self.name!r}: {name!r} has {len(self.data[name])} frames, not {len(self.frames)}."
                )


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
