"""Which patches run together, where each leaves the unpatched run, and which positions need computing at all.

A patch leaves the base run at the first layer it touches and at the first position it changes: what lies before is the
base run's. Patches of one chunk share the position, and join one wave through the layers, each at its own layer.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from micrographia.core.sites import Site
from micrographia.core.sweep.places import Patch, Place, first_position
from micrographia.core.sweep.writing import by_layer


class Task(NamedTuple):
    """A patch to run. It joins the wave at layer `join`, and changes nothing before position `first`."""

    number: int
    join: int
    first: int
    entry: list[Place]
    """Written into the residual stream with which the patch joins."""
    later: list[Place]
    """Written at their Sites, on the way."""
    inner: bool
    """It writes scores or patterns of attention."""


def task_of(number: int, patch: Patch, n_layers: int, limit: int, n_pos: int, edited: frozenset[Site]) -> Task:
    """`limit`: the position behind which nothing may begin; `edited`: Sites where an Edit of the caller acts anyway.

    resid_post of a layer and resid_pre of the next are one stream, so that a patch of the former joins one layer later.
    """
    places = by_layer(patch, n_layers)
    join = min(places)
    if all(place.site.kind == "resid_post" and _is_free(place.site, edited) for place in places[join]):
        join += 1
    if join == 0 and Site("resid_pre", 0) in edited:
        join = -1  # the caller's Edit would act a second time on a stream that it has already changed
    entry = [place for place in patch if _enters(place.site, join, edited)] if join >= 0 else []
    later = [place for place in patch if place not in entry]
    first = min(limit, *(first_position(place, n_pos) for place in patch)) if join >= 0 else 0
    inner = any("query" in place.site.axes for place in patch)
    return Task(number, join, first, entry, later, inner)


def _is_free(site: Site, edited: frozenset[Site]) -> bool:
    return not site.part and site not in edited


def _enters(site: Site, join: int, edited: frozenset[Site]) -> bool:
    return (site.kind, site.layer) in (("resid_pre", join), ("resid_post", join - 1)) and _is_free(site, edited)


def chunks(tasks: Sequence[Task], n_prompts: int, n_pos: int, *, at_once: int, at_least: int) -> Iterator[list[Task]]:
    """Tasks that run as one wave: at most `at_once` tokens (rows x positions, but at least one patch).

    A chunk takes patches of one first position, and goes on with later ones, which then compute a few positions for
    nothing, only while it holds fewer than `at_least` tokens: below that a product costs the same for fewer rows.
    """
    chunk: list[Task] = []
    for task in sorted(tasks, key=lambda task: (task.join >= 0, task.first, task.join, task.number)):
        if chunk:
            each = n_prompts * (n_pos - chunk[0].first)
            full = (len(chunk) + 1) * each > at_once
            apart = (task.join < 0) != (chunk[0].join < 0)
            if full or apart or (task.first != chunk[0].first and len(chunk) * each >= at_least):
                yield sorted(chunk, key=lambda task: (task.join, task.number))
                chunk = []
        chunk.append(task)
    if chunk:
        yield sorted(chunk, key=lambda task: (task.join, task.number))
