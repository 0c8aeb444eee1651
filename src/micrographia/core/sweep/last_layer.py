"""A cheaper last layer: positions before the first one read matter only through their keys and values.

For a patch at position p, read at the last of T tokens, this saves nine twelfths of the last layer's products at T
- p - 1 of its T - p positions: there the run stops at the heads' output.
"""

from collections.abc import Sequence

import torch

from micrographia.core.edits import Edit
from micrographia.core.model import KeysValues, Model, Start
from micrographia.core.sites import Site
from micrographia.core.sweep.base import key_value_sites
from micrographia.core.sweep.places import Place
from micrographia.core.sweep.writing import BEFORE_LAYERS
from micrographia.core.tokens import Inputs

OF_KEYS = frozenset({"k", "rot_k", "v"})
AFTER_KEYS = frozenset({"q", "rot_q", "z", "result", "attn_raw", "attn_out", "resid_mid", "mlp_pre", "mlp_up"})
AFTER_KEYS |= {"mlp_norm_scale", "mlp_norm", "neurons", "mlp_raw", "mlp_out", "resid_post"}
"""Kinds of Sites that do not affect later positions, in the last layer."""


def is_separable(places: Sequence[Place], edits: Sequence[Edit], last: int, read: int) -> bool:
    """Whether keys and values of the positions before `read` can be computed separately under these writes.

    They can if the last layer is written only before `read`, and at no Site that both parts would have to compute.
    """
    if any(edit.site.layer in (last, None) and edit.site.kind not in BEFORE_LAYERS for edit in edits):
        return False
    return all(_before(place, read) for place in places if place.site.layer in (last, None))


def feeds_keys(site: Site, layer: int) -> bool:
    return site.layer == layer and site.kind in OF_KEYS


def earlier_keys(model: Model, rows: Inputs, start: Start, edits: Sequence[Edit], read: int) -> KeysValues:
    """Keys and values of the start layer, at the positions before `read`, for every row.

    The run goes up to the heads' output: the extra cost is that of the queries and the attention.
    """
    sites = key_value_sites(model, start.layer)
    cache = model.run(rows, keep=sites, edits=edits, start=start, stop=Site("z", start.layer)).cache
    fresh = [cache[site][:, : read - start.offset] for site in sites]
    if not start.offset:
        return KeysValues(*fresh)
    times = (len(fresh[0]) // len(start.past[start.layer].keys), 1, 1, 1)
    return KeysValues(*(torch.cat([old.repeat(times), new], 1) for old, new in zip(start.past[start.layer], fresh)))


def _before(place: Place, read: int) -> bool:
    at = place.where.get("pos", read)
    listed = (at,) if isinstance(at, int) else at
    known = not place.site.part and place.site.kind in OF_KEYS | AFTER_KEYS
    return known and all(0 <= pos < read for pos in listed)
