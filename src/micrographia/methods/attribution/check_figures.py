"""Figures of `calibrate`: correlations by kind of Site, joint effects of whole Sites, flags, and a scatter plot.

`Calibration.figures` gives those of one direction; the tables take the rows of several. Rows are records of plain
values, as they are stored in a Run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.titles import MODES, Mode
from micrographia.methods.attribution.agreement import APART, Checked, Flag, Whole, compared

GROUP = "Calibration"
WHOLE, FLAGS = "Joint effects of whole Sites", "Where estimate and exact effect disagree"
FEW = 8
"""Whole Sites in the first table; a second table has all of them."""
IN_SERIES = "in several layers, one behind the other, this is expected"
Row = Mapping[str, Any]


def calibration_row(each: Checked, mode: Mode) -> dict[str, Any]:
    """The agreement of estimate and exact effect for one kind of Site."""
    row: dict[str, Any] = {"kind": each.kind, "mode": mode, "checked": len(each.patches), "n_top": each.n_top}
    row |= {"pearson": each.pearson._asdict(), "spearman": each.spearman._asdict(), "slope": each.slope}
    return row | {
        "missed": {**each.missed._asdict(), "most": each.missed.most, "needed": each.missed.needed},
        "together": each.together,
    }


def calibration_table(rows: Sequence[Row]) -> Figure:
    """Correlations of estimate and exact effect, a row a kind of Site and direction; a bound where there is one."""
    columns = {name: name for name in ("kind", "mode", "checked")}
    columns |= {"pearson": "Pearson", "spearman": "Spearman", "slope": "slope", "bound": "large, unseen"}
    cells = [
        {**row, **{name: _agreement(row[name]) for name in ("pearson", "spearman")}, "bound": _bound(row["missed"])}
        for row in rows
    ]
    spread = any(row["pearson"].get("low") is not None for row in rows)
    few = any(row["missed"]["needed"] is not None for row in rows)
    caption = " ".join([SAMPLE, (SPREAD if spread else NO_SPREAD) + ORDER, BOUNDED, *([TOO_FEW] * few)])
    title = "Estimates against exact patches"
    return figures.table("calibration", title, cells, columns=columns, caption=caption, group=GROUP)


SAMPLE = (
    "Some places were patched exactly, the largest estimates and others drawn at random, and correlations are weighted "
    "for how places were drawn. Pearson and the slope, the exact effect per estimate, tell of sizes; Spearman of order."
)
SPREAD = "Intervals of 95 % are over prompts"
NO_SPREAD = "Of one prompt pair there is no interval over prompts"
ORDER = "; that of Spearman also covers the drawing of places."
BOUNDED = "The last column bounds how many of the places that were not patched may have a large effect."
TOO_FEW = "Where too few were drawn for a useful bound, it says how many would be needed to bound it at a tenth."


def _agreement(found: Row) -> Any:
    return found["value"] if found.get("low") is None else dict(found)


def _bound(missed: Row) -> str:
    if missed["drawn"] == missed["of"]:
        return "none"
    if missed["needed"] is not None:
        return f"? {missed['needed']:,} needed"
    return f"≤ {missed['most']:,} of {missed['of']:,}"


def whole_row(whole: Whole, each: Checked, flags: Sequence[Flag], mode: Mode) -> dict[str, Any]:
    """The effect of patching a whole Site, or all of a kind, beside the sum of single effects.

    `so` is the comparison of the two, and `meaning` the mechanism that it suggests, if any.
    """
    so = compared(whole, each.missed.threshold)
    so = COMPARED.get(so, so)
    flag = next((flag for flag in flags if flag.patch == whole.patch), None)
    meaning = flag.meaning if flag else IN_SERIES if so == "less together" and len(whole.patch) > 1 else None
    what = str(whole.patch[0]) if len(whole.patch) == 1 else f"all {each.kind}"
    row = {"what": what, "kind": each.kind, "mode": mode, "alone": whole.alone, "at_once": whole.exact}
    return {**row, "all_measured": whole.all_measured, "so": so, "meaning": meaning}


COMPARED = {
    "alike": f"alike, within {APART:.0%}",
    "too small": "too small to say",
    "opposite": "the other way together",
}


def whole_tables(rows: Sequence[Row], unit: str) -> list[Figure]:
    """The whole Sites whose joint effect differs most from the sum of single effects; then all, if those are more."""
    if not rows:
        return []
    first = sorted(rows, key=lambda row: -abs(row["at_once"] - row["alone"]))[:FEW]
    caption = (
        "All places of a Site, and of a kind, patched in one run, beside the sum of their single effects, which is "
        f"measured where a place was checked and estimated elsewhere. In {unit}. Where the two agree, places can be "
        "read one by one; where they differ, they cannot."
    )
    if len(rows) == len(first):
        return [_whole_table("wholes", WHOLE, first, caption)]
    caption += f" The {len(first)} of {len(rows)} that differ most."
    every = _whole_table("all-wholes", "All whole Sites", rows, "", essential=False)
    return [_whole_table("wholes", WHOLE, first, caption), every]


def _whole_table(name: str, title: str, rows: Sequence[Row], caption: str, **more: Any) -> Figure:
    columns = {
        "what": "what", "mode": "mode", "alone": "sum of single effects", "all_measured": "all measured",
        "at_once": "joint effect", "so": "comparison",
    }  # fmt: skip
    notes = [f"{row['so']}, {row['mode']}: {row['meaning']}" if row["meaning"] else "" for row in rows]
    more |= {"notes": notes} if any(notes) else {}
    return figures.table(name, title, rows, columns=columns, caption=caption, group=WHOLE, **more)


def points(kinds: Sequence[Checked], mode: Mode, metric: str) -> Figure:
    """The estimate against the exact effect of every place that was patched: means over prompts."""
    exact, estimate = (
        np.concatenate([getattr(each, side).mean(1).numpy() for each in kinds]) for side in ("exact", "estimate")
    )
    of = [each.kind for each in kinds for _ in each.patches]
    return figures.scatter(
        f"calibration-{mode}",
        f"The estimate against the exact effect: {MODES[mode].panel}",
        exact,
        estimate,
        names=[", ".join(map(str, patch)) for each in kinds for patch in each.patches],
        x_label=f"exact change of {metric}",
        y_label=f"estimated change of {metric}",
        colour=of,
        categorical=True,
        diagonal=True,
        caption="Each point was patched exactly. On the dashed line the estimate equals the exact effect.",
        group=GROUP,
    )
