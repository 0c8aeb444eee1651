"""The targets of patching: Place, Patch, Donor, and grids of patches.

A `Place` is a Site with selected positions, heads, units, queries or keys. A `Patch` is the list of Places that one
patched run writes; a `PatchGrid` has one patch per cell of a table such as layer x pos x head, and maps values back to
that table.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Shaped
from torch import Tensor

from micrographia.core.edits import UNIT_AXES, Edit, place_of
from micrographia.core.errors import BadConfig, UserError
from micrographia.core.model import Model, ModelShape
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.tokens import Inputs

KV_KINDS = frozenset({"k", "v", "rot_k"})


class Place(NamedTuple):
    """A region of a Site. An axis that `where` does not name is taken whole; several lists mean their product."""

    site: Site
    where: Mapping[str, int | tuple[int, ...]] = MappingProxyType({})
    donor: int = 0
    """The index of the donor of its value."""

    def __str__(self) -> str:
        inside = ", ".join(f"{axis}={value}" for axis, value in self.where.items())
        return f"{self.site}[{inside}]" if inside else str(self.site)


Latents = int | Mapping[Site, int] | None
"""How many latents a spliced dictionary has; by Site, where there are several."""

Patch = tuple[Place, ...]
"""Places written together, in one run."""

Donor = Mapping[Site, Tensor]
"""Values to write, by Site: (prompt or 1, ...) with the Site's axes. The Cache of another run, zeros, a mean ..."""


class PatchGrid(NamedTuple):
    """One patch per cell. `axes` and `lengths` give the shape of the table, the last axis running fastest."""

    kind: str
    patches: list[Patch]
    axes: tuple[str, ...]
    lengths: tuple[int, ...]
    layers: tuple[int, ...]
    """The layers along the axis "layer" if there is one; else those that every patch covers together."""

    def table(self, values: Shaped[Tensor, "patch *rest"]) -> Shaped[Tensor, "*cells"]:
        """Values of the patches, (patch, ...), as (*lengths, ...)."""
        return values.reshape(*self.lengths, *values.shape[1:])

    def by_site(self, values: Shaped[Tensor, "patch prompt *rest"]) -> Iterator[tuple[Site, Tensor]]:
        """Values at each Site, (prompt, *axes, *rest); layers that are patched together stand under the first."""
        table = self.table(values).movedim(len(self.lengths), 0)
        if "layer" not in self.axes:
            yield self.patches[0][0].site, table
            return
        for number in range(self.lengths[0]):
            yield self.patches[number * (len(self.patches) // self.lengths[0])][0].site, table[:, number]


def words_of(site: Site) -> tuple[str, ...]:
    """The names of a Site's axes in `where`; the first is the batch."""
    return tuple("unit" if axis in UNIT_AXES else axis for axis in site.axes)


def grids(
    model: Model,
    sites: SiteLike | Iterable[SiteLike],
    by: Sequence[str],
    n_pos: int,
    *,
    n_latents: Latents = None,
) -> list[PatchGrid]:
    """A grid per kind of Site in the selection: one patch for each layer, position, head ... that `by` names.

    Axes that `by` leaves out are patched whole; without "layer", all layers of a kind are patched together. A kind that
    lacks an axis of `by` raises BadConfig. `n_latents` is the size of a spliced dictionary, if the selection has one,
    or that of each Site of latents.
    """
    chosen = select(model.sites, sites)
    if not chosen:
        raise UserError("Asked for a sweep over no Site. Name some, for instance 'L*.resid_pre'.")
    families: dict[tuple[str, str, str], list[Site]] = {}
    for site in chosen:
        families.setdefault((site.kind, site.dictionary, site.part), []).append(site)
    return [_grid(model.shape, family, tuple(by), n_pos, n_latents) for family in families.values()]


def places(
    model: Model, sites: SiteLike | Iterable[SiteLike], by: Sequence[str], n_pos: int, *, n_latents: Latents = None
) -> list[Patch]:
    """The patches of `grids`, one kind after the other."""
    return [patch for grid in grids(model, sites, by, n_pos, n_latents=n_latents) for patch in grid.patches]


def _grid(shape: ModelShape, sites: list[Site], by: tuple[str, ...], n_pos: int, n_latents: Latents) -> PatchGrid:
    words = ("layer", *words_of(sites[0])[1:])
    if unknown := [axis for axis in by if axis not in words]:
        raise BadConfig(f"{sites[0]} was to be patched by {', '.join(unknown)}. It has {', '.join(words)}.")
    axes = tuple(word for word in words if word in by)
    own = n_latents if isinstance(n_latents, int | None) else _of_all(sites, n_latents)
    sizes = {axis: axis_length(shape, sites[0], axis, n_pos, own) for axis in axes if axis != "layer"}
    layers = sorted(site.layer for site in sites if site.layer is not None)
    inner = [dict(zip(sizes, cell)) for cell in product(*(range(size) for size in sizes.values()))]
    if "layer" in axes:
        patches: list[Patch] = [(Place(site, where),) for site in sites for where in inner]
    else:
        patches = [tuple(Place(site, where) for site in sites) for where in inner]
    lengths = tuple(len(sites) if axis == "layer" else sizes[axis] for axis in axes)
    return PatchGrid(sites[0].kind, patches, axes, lengths, tuple(layers))


def _of_all(sites: Sequence[Site], n_latents: Mapping[Site, int]) -> int | None:
    """The number of latents that these Sites share. Raises BadConfig where they differ."""
    found = {site: n_latents[site] for site in sites if site in n_latents}
    if len(set(found.values())) > 1:
        named = ", ".join(f"{site}: {n}" for site, n in found.items())
        raise BadConfig(f"Latents of several Sites were to be patched in one table. They differ in number ({named}).")
    return next(iter(found.values()), None)


def count_latents(
    model: Model, sites: SiteLike | Iterable[SiteLike], by: Sequence[str], inputs: Inputs, edits: Sequence[Edit]
) -> dict[Site, int]:
    """How many latents each Site of latents has, where `by` asks for each of them: from a run. Else none."""
    wanted = [site for site in select(model.sites, sites) if site.part == "latents"] if "unit" in by else []
    if not wanted:
        return {}
    cache = model.run(inputs, keep=wanted, edits=edits, logits="last").cache
    return {site: cache[site].shape[-1] for site in wanted}


def axis_length(shape: ModelShape, site: Site, axis: str, n_pos: int, n_latents: int | None = None) -> int:
    """How many places a Site has along an axis."""
    if axis in ("pos", "query", "key"):
        return n_pos
    if axis == "head":
        return shape.n_kv_heads if site.kind in KV_KINDS else shape.n_heads
    sizes = {
        "d_model": shape.d_model,
        "d_head": shape.d_head,
        "neuron": shape.d_mlp,
        "vocab": shape.d_vocab_out,
        "one": 1,
        "latent": n_latents,
    }
    size = sizes[site.axes[-1]]
    if size is None:
        raise BadConfig(f"Asked for every latent of {site}, but their number is unknown. Pass n_latents.")
    return size


def named_places(model: Model, names: Sequence[str | Place], by: Sequence[str], n_pos: int) -> list[Place]:
    """Places by name: "L5.z[5]", "L5.z[pos=3, head=5]"; a Site or a pattern ("L*.z") by each place along `by`.

    Raises UserError for a place that names several numbers at once.
    """
    found: list[Place] = []
    for name in names:
        if isinstance(name, Place):
            found.append(name)
        elif "[" in name and name.endswith("]"):
            site, where = place_of(name)
            if several := [axis for axis, at in where.items() if not isinstance(at, int)]:
                raise UserError(f"Asked for {name}, several places along {several[0]}. Name them one by one.")
            (chosen,) = select(model.sites, site)
            found.append(Place(chosen, {axis: at for axis, at in where.items() if isinstance(at, int)}))
        else:
            found += [place for (place,) in places(model, name, ("layer", *by), n_pos)]
    return found


def first_position(place: Place, n_pos: int) -> int:
    """The first position that this Place can change."""
    at = place.where.get("pos", place.where.get("query", 0))
    listed = (at,) if isinstance(at, int) else at
    return min((i + n_pos if i < 0 else i for i in listed), default=0)


def cells_of(places: Sequence[Place], axes: Sequence[str]) -> list[list[tuple[int, ...]]]:
    """For each place, the product of its selections along these axes."""
    chosen = [[place.where[axis] for axis in axes] for place in places]
    return [list(product(*((at,) if isinstance(at, int) else at for at in row))) for row in chosen]
