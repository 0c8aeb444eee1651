"""The figures of a sweep as data: how long it took, in which phases, on which frequencies, and whether it was Fourier.

Medians over seeds stand between the ends of their interval; a gap is a median that lies beyond the end of the runs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.figures import Figure
from micrographia.labs.grokking.sweep.config import SweepConfig, varying
from micrographia.labs.grokking.sweep.rows import PHASES

Row = Mapping[str, Any]
Results = Mapping[str, Any]


def of_sweep(plan: SweepConfig, results: Results) -> list[Figure]:
    """All figures of a finished sweep."""
    rows, groups = results["members"], results["groups"]
    done = [row for row in rows if row["status"] == "finished"]
    figures = [time_to_grok(groups), *(along_axis(plan, rows, groups, name) for name in _numeric(plan))]
    figures += [phase_boundaries(groups), fourier_shares(groups), end_losses(groups)]
    figures += [key_frequencies(done)] if done else []
    return [*figures, group_table(groups), member_table(rows)]


def time_to_grok(groups: Sequence[Row]) -> Figure:
    """Epochs to memorise and to grok by setting."""
    names = ("epochs_to_memorise", "epochs_to_grok")
    return _bars(
        "time_to_grok", "Epochs to memorise, epochs to grok",
        "First epoch with a training loss below 0.01, and with a test accuracy of 99 %: medians over seeds with their "
        "interval. No bar: the median network never got there within the run.",
        groups, [[group[name] for group in groups] for name in names],
        series=["to memorise", "to grok"], y_label="epoch", log_y=True, group="Over seeds",
    )  # fmt: skip


def along_axis(plan: SweepConfig, rows: Sequence[Row], groups: Sequence[Row], axis: str) -> Figure:
    """Epochs to grok against one numeric axis: each seed, and the median with its interval.

    With several axes crossed there is a median for each combination of the others, and the seeds are left out.
    """
    others = [name for name in varying(plan) if name != axis]
    lines: dict[tuple[Any, ...], dict[Any, Row]] = {}
    for group in groups:
        lines.setdefault(tuple(group[name] for name in others), {})[group[axis]] = group["epochs_to_grok"]
    lines = {key: line for key, line in lines.items() if len(line) > 1}
    x = sorted({value for line in lines.values() for value in line})
    medians = {
        _line_name(others, key, alone=len(lines) == 1): [line.get(value) for value in x] for key, line in lines.items()
    }
    seeds = _seed_lines(rows, others, next(iter(lines)), axis, x) if len(lines) == 1 else {}
    data = {
        "x": np.array(x, dtype=np.float64),
        "y": np.array([[_number(m, "median") for m in line] for line in medians.values()] + list(seeds.values())),
        "low": np.array([[_number(m, "low") for m in line] for line in medians.values()] + [_nans(x)] * len(seeds)),
        "high": np.array(
            [[_upper(m, plan) for m in line] for line in medians.values()] + [_nans(x)] * len(seeds), dtype=np.float64
        ),
        "names": [*medians, *seeds],
        "highlight": list(range(len(medians))),
        "x_label": axis.replace("_", " "),
        "y_label": "epochs to grok",
        "log_y": True,
    }
    return Figure(
        name=f"grok_by_{axis}",
        kind="lines",
        title=f"Epochs to grok by {axis.replace('_', ' ')}",
        caption=(
            "Strong: the median over seeds, with its interval, which ends at the length of the run where it is open. "
            f"Thin: each seed. A gap: not within the {plan.base.epochs:,} epochs of the run."
        ),
        source="Nanda et al. 2023, appendix D",
        data=data,
        group="Over choices",
    )


def phase_boundaries(groups: Sequence[Row]) -> Figure:
    return _bars(
        "phase_boundaries", "Phase boundaries over seeds",
        "Where the phases end, by change points: medians over seeds with their interval. No bar: not within the run.",
        groups, [[group["phases"][phase] for group in groups] for phase in PHASES],
        series=list(PHASES), y_label="epoch", log_y=True, group="Over seeds",
    )  # fmt: skip


def fourier_shares(groups: Sequence[Row]) -> Figure:
    """How many networks of each setting show the Fourier algorithm, and how many would by chance."""
    shares = [
        {"median": _ratio(g["fourier"]), "low": g["fourier"]["low"], "high": g["fourier"]["high"]} for g in groups
    ]
    nulls = [{"median": group["null_passes"], "low": None, "high": None} for group in groups]
    return _bars(
        "fourier_shares", "Networks that show the Fourier algorithm",
        "Share of the networks that generalise by the cosines of their key frequencies, and by nothing else, with "
        "Wilson's interval; beside it how often as many other frequencies would pass. No bar: the operation has no "
        "characters, or no network finished.",
        groups, [shares, nulls], series=["its key frequencies", "random sets of other frequencies"],
        y_label="share of networks", group="Over choices",
    )  # fmt: skip


def end_losses(groups: Sequence[Row]) -> Figure:
    names = {"test_loss": "test", "restricted_loss": "restricted", "trig_loss": "trig", "excluded_loss": "excluded"}
    return _bars(
        "end_losses", "Losses at the end",
        "A clean circuit has a low restricted loss and trig loss (key frequencies alone) and a high excluded loss "
        "(training pairs, without them). Medians over seeds with their interval.",
        groups, [[group[name] for group in groups] for name in names],
        series=list(names.values()), y_label="loss (nats)", log_y=True, group="Over choices",
    )  # fmt: skip


def key_frequencies(rows: Sequence[Row]) -> Figure:
    """Which frequencies each network ended on: 1 key, 0.4 present but not key."""
    order = {row["member"]: (row["modulus"] - (row["operation"] == "multiply")) // 2 for row in rows}
    z = np.full((len(rows), max(order.values())), np.nan, dtype=np.float32)
    for line, row in zip(z, rows):
        line[: order[row["member"]]] = 0.0
        line[[k - 1 for k in row["present"]]] = 0.4
        line[[k - 1 for k in row["key_frequencies"]]] = 1.0
    return Figure(
        name="key_frequencies",
        kind="heatmap",
        title="Key frequencies of every network",
        caption="Strong colour: key; faint: present, but carried by other frequencies' neurons. Where every seed makes "
        "its own choice, no column is strong all the way down.",
        source="Nanda et al. 2023, appendix C",
        data={
            "z": z[None],
            "panels": [""],
            "x_label": "frequency k",
            "y_label": "network",
            "x_names": [str(k) for k in range(1, z.shape[1] + 1)],
            "y_names": [row["member"] for row in rows],
            "colour": "sequential",
        },
        group="Frequencies",
    )


def group_table(groups: Sequence[Row]) -> Figure:
    """One line a setting."""
    columns = ["setting", "networks", "failed", "grokked", "epochs to grok", "key frequencies", "restricted loss",
               "excluded loss", "Fourier algorithm"]  # fmt: skip
    cells = [
        [
            group["group"],
            group["networks"],
            group["failed"],
            _of(group["grokked"]),
            _span(group["epochs_to_grok"]),
            group["n_key_frequencies"]["median"],
            group["restricted_loss"]["median"],
            group["excluded_loss"]["median"],
            _of(group["fourier"]),
        ]
        for group in groups
    ]
    caption = "Counts are of finished networks; epochs are medians over seeds, in brackets the ends of their interval."
    return _table("groups", "The settings compared", caption, columns, cells)


def member_table(rows: Sequence[Row]) -> Figure:
    """One line a network, failures among them."""
    columns = ["network", "to memorise", "to grok", "test accuracy", "key frequencies", "restricted loss",
               "excluded loss", "trig loss", "Fourier", "why"]  # fmt: skip
    caption = "A dash: it did not happen within the run, or could not be measured."
    return _table("members", "Every network", caption, columns, [[row["member"], *_member_cells(row)] for row in rows])


def _member_cells(row: Row) -> list[Any]:
    if row["status"] != "finished":
        return [None] * 8 + [f"failed: {row['error']}"]
    names = ("restricted_loss", "excluded_loss", "trig_loss")
    keys = ", ".join(map(str, row["key_frequencies"])) or "none"
    return [
        row["epochs_to_memorise"], row["epochs_to_grok"], row["test_accuracy"], keys, *(row[name] for name in names),
        row["fourier"]["shown"], row["fourier"]["reason"],
    ]  # fmt: skip


def _table(name: str, title: str, caption: str, columns: list[str], cells: list[list[Any]]) -> Figure:
    data = {"columns": columns, "rows": cells}
    return Figure(name=name, kind="table", title=title, caption=caption, data=data, group="Tables")


def _bars(
    name: str, title: str, caption: str, groups: Sequence[Row], series_of_medians: Sequence[Sequence[Row]], **more: Any
) -> Figure:
    group = more.pop("group")
    ends = {
        entry: np.array([[_number(m, key) for m in medians] for medians in series_of_medians])
        for entry, key in (("y", "median"), ("low", "low"), ("high", "high"))
    }
    ends["low"], ends["high"] = (np.where(np.isnan(ends[end]), ends["y"], ends[end]) for end in ("low", "high"))
    if "series" not in more:
        ends = {entry: values[0] for entry, values in ends.items()}
    data = {**ends, "names": [each["group"] for each in groups], "x_label": "setting", **more}
    return Figure(name=name, kind="bars", title=title, caption=caption, data=data, group=group)


def _seed_lines(
    rows: Sequence[Row], others: Sequence[str], key: tuple[Any, ...], axis: str, x: Sequence[Any]
) -> dict[str, list[float]]:
    here = [row for row in rows if tuple(row[name] for name in others) == key]
    found: dict[str, list[float]] = {}
    for row in here:
        line = found.setdefault(f"seed {row['seed']}", _nans(x))
        epoch = row.get("epochs_to_grok")
        line[x.index(row[axis])] = math.nan if epoch is None else epoch
    return found


def _numeric(plan: SweepConfig) -> list[str]:
    return [name for name, axis in varying(plan).items() if axis.numeric]


def _line_name(names: Sequence[str], values: Sequence[Any], *, alone: bool) -> str:
    if alone:
        return "median of the seeds"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in zip(names, values))


def _nans(x: Sequence[Any]) -> list[float]:
    return [math.nan] * len(x)


def _number(found: Row | None, entry: str) -> float:
    value = None if found is None else found[entry]
    return math.nan if value is None else float(value)


def _upper(found: Row | None, plan: SweepConfig) -> float:
    """The interval's end; the length of the run where it is open though the median was reached."""
    high = _number(found, "high")
    return float(plan.base.epochs) if math.isnan(high) and not math.isnan(_number(found, "median")) else high


def _ratio(found: Row) -> float | None:
    return found["count"] / found["of"] if found["of"] else None


def _of(found: Row) -> str:
    return f"{found['count']} of {found['of']}"


def _span(found: Row) -> str:
    if found["median"] is None:
        return "never" if found["never"] else "–"
    high = "never" if found["high"] is None else f"{found['high']:,.0f}"
    return f"{found['median']:,.0f} ({found['low']:,.0f} to {high})"
