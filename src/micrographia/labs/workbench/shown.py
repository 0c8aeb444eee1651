"""A method's result as Figures, wherever it came from: what a notebook shows of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.effects import Effects as Attribution
from micrographia.core.errors import UserError
from micrographia.core.figures import Figure
from micrographia.core.sweep import Patch
from micrographia.labs.workbench.attribute import grids_of_scores
from micrographia.labs.workbench.edges import graph_figure
from micrographia.labs.workbench.effects import Grid, grid
from micrographia.labs.workbench.figures import of_grids
from micrographia.labs.workbench.trace import Picture, trace_map
from micrographia.methods.attribution.edges import EdgeAttribution
from micrographia.methods.patching import Both, Patched
from micrographia.methods.tracing import Traced


def figures_of(result: Any, positions: Sequence[str] | None = None) -> list[Figure]:
    """The pictures of a result. `positions` names its positions, one by one; else they are numbered.

    Raises UserError for what is none of the results that are known, for patches that make no grid, and where there are
    not as many names as positions.
    """
    draw = DRAWN.get(type(result))
    if draw is None:
        known = ", ".join(kind.__name__ for kind in DRAWN)
        raise UserError(f"Asked to show a {type(result).__name__}. What can be shown: Run, Figure, {known}.")
    return draw(result, positions)


def _of_patched(result: Patched, positions: Sequence[str] | None) -> list[Figure]:
    return _patched([result], positions)


def _of_both(result: Both, positions: Sequence[str] | None) -> list[Figure]:
    return _patched([result.denoise, result.noise], positions)


def _patched(results: Sequence[Patched], positions: Sequence[str] | None) -> list[Figure]:
    found = grids_of_patches(results)
    return of_grids(found, _named(positions, _longest(found)), metric=results[0].metrics[0], done="patched")


def grids_of_patches(results: Sequence[Patched]) -> list[Grid]:
    """The patches' effects in the first metric, put back into the grids that their places make."""
    families: dict[str, list[int]] = {}
    for i, patch in enumerate(results[0].patches):
        families.setdefault(_kind(patch), []).append(i)
    gap = float((results[0].clean - results[0].corrupt)[:, 0].double().mean()) or None
    effects = {each.mode: each.effects()[..., 0].double().cpu().numpy() for each in results}
    found = [_family(kind, results[0].patches, rows, effects, gap) for kind, rows in families.items()]
    return [each._replace(replace=results[0].replace) for each in found]


def _kind(patch: Patch) -> str:
    site = patch[0].site
    return str(site).partition(".")[2] if site.layer is not None else str(site)


def _family(
    kind: str, patches: Sequence[Patch], rows: Sequence[int], effects: Mapping[str, np.ndarray], gap: float | None
) -> Grid:
    cells = [_cell(patches[i]) for i in rows]
    axes = tuple(cells[0])
    values = {axis: sorted({cell.get(axis) for cell in cells}, key=str) for axis in axes}
    values = {
        axis: sorted(found) if all(isinstance(x, int) for x in found) else found for axis, found in values.items()
    }
    lengths = [len(found) for found in values.values()]
    if any(tuple(cell) != axes for cell in cells) or np.prod(lengths) != len(cells):
        raise UserError(
            f"Asked to show {len(cells)} patches of {kind} as a picture, but their places make no full grid of "
            f"{', '.join(axes) or 'anything'}. Read `values`, or take the patches of `grids`."
        )
    order = sorted(range(len(cells)), key=lambda i: [values[axis].index(cells[i][axis]) for axis in axes])
    chosen = [rows[i] for i in order]
    raw = {mode: effect[chosen].T for mode, effect in effects.items()}
    return grid(kind, axes, lengths, values.get("layer", ()), raw, gap)


def _cell(patch: Patch) -> dict[str, Any]:
    place = patch[0]
    layer = {} if place.site.layer is None or len(patch) > 1 else {"layer": place.site.layer}
    return {**layer, **place.where}


def _of_attribution(result: Attribution, positions: Sequence[str] | None) -> list[Figure]:
    gap = float((result.clean - result.corrupt).double().mean()) or None
    found = grids_of_scores([result], gap)
    return of_grids(found, _named(positions, _longest(found)), metric="the metric", done="estimated")


def _of_edges(result: EdgeAttribution, positions: Sequence[str] | None) -> list[Figure]:
    return [graph_figure(result, float((result.clean - result.corrupt).double().mean()) or None)]


def _of_trace(result: Traced, positions: Sequence[str] | None) -> list[Figure]:
    n = result.values.shape[1]
    names = [str(i) for i in range(n)] if positions is None else _named(positions, n)
    return [trace_map("trace", "Probability of the answer when a state is restored", [Picture("", result)], names, "")]


def _longest(found: Sequence[Grid]) -> int:
    """How many positions are shown."""
    return max((n for each in found for axis, n in zip(each.axes, each.lengths) if axis in PLACED), default=0)


def _named(positions: Sequence[str] | None, n: int) -> Sequence[str]:
    """A name for each position; their numbers where none are given."""
    if positions is None:
        return [str(i) for i in range(n)]
    if n and len(positions) != n:
        raise UserError(f"{len(positions)} names were given for the {n} positions that are shown. Give one to each.")
    return positions


PLACED = ("pos", "query", "key")
DRAWN: Mapping[type, Callable[[Any, Sequence[str] | None], list[Figure]]] = {
    Patched: _of_patched,
    Both: _of_both,
    Attribution: _of_attribution,
    EdgeAttribution: _of_edges,
    Traced: _of_trace,
}
