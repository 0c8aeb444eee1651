"""What a map of effects shows, in sentences and rows: where the answer moves, and never what must hold.

A patch of the whole residual stream restores everything by construction, and so does one at the only changed token
before the first layer or at the position of the answer after the last: such places are in the pictures, but never the
headline.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from micrographia.core import movement
from micrographia.core.effects import EffectMap, largest, record
from micrographia.core.spoken import at_position
from micrographia.core.titles import MODES, kind_title

STREAM = ("resid_pre", "resid_mid", "resid_post")


def by_construction(each: EffectMap, changed: Sequence[int], last: int, n_layers: int) -> Bool[ndarray, "*lengths"]:
    """Where the effect is all of the gap whatever the model does.

    `changed`: the positions at which prompts differ; `last`: that at which the answer is read.
    """
    known = np.zeros(each.lengths, dtype=bool)
    if each.kind not in (*STREAM, "embed") or each.replace != "other":
        return known
    if "pos" not in each.axes:
        return ~known
    (*_, pos), layer = np.indices(each.lengths), _layers(each)
    together = bool(each.layers) and "layer" not in each.axes
    begins = (layer == 0) & (each.kind in ("resid_pre", "embed")) | together
    ends = (layer == n_layers - 1) & (each.kind == "resid_post") | together
    known |= begins & (pos == changed[0]) if len(changed) == 1 else known
    return known | (ends & (pos == last))


def _layers(each: EffectMap) -> Any:
    """The layer of every place; 0 where the kind has none."""
    if "layer" not in each.axes or not each.layers:
        return np.zeros(each.lengths, dtype=int)
    return np.asarray(each.layers)[np.indices(each.lengths)[each.axes.index("layer")]]


def by_position(each: EffectMap) -> bool:
    """Whether it is a residual stream's grid of layers by positions, in which the answer can be followed."""
    return each.kind in STREAM and each.axes == ("layer", "pos") and len(each.layers) > 1


def followed(each: EffectMap, positions: Sequence[str]) -> list[str]:
    """The sentence on where the answer moves; none where no position has half of the gap."""
    names = [at_position(positions, i) for i in range(each.lengths[1])]
    share = next(iter(each.shares.values()))
    found = movement.told(share, each.layers, names) if each.replace == "other" else ""
    return [f"In {kind_title(each.kind)}, {found}."] if found else []


def rows_by_position(maps: Sequence[EffectMap], positions: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each position of these grids, with the layers in which it has an effect and its mean there."""
    rows = []
    for each in filter(by_position, maps):
        first = next(iter(each.shares.values()))
        for stay in movement.ranges(first, each.layers):
            at = slice(each.layers.index(stay.first), each.layers.index(stay.last) + 1)
            row = {"stream": kind_title(each.kind), "token": positions[stay.pos] if positions else str(stay.pos)}
            row["layers"] = stay.layers
            rows.append(row | {MODES[mode].verb: float(x[at, stay.pos].mean()) for mode, x in each.shares.items()})
    return rows


def apart(maps: Sequence[EffectMap], n: int) -> list[tuple[EffectMap, int]]:
    """The largest effects, of a residual stream one a position: its layers tell the same."""
    found: dict[Any, tuple[EffectMap, int]] = {}
    enough = n + sum(each.size for each in maps if by_position(each))
    for each, flat in largest(maps, enough):
        at = each.cell(flat)
        found.setdefault((each.kind, at["pos"] if by_position(each) else flat), (each, flat))
    return list(found.values())[:n]


def telling(
    maps: Sequence[EffectMap], positions: Sequence[str], n: int, changed: Sequence[int], last: int, n_layers: int
) -> list[dict[str, Any]]:
    """The records of the largest effects that could have been otherwise."""
    wanted = list[EffectMap]()
    for each in maps:
        known = by_construction(each, changed, last, n_layers)
        raw, shares = ({mode: np.where(known, 0.0, x) for mode, x in of.items()} for of in (each.raw, each.shares))
        wanted += [] if known.all() else [each._replace(raw=raw, shares=shares)]
    chosen = largest(wanted, n)
    return [record(each, flat, positions) for each, flat in chosen]
