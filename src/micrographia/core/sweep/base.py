"""The unpatched run, kept as far as restarts need it: residual streams, keys and values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from micrographia.core.edits import Edit
from micrographia.core.model import Cache, KeysValues, Model, Start
from micrographia.core.sites import Site
from micrographia.core.sweep.writing import BEFORE_LAYERS
from micrographia.core.tokens import Inputs, ids_of


class Base(NamedTuple):
    """`residual[layer]` (prompt, pos, d_model) enters that layer; `cache` is what the caller asked to keep."""

    n_prompts: int
    residual: dict[int, Tensor]
    past: dict[int, KeysValues]
    cache: Cache

    def start(self, layer: int, residual: Tensor, offset: int, stop: int | None) -> Start:
        """Begin at `layer` with these rows, all of them at `offset`, on the way to the layer before `stop`."""
        if not offset:
            return Start(layer, residual)
        return Start(layer, residual, offset, Past(self.past, layer, stop, len(residual) // self.n_prompts, offset))


class Past(Mapping[int, KeysValues]):
    """Keys and values of the positions before `offset`, repeated for every patch when they are read and not before.

    Layers that the run does not reach are there too, as a Model may ask for all of them, but of one row.
    """

    def __init__(
        self, whole: Mapping[int, KeysValues], first: int, stop: int | None, n_patches: int, offset: int
    ) -> None:
        self._whole = whole
        self._layers = [layer for layer in whole if layer >= first]
        self._reached = max(whole) + 1 if stop is None else stop
        self._times = (n_patches, 1, 1, 1)
        self._offset = offset

    def __getitem__(self, layer: int) -> KeysValues:
        keys, values = (x[:, : self._offset] for x in self._whole[layer])
        if layer >= self._reached:
            return KeysValues(keys[:1], values[:1])
        return KeysValues(keys.repeat(self._times), values.repeat(self._times))

    def __iter__(self) -> Iterator[int]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def run_base(
    model: Model, inputs: Inputs, joins: Sequence[int], *, reuse: bool, keep: Sequence[Site], edits: Sequence[Edit]
) -> Base:
    """Run the prompts once. Keeps the residual stream at each layer of `joins`, `keep`, and with `reuse` the keys and
    values from the first of them on. One forward pass without logits.
    """
    n_layers = model.shape.n_layers
    streams = {layer: _entering(layer) for layer in joins if layer >= 0}
    first = min(streams, default=n_layers)
    key = "rot_k" if Site("rot_k", 0) in model.sites else "k"
    pasts = {i: (Site(key, i), Site("v", i)) for i in range(first, n_layers)} if reuse else {}
    wanted = dict.fromkeys([*streams.values(), *(site for pair in pasts.values() for site in pair), *keep])
    late = any(site.layer is None and site.kind not in BEFORE_LAYERS for site in wanted)
    stop = None if late else max((site.layer + 1 for site in wanted if site.layer is not None), default=0)
    cache = model.run(inputs, keep=list(wanted), edits=_reached(edits, stop), logits="last", stop=stop).cache
    return Base(
        n_prompts=len(ids_of(inputs)),
        residual={layer: cache[site] for layer, site in streams.items()},
        past={i: KeysValues(cache[k], cache[v]) for i, (k, v) in pasts.items()},
        cache=Cache({site: cache[site] for site in keep}),
    )


def _entering(layer: int) -> Site:
    return Site("resid_post", layer - 1) if layer else Site("resid_pre", 0)


def _reached(edits: Sequence[Edit], stop: int | None) -> list[Edit]:
    """The edits that a run up to this layer meets."""
    return [
        e
        for e in edits
        if stop is None or e.site.kind in BEFORE_LAYERS or (e.site.layer is not None and e.site.layer < stop)
    ]
