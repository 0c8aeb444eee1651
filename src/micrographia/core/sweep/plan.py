"""The plan of a sweep: which patches run together, and at which layer and position each starts.

A patch starts at the first layer it touches and at the first position it changes; everything before is taken from the
base run. Patches of one chunk share the position and run as one batch, each joining at its own layer.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from micrographia.core.sites import Site
from micrographia.core.sweep.places import Patch, Place, first_position
from micrographia.core.sweep.writing import by_layer


class PatchTask(NamedTuple):
    """A patch to run. It joins the batch at layer `start_layer`, and changes nothing before position `first`."""

    number: int
    start_layer: int
    first: int
    entry: list[Place]
    """Places written into the residual stream at the start layer."""
    later: list[Place]
    """Places written at their Sites during the run."""
    edits_attention: bool
    """Whether it writes attention scores or patterns."""


def patch_task(number: int, patch: Patch, n_layers: int, limit: int, n_pos: int, edited: frozenset[Site]) -> PatchTask:
    """`limit`: the latest position at which a run may start; `edited`: Sites with an Edit of the caller.

    resid_post of a layer and resid_pre of the next are the same stream, so a patch of the former starts one layer
    later.
    """
    places = by_layer(patch, n_layers)
    start_layer = min(places)
    if all(place.site.kind == "resid_post" and _is_free(place.site, edited) for place in places[start_layer]):
        start_layer += 1
    if start_layer == 0 and Site("resid_pre", 0) in edited:
        start_layer = -1  # the caller's Edit would act a second time on a stream that it has already changed
    entry = [place for place in patch if _enters(place.site, start_layer, edited)] if start_layer >= 0 else []
    later = [place for place in patch if place not in entry]
    first = min(limit, *(first_position(place, n_pos) for place in patch)) if start_layer >= 0 else 0
    edits_attention = any("query" in place.site.axes for place in patch)
    return PatchTask(number, start_layer, first, entry, later, edits_attention)


def _is_free(site: Site, edited: frozenset[Site]) -> bool:
    return not site.part and site not in edited


def _enters(site: Site, start_layer: int, edited: frozenset[Site]) -> bool:
    return (site.kind, site.layer) in (("resid_pre", start_layer), ("resid_post", start_layer - 1)) and _is_free(
        site, edited
    )


def chunks(
    tasks: Sequence[PatchTask], n_prompts: int, n_pos: int, *, at_once: int, at_least: int
) -> Iterator[list[PatchTask]]:
    """Tasks that run as one batch: at most `at_once` tokens (rows x positions, but at least one patch).

    A chunk takes patches with one first position; it adds later ones, at the cost of a few unnecessary positions, only
    while it has fewer than `at_least` tokens: below that a product costs the same for fewer rows.
    """
    chunk: list[PatchTask] = []
    for task in sorted(tasks, key=lambda task: (task.start_layer >= 0, task.first, task.start_layer, task.number)):
        if chunk:
            each = n_prompts * (n_pos - chunk[0].first)
            full = (len(chunk) + 1) * each > at_once
            separate = (task.start_layer < 0) != (chunk[0].start_layer < 0)
            if full or separate or (task.first != chunk[0].first and len(chunk) * each >= at_least):
                yield sorted(chunk, key=lambda task: (task.start_layer, task.number))
                chunk = []
        chunk.append(task)
    if chunk:
        yield sorted(chunk, key=lambda task: (task.start_layer, task.number))
