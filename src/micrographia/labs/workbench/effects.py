"""Effects on a grid of places: measured by patching or estimated, in shares of the gap and in the metric's unit.

The share of a denoising patch is what it restores, (m - corrupt) / (clean - corrupt); that of a noising patch what it
destroys, (clean - m) / (clean - corrupt). So both are 0 where nothing happens and 1 where everything does, and can
stand side by side. m, clean and corrupt are means over the prompts.
Source: Heimersheim and Nanda, "How to use and interpret activation patching" (2024), section 2.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NOTHING = 1e-4  # of the largest effect: what is smaller is left out of a list of the strongest
VERBS = {"denoise": "restored", "noise": "destroyed"}
SIGNS = {"denoise": 1.0, "noise": -1.0}
"""Which way a change of the metric counts, in shares of the gap."""
COORDINATES = ("layer", "pos", "head", "unit", "query", "key")


class Grid(NamedTuple):
    """Effects of all places of one kind of Site.

    `shares[mode]` (*lengths) in shares of the gap; `raw[mode]` (prompt, *lengths) the change of the metric against the
    run that was patched, in the metric's unit. `replace`: what was written there, "other" for the other run's value.
    """

    kind: str
    axes: tuple[str, ...]
    lengths: tuple[int, ...]
    layers: tuple[int, ...]
    raw: dict[str, NDArray[Any]]
    shares: dict[str, NDArray[Any]]
    replace: str = "other"

    @property
    def size(self) -> int:
        return int(np.prod(self.lengths))

    def cell(self, flat: int) -> dict[str, int]:
        """The coordinates of a place, layers by their number in the model."""
        at = dict(zip(self.axes, (int(i) for i in np.unravel_index(flat, self.lengths)))) if self.lengths else {}
        if "layer" in at and self.layers:
            at["layer"] = self.layers[at["layer"]]
        elif "layer" in at:
            del at["layer"]
        return at

    def name(self, flat: int, *, without: Sequence[str] = ()) -> str:
        """The place as it is written: L9.z[pos=14, head=6]."""
        at = {axis: i for axis, i in self.cell(flat).items() if axis not in without}
        layer = at.pop("layer", None)
        several = "L*." if self.layers and "layer" not in self.axes else ""
        site = f"L{layer}.{self.kind}" if layer is not None else f"{several}{self.kind}"
        inside = ", ".join(f"{axis}={i}" for axis, i in at.items())
        return f"{site}[{inside}]" if inside else site

    def part(self, flat: int) -> str:
        """The place without its position, and short where it has one number: L9.z[6]."""
        at = [axis for axis in self.cell(flat) if axis not in ("layer", "pos", "query")]
        name = self.name(flat, without=("pos", "query"))
        return name.replace(f"{at[0]}=", "") if len(at) == 1 else name


def grid(
    kind: str,
    axes: Sequence[str],
    lengths: Sequence[int],
    layers: Sequence[int],
    raw: dict[str, NDArray[Any]],
    gap: float | None,
    replace: str = "other",
) -> Grid:
    """A Grid from the changes of a metric, per prompt. `gap` is clean less corrupt; None where there is none."""
    whole = {mode: np.asarray(each, dtype=np.float64).reshape(-1, *lengths) for mode, each in raw.items()}
    shares = {mode: SIGNS[mode] * each.mean(0) / (gap or np.nan) for mode, each in whole.items()}
    return Grid(kind, tuple(axes), tuple(lengths), tuple(layers), whole, shares, replace)


def summed(each: Grid, axis: str) -> Grid:
    """The effects added up along an axis: a linear estimate of patching all of it."""
    at = each.axes.index(axis)
    left = [i for i in range(len(each.axes)) if i != at]
    return each._replace(
        kind=f"{each.kind}-sum",
        axes=tuple(each.axes[i] for i in left),
        lengths=tuple(each.lengths[i] for i in left),
        raw={mode: raw.sum(at + 1) for mode, raw in each.raw.items()},
        shares={mode: share.sum(at) for mode, share in each.shares.items()},
    )


def strongest(grids: Sequence[Grid], n: int) -> list[tuple[Grid, int]]:
    """The places with the largest effect of any mode, by absolute value, the strongest first."""
    ranked: list[tuple[float, int, int]] = []
    for which, each in enumerate(grids):
        size = np.max(np.abs(np.stack([effect.mean(0).ravel() for effect in each.raw.values()])), axis=0)
        best = np.argsort(-np.nan_to_num(size), kind="stable")[:n]
        ranked += [(-float(size[flat]), which, int(flat)) for flat in best]
    ranked.sort()
    least = -NOTHING * ranked[0][0] if ranked else 0.0
    return [(grids[which], flat) for size, which, flat in ranked[:n] if -size > least or size == ranked[0][0]]


def record(place: Grid, flat: int, positions: Sequence[str]) -> dict[str, Any]:
    """A place as a row: its name and token, then for each mode the share with its spread and the change itself."""
    at = place.cell(flat)
    where = at.get("pos", at.get("query"))
    row: dict[str, Any] = {
        "place": place.name(flat),
        "part": place.part(flat),
        "token": None if where is None else positions[where],
    }
    for mode, raw in place.raw.items():
        effects = raw.reshape(len(raw), -1)[:, flat]
        share = float(place.shares[mode].ravel()[flat])
        row[VERBS[mode]] = None if np.isnan(share) else share
        row[f"{mode}_change"] = float(effects.mean())
        row[f"{mode}_sd"] = float(effects.std(ddof=1)) if len(effects) > 1 else None
    return row


def columns(grids: Sequence[Grid]) -> dict[str, NDArray[Any] | list[str]]:
    """Every place of every grid as a table: kind, coordinates (-1 where there is none), share, change and spread."""
    kinds = [each.kind for each in grids for _ in range(each.size)]
    found: dict[str, NDArray[Any] | list[str]] = {"kind": kinds}
    found |= {axis: np.concatenate([_along(each, axis) for each in grids]) for axis in COORDINATES}
    for mode in grids[0].raw:
        flat = [each.raw[mode].reshape(len(each.raw[mode]), -1) for each in grids]
        found[f"{mode}_share"] = np.concatenate([each.shares[mode].ravel() for each in grids])
        found[f"{mode}_change"] = np.concatenate([raw.mean(0) for raw in flat])
        found[f"{mode}_sd"] = np.concatenate(
            [raw.std(0, ddof=1) if len(raw) > 1 else np.full(raw.shape[1], np.nan) for raw in flat]
        )
    return found


def _along(each: Grid, axis: str) -> NDArray[Any]:
    """The coordinate of every place along an axis."""
    if axis not in each.axes or (axis == "layer" and not each.layers):
        return np.full(each.size, -1)
    at = np.indices(each.lengths)[each.axes.index(axis)].ravel()
    return np.asarray(each.layers)[at] if axis == "layer" else at
