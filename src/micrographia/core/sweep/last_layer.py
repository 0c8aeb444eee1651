"""The last layer where only later positions are read: of the others nothing but keys and values reaches them.

Of a patched run at position p, read at the last of T tokens, that saves nine twelfths of the last layer's products at
T - p - 1 of its T - p positions: queries and attention are computed on the way to the heads' output, where it ends.
"""

from collections.abc import Sequence

import torch

from micrographia.core.edits import Edit
from micrographia.core.model import KeysValues, Model, Start
from micrographia.core.sites import Site
from micrographia.core.sweep.base import compared
from micrographia.core.sweep.places import Place
from micrographia.core.sweep.writing import BEFORE_LAYERS
from micrographia.core.tokens import Inputs

OF_KEYS = frozenset({"k", "rot_k", "v"})
BEHIND_KEYS = frozenset({"q", "rot_q", "z", "result", "attn_raw", "attn_out", "resid_mid", "mlp_pre", "mlp_up"})
BEHIND_KEYS |= {"mlp_norm_scale", "mlp_norm", "neurons", "mlp_raw", "mlp_out", "resid_post"}
"""What no later position sees, in the last layer."""


def is_separable(places: Sequence[Place], edits: Sequence[Edit], last: int, read: int) -> bool:
    """Whether keys and values of the positions before `read` can be computed apart under these writes.

    They can where the last layer is written before `read` alone, and nowhere that both parts would have to compute.
    """
    if any(edit.site.layer in (last, None) and edit.site.kind not in BEFORE_LAYERS for edit in edits):
        return False
    return all(_before(place, read) for place in places if place.site.layer in (last, None))


def is_of_keys(site: Site, layer: int) -> bool:
    return site.layer == layer and site.kind in OF_KEYS


def keys_behind(model: Model, rows: Inputs, start: Start, edits: Sequence[Edit], read: int) -> KeysValues:
    """Keys and values of the layer where the run starts, at the positions before `read`: of every row its own.

    The run goes up to the heads' output: all that this costs beyond keys and values is the queries and the attention.
    """
    sites = compared(model, start.layer)
    cache = model.run(rows, keep=sites, edits=edits, start=start, stop=Site("z", start.layer)).cache
    fresh = [cache[site][:, : read - start.offset] for site in sites]
    if not start.offset:
        return KeysValues(*fresh)
    times = (len(fresh[0]) // len(start.past[start.layer].keys), 1, 1, 1)
    return KeysValues(*(torch.cat([old.repeat(times), new], 1) for old, new in zip(start.past[start.layer], fresh)))


def _before(place: Place, read: int) -> bool:
    at = place.where.get("pos", read)
    listed = (at,) if isinstance(at, int) else at
    known = not place.site.part and place.site.kind in OF_KEYS | BEHIND_KEYS
    return known and all(0 <= pos < read for pos in listed)
