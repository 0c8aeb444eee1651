"""Effects as Figures: heat maps by layer, head and position, token strips, bars, attention panels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micrographia.core import figures
from micrographia.core.effects import EffectMap, largest, summed_along
from micrographia.core.errors import UserError
from micrographia.core.figures import Figure
from micrographia.core.spoken import OF_HEADS, head_name
from micrographia.core.titles import MODES, WRITTEN, Mode, kind_title, panel

ACROSS = ("pos", "query", "key", "head", "layer")  # which axis runs from left to right: the first that is there
PLACED = ("pos", "query", "key")
AT = ("layer", "head")
MOST_ROWS, MOST_BARS = 400, 24
ROUNDING = 1e-4
"""Of the largest effect: as much is left where there is none, since patches run in batches of other sizes."""
MANY_CELLS = 1000
"""More heads by position than that are summed up in a picture before the one with all of them."""
GROUP = "In pictures"
Shares = Mapping[Mode, NDArray[Any]]


def figures_of_maps(maps: Sequence[EffectMap], positions: Sequence[str], *, metric: str, done: str) -> list[Figure]:
    """The pictures of each kind of Site: one or two, whatever its axes are. `done`: patched or estimated.

    `positions` names the positions; without names they are numbered. Raises UserError for another number of names.
    """
    n = max((n for each in maps for axis, n in zip(each.axes, each.lengths) if axis in PLACED), default=0)
    if positions and n and len(positions) != n:
        raise UserError(f"{len(positions)} names were given for the {n} positions that are shown. Give one to each.")
    names = positions or [str(i) for i in range(n)]
    return [figure for each in maps for figure in _of_map(each, names, metric, done)]


def _of_map(each: EffectMap, positions: Sequence[str], metric: str, done: str) -> list[Figure]:
    name = kind_title(each.kind)
    title = f"{name[:1].upper()}{name[1:]}, {done}"
    shares, label = shown(each, metric)
    if "unit" in each.axes:
        bars = _bars(each, title, shares, label)
        if done != "estimated" or len(each.axes) == 1:  # exact effects of units do not add up
            return [bars]
        whole = summed_along(each, "unit")
        return [bars, _picture(whole, f"{title}, summed over units", shown(whole, metric)[0], positions, label)]
    if {"query", "key"} <= set(each.axes):
        return [_attention(each, title, shares, positions, label)]
    whole = _picture(each, title, shares, positions, label)
    if {"layer", "head", "pos"} <= set(each.axes) and np.prod(each.lengths) > MANY_CELLS:
        return [_by_head(each, title, shares, positions, label), whole]
    return [whole]


def shown(each: EffectMap, metric: str) -> tuple[Shares, str]:
    """What is drawn: shares of the gap, or, where there is no gap, changes of the metric; of sizes, the scores."""
    if each.gives == "size":
        return {mode: raw.mean(0) for mode, raw in each.raw.items()}, "score, which ranks"
    if all(np.isfinite(share).any() for share in each.shares.values()):
        return each.shares, f"share of the gap in {metric}"
    return {mode: raw.mean(0) for mode, raw in each.raw.items()}, f"change of {metric}"


def caption(shares: Shares, label: str, replace: str = "other") -> str:
    """What the colours mean, for the directions that are there."""
    if label.startswith("score"):
        return "Colour: the score. It ranks places by size and does not estimate the effect of a patch."
    if not label.startswith("share"):
        return f"Colour: {label}, against the run that is patched."
    said = [MODES[mode].meaning if replace == "other" else MODES[mode].replaced for mode in shares]
    meaning = " ".join(each.format(written=WRITTEN.get(replace)) for each in said)
    together = " Both share one scale." if len(shares) > 1 else ""
    return f"{meaning} 0 means no effect; below 0 it goes the other way.{together}"


def _picture(each: EffectMap, title: str, shares: Shares, positions: Sequence[str], label: str) -> Figure:
    """A heat map, with the axes that do not run across as rows; a row of tokens where there is one axis, positions."""
    across = next((axis for axis in ACROSS if axis in each.axes), None)
    down = [axis for axis in each.axes if axis != across]
    if across in ("pos", "query") and np.prod(_lengths(each, down)) == 1:
        return _tokens(each, title, shares, positions, label)
    if not down or across is None:
        return _bars(each, title, shares, label)
    at = each.axes.index(across)
    z = np.stack([np.moveaxis(share, at, -1).reshape(-1, share.shape[at]) for share in shares.values()])
    rows, groups = _row_names(each, down), _layers_of_rows(each, down)
    if len(rows) > MOST_ROWS:
        keep = np.sort(np.argsort(-np.abs(z).max((0, 2)), kind="stable")[:MOST_ROWS])
        z, rows, groups = z[:, keep], [rows[i] for i in keep], groups and [groups[i] for i in keep]
    first = _first_that_moves(z) if across == "pos" else 0
    before = f" Positions before {positions[first]!r} have no effect and are left out." if first else ""
    return figures.heatmap(
        each.kind,
        title,
        z[..., first:],
        x=names_along(each, across, positions)[first:],
        y=rows,
        y_groups=groups,
        panels=[panel(mode, each.replace) for mode in shares],
        value=label,
        diverging=True,
        x_label={"pos": "position"}.get(across, across),
        y_label="heads by layer" if groups else ", ".join({"pos": "position"}.get(axis, axis) for axis in down),
        caption=caption(shares, label, each.replace) + before,
        group=GROUP,
    )


def _first_that_moves(z: NDArray[Any]) -> int:
    """The first column with an effect beyond rounding; the first one where none has."""
    moves = (np.abs(np.nan_to_num(z)) > ROUNDING * np.abs(np.nan_to_num(z)).max(initial=0)).any((0, 1))
    return int(moves.argmax())


def _by_head(each: EffectMap, title: str, shares: Shares, positions: Sequence[str], label: str) -> Figure:
    """Layer by head, each at the position where its effect is largest, which the pointer tells."""
    order = [each.axes.index(axis) for axis in ("layer", "head", "pos")]
    rest = [i for i in range(len(each.axes)) if i not in order]
    z = np.stack([np.transpose(share, [*order, *rest]).reshape(*_lengths(each, AT), -1) for share in shares.values()])
    best = np.abs(np.nan_to_num(z)).argmax(-1)
    told = [[[f"at {positions[pos]}" for pos in row] for row in side] for side in best.tolist()]
    return figures.heatmap(
        f"{each.kind}-by-head",
        f"{title}, each head at its strongest position",
        np.take_along_axis(z, best[..., None], -1)[..., 0],
        x=names_along(each, "head", positions),
        y=names_along(each, "layer", positions),
        panels=[panel(mode, each.replace) for mode in shares],
        value=label,
        told=told,
        diverging=True,
        x_label="head",
        y_label="layer",
        caption="The largest effect by size of each head over all positions, which the pointer tells.",
        group=GROUP,
    )


def _lengths(each: EffectMap, axes: Sequence[str]) -> list[int]:
    return [each.lengths[each.axes.index(axis)] for axis in axes]


def names_along(each: EffectMap, axis: str, positions: Sequence[str]) -> list[str]:
    """What stands at each place along an axis."""
    n = each.lengths[each.axes.index(axis)]
    if axis in PLACED:
        return list(positions[:n])
    return [str(each.layers[i]) if axis == "layer" and each.layers else str(i) for i in range(n)]


def _row_names(each: EffectMap, down: Sequence[str]) -> list[str]:
    """Rows by what they are, L9H6 for a head; else by their numbers along each axis."""
    if list(down) == ["layer", "head"] and each.layers and each.kind in OF_HEADS:
        n = each.lengths[each.axes.index("head")]
        return [head_name(layer, head, each.kind, each.group) for layer in each.layers for head in range(n)]
    numbers = [str(i) for i in range(max(each.lengths))]
    sides = [names_along(each, axis, numbers) for axis in down]
    names = sides[0]
    for side in sides[1:]:
        names = [f"{left}.{right}" for left in names for right in side]
    return names


def _layers_of_rows(each: EffectMap, down: Sequence[str]) -> list[str] | None:
    """The layer of each row, where rows are the heads of several."""
    if tuple(down) != AT:
        return None
    layers, heads = (names_along(each, axis, ()) for axis in AT)
    return [layer for layer in layers for _ in heads]


def _tokens(each: EffectMap, title: str, shares: Shares, positions: Sequence[str], label: str) -> Figure:
    texts = [position.partition(" ")[2] or position for position in positions]
    return figures.tokens(
        each.kind,
        title,
        [texts for _ in shares],
        [share.ravel() for share in shares.values()],
        names=[panel(mode, each.replace) for mode in shares],
        value=label,
        diverging=True,
        caption=caption(shares, label, each.replace),
        group=GROUP,
    )


def bar_name(each: EffectMap, flat: int) -> str:
    """A place below its bar: L9H6 @14, the position behind the @."""
    at = each.cell(flat)
    where = at.get("pos", at.get("query"))
    return each.component(flat) + ("" if where is None else f" @{where}")


def _bars(each: EffectMap, title: str, shares: Shares, label: str) -> Figure:
    """The largest effects by name."""
    chosen = [flat for _, flat in largest([each], MOST_BARS)]
    if each.size <= MOST_BARS:
        chosen = sorted(chosen)
    rest = "" if each.size <= MOST_BARS else f" The {len(chosen)} largest of {each.size:,}."
    return figures.bars(
        each.kind,
        title,
        np.stack([share.ravel()[chosen] for share in shares.values()]),
        names=[bar_name(each, flat) for flat in chosen],
        series=[MODES[mode].verb for mode in shares],
        x_label="place",
        y_label=label,
        caption=caption(shares, label, each.replace) + rest,
        group=GROUP,
    )


def _attention(each: EffectMap, title: str, shares: Shares, positions: Sequence[str], label: str) -> Figure:
    """Query by key, a panel a head and a frame a layer; of two directions the first."""
    mode, share = next(iter(shares.items()))
    order = [each.axes.index(axis) for axis in ("layer", "head", "query", "key") if axis in each.axes]
    z = share.transpose(order)
    layered = "layer" in each.axes and "head" in each.axes
    axis = "head" if "head" in each.axes else "layer"
    panels = [f"{axis} {name}" for name in names_along(each, axis, positions)] if axis in each.axes else [""]
    framed = tuple(f"layer {name}" for name in names_along(each, "layer", positions)) if layered else ()
    return figures.attention(
        each.kind,
        title,
        z if layered else z.reshape(len(panels), *z.shape[-2:]),
        panels=panels,
        tokens=[position.partition(" ")[2] or position for position in positions],
        value=label,
        diverging=True,
        caption=f"{caption({mode: share}, label, each.replace)} Each panel: query down, key across.",
        frames=framed,
        framed=("z",) if layered else (),
        group=GROUP,
    )
