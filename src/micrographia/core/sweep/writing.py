"""Write donors' values into an activation whose rows are patch-major: (patch, prompt) flattened.

All places of a Site are written together, by index tensors, so that a thousand patches cost one copy.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.edits import Edit, apply
from micrographia.core.errors import BadEdit, UserError
from micrographia.core.sites import Site
from micrographia.core.sweep.places import Donor, Patch, Place, cells_of, words_of

BEFORE_LAYERS = frozenset({"embed", "pos_embed"})


class Write(NamedTuple):
    """A place of the patch that owns block `row` of a run: rows row * n_prompts to (row + 1) * n_prompts - 1."""

    row: int
    place: Place


class Frame(NamedTuple):
    """The context of all writes of a run. Activations begin at position `offset`, donors at position 0."""

    donors: Sequence[Donor]
    n_prompts: int
    offset: int = 0


def check_donors(patches: Sequence[Patch], donors: Sequence[Donor]) -> None:
    """Raise UserError where a patch writes nothing, or a Site that its donor lacks."""
    for i, patch in enumerate(patches):
        if not patch:
            raise UserError(f"Patch {i} writes nothing. Give it at least one Place.")
        for place in patch:
            if not 0 <= place.donor < len(donors):
                raise UserError(f"Patch {i} takes {place} from donor {place.donor}. There are {len(donors)}.")
            if place.site not in donors[place.donor]:
                raise UserError(
                    f"Patch {i} writes {place}, but its donor holds no {place.site}. Keep that Site in the donor's run."
                )


def as_edits(writes: Sequence[Write], frame: Frame) -> list[Edit]:
    """One Edit per Site that writes all of its places."""
    by_site: dict[Site, list[Write]] = {}
    for write in writes:
        by_site.setdefault(write.place.site, []).append(write)
    return [apply(site, partial(write_into, site=site, writes=group, frame=frame)) for site, group in by_site.items()]


def write_into(fresh: Tensor, site: Site, writes: Sequence[Write], frame: Frame) -> Tensor:
    """Write in place into `fresh` (row, ...), a tensor with no other owner, and return it."""
    blocks = fresh.unflatten(0, (-1, frame.n_prompts))
    groups: dict[tuple[int, tuple[str, ...]], list[Write]] = {}
    for write in writes:
        axes = tuple(word for word in words_of(site) if word in write.place.where)
        if len(axes) != len(write.place.where):
            raise BadEdit(f"{write.place} selects by axes that {site} lacks; it has {', '.join(words_of(site)[1:])}.")
        groups.setdefault((write.place.donor, axes), []).append(write)
    for (donor, axes), group in groups.items():
        _write_group(blocks, site, axes, group, frame, frame.donors[donor][site])
    return fresh


def _write_group(
    blocks: Tensor, site: Site, axes: tuple[str, ...], group: list[Write], frame: Frame, given: Tensor
) -> None:
    words = words_of(site)
    given = _fitted(site, given, blocks, frame)
    chosen = [words.index(axis) for axis in axes]  # axis i of the Site is axis i + 1 of the blocks
    rest = [i for i in range(given.ndim) if i not in chosen]
    target = blocks.permute(0, *(i + 1 for i in chosen), *(i + 1 for i in rest))
    shifts = [frame.offset if axis in ("pos", "query") else 0 for axis in axes]
    lengths = [blocks.shape[i + 1] for i in chosen]
    cells = [
        (write.row, *(_inside(write.place, at, shift, n) for at, shift, n in zip(cell, shifts, lengths)))
        for write, product in zip(group, cells_of([write.place for write in group], axes))
        for cell in product
    ]
    row, *index = torch.tensor(cells, device=blocks.device).T.unbind()
    target[(row, *index)] = given.permute(*chosen, *rest)[tuple(index)] if index else given


def _fitted(site: Site, given: Tensor, blocks: Tensor, frame: Frame) -> Tensor:
    """The donor's value at the positions of this run, one for each prompt."""
    for axis, word in enumerate(words_of(site)):
        if word in ("pos", "query") and frame.offset:
            given = given[(slice(None),) * axis + (slice(frame.offset, None),)]
    wanted = blocks.shape[1:]
    if given.shape[1:] != wanted[1:] or given.shape[0] not in (1, frame.n_prompts):
        raise BadEdit(
            f"The donor's {site} has shape {tuple(given.shape)}, but the run's is {tuple(wanted)} (axes {site.axes}). "
            "Give one row, or one for each prompt, of that shape."
        )
    if given.dtype != blocks.dtype or given.device != blocks.device:
        raise BadEdit(
            f"The donor's {site} is {given.dtype} on {given.device}, but the run's is {blocks.dtype} on "
            f"{blocks.device}. Convert it first."
        )
    return given.expand(wanted)


def _inside(place: Place, at: int, shift: int, length: int) -> int:
    found = at if at < 0 else at - shift
    if not -length <= found < length:
        raise BadEdit(f"{place} was to be patched, but the axis is {length + shift} long. Choose places that exist.")
    return found % length


def by_layer(patch: Patch, n_layers: int) -> Mapping[int, list[Place]]:
    """The places of a patch by layer: -1 before the layers, `n_layers` after them."""
    found: dict[int, list[Place]] = {}
    for place in patch:
        found.setdefault(layer_of(place.site, n_layers), []).append(place)
    return found


def layer_of(site: Site, n_layers: int) -> int:
    if site.layer is not None:
        return site.layer
    return -1 if site.kind in BEFORE_LAYERS else n_layers
