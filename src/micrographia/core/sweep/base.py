"""The unpatched run, with what restarts need: residual streams, keys and values."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from micrographia.core.edits import Edit
from micrographia.core.model import Cache, KeysValues, Model, Start
from micrographia.core.sites import Site
from micrographia.core.sweep.writing import BEFORE_LAYERS
from micrographia.core.tokens import Inputs


class Base(NamedTuple):
    """`residual[layer]` (prompt, pos, d_model) enters that layer; `cache` holds the Sites that the caller keeps."""

    residual: dict[int, Tensor]
    past: dict[int, KeysValues]
    cache: Cache

    def start(self, layer: int, residual: Tensor, offset: int) -> Start:
        """Start at `layer` with these rows, all at position `offset`, on the base run's earlier keys and values."""
        if not offset:
            return Start(layer, residual)
        past = {i: KeysValues(*(x[:, :offset] for x in past)) for i, past in self.past.items() if i >= layer}
        return Start(layer, residual, offset, past)


def run_base(
    model: Model,
    inputs: Inputs,
    start_layers: Sequence[int],
    *,
    reuse: bool,
    keep: Sequence[Site],
    edits: Sequence[Edit],
) -> Base:
    """Run the prompts once. Keeps the residual stream at each of `start_layers`, the Sites of `keep`, and with `reuse`
    the keys and values from the first start layer on. One forward pass without logits.
    """
    n_layers = model.shape.n_layers
    streams = {layer: _entering(layer) for layer in start_layers if layer >= 0}
    first = min(streams, default=n_layers)
    pasts = {i: key_value_sites(model, i) for i in range(first, n_layers)} if reuse else {}
    wanted = dict.fromkeys([*streams.values(), *(site for pair in pasts.values() for site in pair), *keep])
    late = any(site.layer is None and site.kind not in BEFORE_LAYERS for site in wanted)
    stop = None if late else max((site.layer + 1 for site in wanted if site.layer is not None), default=0)
    cache = model.run(inputs, keep=list(wanted), edits=_reached(edits, stop), logits="last", stop=stop).cache
    return Base(
        residual={layer: cache[site] for layer, site in streams.items()},
        past={i: KeysValues(cache[k], cache[v]) for i, (k, v) in pasts.items()},
        cache=Cache({site: cache[site] for site in keep}),
    )


def key_value_sites(model: Model, layer: int) -> tuple[Site, Site]:
    """The Sites of the keys as attention uses them (after rotary), and of the values."""
    return Site("rot_k" if Site("rot_k", layer) in model.sites else "k", layer), Site("v", layer)


def _entering(layer: int) -> Site:
    return Site("resid_post", layer - 1) if layer else Site("resid_pre", 0)


def _reached(edits: Sequence[Edit], stop: int | None) -> list[Edit]:
    """The edits that a run up to this layer reaches."""
    return [
        e
        for e in edits
        if stop is None or e.site.kind in BEFORE_LAYERS or (e.site.layer is not None and e.site.layer < stop)
    ]
