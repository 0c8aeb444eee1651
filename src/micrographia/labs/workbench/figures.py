"""Figures of the workbench: effects by layer, head, position and neuron; baselines; an estimate beside the truth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micrographia.core.figures import Figure
from micrographia.labs.workbench.effects import VERBS, Grid, strongest, summed
from micrographia.methods.attribution.calibrate import Calibration

ACROSS = ("pos", "query", "key", "head", "layer")  # which axis runs from left to right: the first that is there
MOST_ROWS, MOST_BARS = 400, 24
TITLES = {
    "resid_pre": "the residual stream before each layer",
    "resid_mid": "the residual stream between attention and MLP",
    "resid_post": "the residual stream after each layer",
    "z": "head outputs",
    "result": "head outputs",
    "attn_out": "attention outputs",
    "mlp_out": "MLP outputs",
    "neurons": "neurons",
    "pattern": "attention patterns",
    "q": "queries",
    "k": "keys",
    "v": "values",
}


def of_grids(grids: Sequence[Grid], positions: Sequence[str], *, metric: str, done: str) -> list[Figure]:
    """The pictures of each grid: one or two, whatever its axes are. `done`: patched or estimated."""
    found: list[Figure] = []
    for each in grids:
        found += _of_grid(each, positions, metric, done)
    return found


def _of_grid(each: Grid, positions: Sequence[str], metric: str, done: str) -> list[Figure]:
    name = TITLES.get(each.kind, each.kind)
    title = f"{name[:1].upper()}{name[1:]}, {done}"
    shares, label = shown(each, metric)
    if "unit" in each.axes:
        bars = _bars(each, title, shares, label)
        if done != "estimated" or len(each.axes) == 1:  # exact effects of units do not add up
            return [bars]
        whole = summed(each, "unit")
        return [bars, _picture(whole, f"{title}, summed over units", shown(whole, metric)[0], positions, label)]
    if {"query", "key"} <= set(each.axes):
        return [_attention(each, title, shares, positions, label)]
    return [_picture(each, title, shares, positions, label)]


def shown(each: Grid, metric: str) -> tuple[dict[str, NDArray[Any]], str]:
    """What is drawn: shares of the gap, or, where there is no gap, changes of the metric."""
    if all(np.isfinite(share).any() for share in each.shares.values()):
        return each.shares, f"share of the gap in {metric}"
    return {mode: raw.mean(0) for mode, raw in each.raw.items()}, f"change of {metric}"


def _picture(each: Grid, title: str, shares: dict[str, NDArray[Any]], positions: Sequence[str], label: str) -> Figure:
    """A heat map, with the axes that do not run across as rows; a row of tokens where there is one axis, positions."""
    across = next((axis for axis in ACROSS if axis in each.axes), None)
    down = [axis for axis in each.axes if axis != across]
    if across in ("pos", "query") and np.prod(_lengths(each, down)) == 1:
        return _tokens(each, title, shares, positions, label)
    if not down or across is None:
        return _bars(each, title, shares, label)
    at = each.axes.index(across)
    z = np.stack([np.moveaxis(share, at, -1).reshape(-1, share.shape[at]) for share in shares.values()])
    rows = _row_names(each, down)
    if len(rows) > MOST_ROWS:
        keep = np.sort(np.argsort(-np.abs(z).max((0, 2)), kind="stable")[:MOST_ROWS])
        z, rows = z[:, keep], [rows[i] for i in keep]
    return Figure(
        name=each.kind,
        kind="heatmap",
        group="In pictures",
        title=title,
        caption=caption(shares, label, each.replace),
        data={
            "z": z,
            "panels": [panel(mode, each.replace) for mode in shares],
            "x_label": {"pos": "position"}.get(across, across),
            "y_label": ", ".join({"pos": "position"}.get(axis, axis) for axis in down),
            "x_names": names_along(each, across, positions),
            "y_names": rows,
            "colour": "diverging",
            "midpoint": 0.0,
            "value_label": label,
        },
    )


PANELS = {"denoise": "denoise: clean into corrupt", "noise": "noise: corrupt into clean"}
MEANING = {
    "denoise": "Denoising: 1 means that the clean value at this place alone brings the clean answer back.",
    "noise": "Noising: 1 means that the corrupt value at this place alone takes the clean answer away.",
}
WRITTEN = {"zero": "zeros", "mean": "a mean", "resample": "a resample", "noise": "noise"}
"""What `replace` writes instead of the other run's value."""
INTO = {
    "denoise": "Written into the corrupt run: {written}. 1 means that this at one place alone gives the clean metric.",
    "noise": "Written into the clean run: {written}. 1 means that this at one place alone gives the corrupt metric.",
}


def panel(mode: str, replace: str = "other") -> str:
    """What was put into which run, as a heading."""
    if replace == "other":
        return PANELS[mode]
    return f"{WRITTEN[replace]} into {'corrupt' if mode == 'denoise' else 'clean'}"


def caption(shares: dict[str, NDArray[Any]], label: str, replace: str = "other") -> str:
    """What the colours mean, for the modes that are there."""
    if not label.startswith("share"):
        return f"Colour: {label}, against the run that is patched."
    meaning = MEANING if replace == "other" else INTO
    said = " ".join(meaning[mode].format(written=WRITTEN.get(replace)) for mode in shares)
    together = " Both share one scale." if len(shares) > 1 else ""
    return f"{said} 0 means no effect; below 0 it goes the other way.{together}"


def _lengths(each: Grid, axes: Sequence[str]) -> list[int]:
    return [each.lengths[each.axes.index(axis)] for axis in axes]


def names_along(each: Grid, axis: str, positions: Sequence[str]) -> list[str]:
    """What stands at each place along an axis."""
    n = each.lengths[each.axes.index(axis)]
    if axis in ("pos", "query", "key"):
        return list(positions[:n])
    return [str(each.layers[i]) if axis == "layer" and each.layers else str(i) for i in range(n)]


def _row_names(each: Grid, down: Sequence[str]) -> list[str]:
    """Rows by their numbers along each axis: 9.6 is head 6 of layer 9."""
    numbers = [str(i) for i in range(max(each.lengths))]
    sides = [names_along(each, axis, numbers) for axis in down]
    names = sides[0]
    for side in sides[1:]:
        names = [f"{left}.{right}" for left in names for right in side]
    return names


def _tokens(each: Grid, title: str, shares: dict[str, NDArray[Any]], positions: Sequence[str], label: str) -> Figure:
    texts = [position.partition(" ")[2] for position in positions]
    return Figure(
        name=each.kind,
        kind="tokens",
        group="In pictures",
        title=title,
        caption=caption(shares, label, each.replace),
        data={
            "tokens": [texts for _ in shares],
            "values": [share.ravel() for share in shares.values()],
            "names": [panel(mode, each.replace) for mode in shares],
            "value_label": label,
            "colour": "diverging",
            "midpoint": 0.0,
        },
    )


def _bars(each: Grid, title: str, shares: dict[str, NDArray[Any]], label: str) -> Figure:
    """The largest effects by name."""
    chosen = [flat for _, flat in strongest([each], MOST_BARS)]
    if each.size <= MOST_BARS:
        chosen = sorted(chosen)
    rest = "" if each.size <= MOST_BARS else f" The {len(chosen)} largest of {each.size:,}."
    return Figure(
        name=each.kind,
        kind="bars",
        group="In pictures",
        title=title,
        caption=caption(shares, label, each.replace) + rest,
        data={
            "y": np.stack([share.ravel()[chosen] for share in shares.values()]),
            "names": [each.name(flat) for flat in chosen],
            "series": [VERBS[mode] for mode in shares],
            "x_label": "place",
            "y_label": label,
        },
    )


def _attention(each: Grid, title: str, shares: dict[str, NDArray[Any]], positions: Sequence[str], label: str) -> Figure:
    """Query by key, a panel a head and a frame a layer; of two modes the first."""
    mode, share = next(iter(shares.items()))
    order = [each.axes.index(axis) for axis in ("layer", "head", "query", "key") if axis in each.axes]
    z = share.transpose(order)
    texts = [position.partition(" ")[2] for position in positions]
    common = {"tokens": texts, "colour": "diverging", "midpoint": 0.0, "value_label": label}
    layered = "layer" in each.axes and "head" in each.axes
    axis = "head" if "head" in each.axes else "layer"
    panels = [f"{axis} {name}" for name in names_along(each, axis, positions)] if axis in each.axes else [""]
    data = {"z": z if layered else z.reshape(len(panels), *z.shape[-2:]), "panels": panels, **common}
    return Figure(
        name=each.kind,
        kind="attention",
        group="In pictures",
        title=title,
        caption=f"{caption({mode: share}, label, each.replace)} Each panel: query down, key across.",
        data=data,
        frames=tuple(f"layer {name}" for name in names_along(each, "layer", positions)) if layered else (),
        framed=("z",) if layered else (),
    )


def of_calibration(checks: Mapping[str, Calibration], metric: str) -> list[Figure]:
    """The estimate beside the exact effect of every place that was checked, by kind of Site; a picture a mode."""
    found = []
    for mode, check in checks.items():
        kinds = list(check.kinds.values())
        counts = [len(each.patches) for each in kinds]
        found.append(
            Figure(
                name=f"calibration-{mode}",
                kind="scatter",
                group=CHECKED,
                title=f"The estimate beside the exact effect: {PANELS[mode]}",
                caption="Each point is a place that was patched. On the dashed line the estimate is the exact effect.",
                data={
                    "x": np.concatenate([each.exact.mean(1).numpy() for each in kinds]),
                    "y": np.concatenate([each.estimate.mean(1).numpy() for each in kinds]),
                    "names": [", ".join(map(str, patch)) for each in kinds for patch in each.patches],
                    "x_label": f"exact change of {metric}",
                    "y_label": f"estimated change of {metric}",
                    "colour": np.repeat([each.kind for each in kinds], counts).tolist(),
                    "categorical": True,
                    "diagonal": True,
                },
            )
        )
    return found


CHECKED = "Estimates beside exact effects"
