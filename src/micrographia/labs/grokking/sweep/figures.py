"""The figures of a sweep: how long it took, in which phases, on which frequencies, and whether it was Fourier.

Medians over seeds stand between the ends of their interval; a gap is a median that lies beyond the end of the runs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core import figures
from micrographia.core.figures import Figure, heatmap, lines, table
from micrographia.labs.grokking.sweep.config import SweepConfig, varying
from micrographia.methods.phases import ORDERED

Row = Mapping[str, Any]
SEEDS, CHOICES, TABLES = "Over seeds", "Over choices", "Tables"


def of_sweep(plan: SweepConfig, rows: Sequence[Row], groups: Sequence[Row]) -> list[Figure]:
    """All figures of a finished sweep."""
    times, *others = (_bars(name, groups, **about) for name, about in BARS.items())
    numeric = [name for name in varying(plan) if not isinstance(groups[0][name], str)]
    done = [row for row in rows if row["status"] == "finished"]
    return [
        times,
        *(along_axis(plan, rows, groups, name) for name in numeric),
        *others,
        *([key_frequencies(done)] if done else []),
        table("groups", "The settings compared", groups, columns=GROUP_COLUMNS, group=TABLES, caption=GROUPS),
        table(
            "members", "Every network", [_member(row) for row in rows], columns=MEMBER_COLUMNS, group=TABLES,
            caption="A dash: it did not happen within the run, or could not be measured.",
        ),
    ]  # fmt: skip


BARS: dict[str, dict[str, Any]] = {
    "time_to_grok": {
        "title": "Epochs to memorise, epochs to grok",
        "caption": "First epoch with a training loss below 0.01, and with a test accuracy of 99 %: medians over seeds "
        "with their interval. No bar: the median network never got there within the run.",
        "series": {"epochs_to_memorise": "to memorise", "epochs_to_grok": "to grok"},
        "y_label": "epoch",
        "log_y": True,
        "group": SEEDS,
    },
    "phase_boundaries": {
        "title": "Phase boundaries over seeds",
        "caption": "Where the phases end, by change points: medians over seeds with their interval. No bar: not within "
        "the run.",
        "series": {name: name for name in ORDERED},
        "y_label": "epoch",
        "log_y": True,
        "group": SEEDS,
    },
    "fourier_shares": {
        "title": "Networks that show the Fourier algorithm",
        "caption": "Fraction of the networks that generalise by the cosines of their key frequencies, and by nothing "
        "else, with Wilson's interval; beside it how often as many other frequencies would pass. No bar: the operation "
        "has no characters, or no network finished.",
        "series": {"fourier": "its key frequencies", "null_passes": "random sets of other frequencies"},
        "y_label": "fraction of networks",
        "group": CHOICES,
    },
    "end_losses": {
        "title": "Losses at the end",
        "caption": "A clean circuit has a low restricted loss and trig loss (key frequencies alone) and a high "
        "excluded loss (training pairs, without them). Medians over seeds with their interval.",
        "series": {"test_loss": "test", "restricted_loss": "restricted", "trig_loss": "trig",
                   "excluded_loss": "excluded"},
        "y_label": "loss (nats)",
        "log_y": True,
        "group": CHOICES,
    },
}  # fmt: skip
GROUPS = "Counts are of finished networks; epochs are medians over seeds, in brackets the ends of their interval."
GROUP_COLUMNS = {
    "group": "setting", "networks": "networks", "failed": "failed", "grokked": "grokked",
    "epochs_to_grok": "epochs to grok", "n_key_frequencies": "key frequencies", "restricted_loss": "restricted loss",
    "excluded_loss": "excluded loss", "fourier": "Fourier algorithm",
}  # fmt: skip
MEMBER_COLUMNS = {
    "member": "network", "epochs_to_memorise": "to memorise", "epochs_to_grok": "to grok",
    "test_accuracy": "test accuracy", "key_frequencies": "key frequencies", "restricted_loss": "restricted loss",
    "excluded_loss": "excluded loss", "trig_loss": "trig loss", "shown": "Fourier", "reason": "why",
}  # fmt: skip


def _member(row: Row) -> Row:
    return {**row, **(row["fourier"] if row["status"] == "finished" else {"reason": f"failed: {row['error']}"})}


def _bars(name: str, groups: Sequence[Row], *, title: str, series: Mapping[str, str], **more: Any) -> Figure:
    """Bars for each setting, with the ends of their intervals where those are known, else none."""
    found = np.array([[_interval({**each, **each["phases"]}[field]) for each in groups] for field in series])
    y, low, high = np.moveaxis(np.where(np.isnan(found), found[..., :1], found), -1, 0)
    return figures.bars(
        name, title, y, names=[group["group"] for group in groups], series=list(series.values()), low=low, high=high,
        x_label="setting", **more,
    )  # fmt: skip


def _interval(entry: Row | float | None) -> tuple[float, float, float]:
    """The figure of a group, a median or a fraction, and its ends; NaN for each that is not known."""
    if not isinstance(entry, Mapping):
        entry = {"median": entry}
    middle = entry["median"] if "median" in entry else entry["count"] / entry["of"] if entry["of"] else None
    values = (middle, entry.get("low"), entry.get("high"))
    first, low, high = (math.nan if value is None else float(value) for value in values)
    return first, low, high


def along_axis(plan: SweepConfig, rows: Sequence[Row], groups: Sequence[Row], axis: str) -> Figure:
    """Epochs to grok against one numeric axis: each seed, and the median with its interval.

    With several axes crossed there is a median for each combination of the others, and the seeds are left out.
    """
    label, x = axis.replace("_", " "), sorted({group[axis] for group in groups})
    others = [name for name in varying(plan) if name != axis]
    curves: dict[tuple[Any, ...], dict[Any, Any]] = {}
    for group in groups:
        y, low, high = _interval(group["epochs_to_grok"])
        high = plan.base.epochs if math.isnan(high) and not math.isnan(y) else high
        curves.setdefault(tuple(group[name] for name in others), {})[group[axis]] = y, low, high
    medians = {key: curve for key, curve in curves.items() if len(curve) > 1}
    named = {
        ", ".join(f"{name.replace('_', ' ')} {x}" for name, x in zip(others, key)): medians[key] for key in medians
    }
    if len(medians) == 1:
        [(key, curve)] = medians.items()
        seeds = _by_seed([row for row in rows if tuple(row[name] for name in others) == key], axis)
        named = {"median of the seeds": curve, **seeds}
    nothing = (math.nan,) * 3
    y, low, high = np.array([[curve.get(at, nothing) for at in x] for curve in named.values()]).transpose(2, 0, 1)
    return lines(
        f"grok_by_{axis}", f"Epochs to grok by {label}", np.array(x, dtype=np.float64), y, names=list(named), low=low,
        high=high, highlight=list(range(len(medians))), x_label=label, y_label="epochs to grok", log_y=True,
        caption="Strong: the median over seeds, with its interval, which ends at the length of the run where it is "
        f"open. Thin: each seed. A gap: not within the {plan.base.epochs:,} epochs of the run.",
        source="Nanda et al. 2023, appendix D", group=CHOICES,
    )  # fmt: skip


def _by_seed(rows: Sequence[Row], axis: str) -> dict[str, dict[Any, Any]]:
    found: dict[str, dict[Any, Any]] = {}
    for row in rows:
        epoch = row.get("epochs_to_grok")
        found.setdefault(f"seed {row['seed']}", {})[row[axis]] = (
            math.nan if epoch is None else epoch,
            math.nan,
            math.nan,
        )
    return found


def key_frequencies(rows: Sequence[Row]) -> Figure:
    """Which frequencies each network ended on: 1 key, 0.4 present but not key."""
    n = [(row["modulus"] - (row["operation"] == "multiply")) // 2 for row in rows]
    z = np.full((len(rows), max(n)), np.nan, dtype=np.float32)
    for line, row, n_own in zip(z, rows, n):
        line[:n_own] = 0.0
        line[[k - 1 for k in row["present"]]] = 0.4
        line[[k - 1 for k in row["key_frequencies"]]] = 1.0
    return heatmap(
        "key_frequencies", "Key frequencies of every network", z, x=[str(k + 1) for k in range(max(n))],
        y=[row["member"] for row in rows], x_label="frequency k", y_label="network", group="Frequencies",
        caption="Strong colour: key; faint: present, but carried by other frequencies' neurons. Where every seed makes "
        "its own choice, no column is strong all the way down.",
        source="Nanda et al. 2023, appendix C",
    )  # fmt: skip
