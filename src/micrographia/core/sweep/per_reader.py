"""Runs in which readers have different residual inputs, layer by layer: for path patching and edge circuits.

In a model all readers share one residual stream. Here a layer is run in two steps: the readers with another input are
computed from it (`read`), then the layer runs with their values in place (`run_layer`). Both are runs of the model
itself, so nothing is assumed about its norms and projections. Readers act position by position, so `read` takes rows of
one token each.
Cost: `read` runs a layer up to the requested values, once per distinct input.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.edits import Edit, apply, observe, put
from micrographia.core.model import LogitsAt, Model, Start
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs, ids_of, rows_of

AT_ONCE = 16_384
"""Tokens that are processed at once."""

Scales = Mapping[Site, Tensor]
"""Frozen scales of norms, by Site: (row, pos, 1). Empty: none is frozen."""


class Written(NamedTuple):
    """The outputs of a layer: to the residual stream, and of its heads. `mlp_out` is None in a layer without an MLP."""

    z: Float[Tensor, "row pos head d_head"]
    attn_out: Float[Tensor, "row pos d_model"]
    mlp_out: Float[Tensor, "row pos d_model"] | None

    @property
    def total(self) -> Tensor:
        return self.attn_out if self.mlp_out is None else self.attn_out + self.mlp_out


def repeated(inputs: Inputs, times: int) -> Inputs:
    """The prompts, `times` over."""
    n = len(ids_of(inputs))
    return rows_of(inputs, torch.arange(n, device=ids_of(inputs).device).repeat(times))


def read(
    model: Model,
    layer: int,
    kinds: Sequence[str],
    residual: Float[Tensor, "*rows d_model"],
    scales: Scales | None = None,
) -> dict[str, Tensor]:
    """The values of readers of these kinds ("q", "k", "v", "neurons") for a residual stream: kind -> (*rows, ...).

    "neurons" are those of a parallel block's MLP, which reads the stream entering the layer.
    """
    rows = residual.flatten(0, -2)[:, None]
    held = {site: scale.flatten(0, -2)[:, None] for site, scale in (scales or {}).items()}
    sites = {kind: Site(kind, layer) for kind in kinds}
    end = max(sites.values(), key=model.sites.index)
    parts: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for first in range(0, len(rows), AT_ONCE):
        at = slice(first, first + AT_ONCE)
        edits = [put(site, scale[at]) for site, scale in held.items()]
        tokens = torch.zeros(len(rows[at]), 1, dtype=torch.long, device=residual.device)
        start = Start(layer, rows[at])
        cache = model.run(tokens, keep=list(sites.values()), edits=edits, start=start, stop=end).cache
        for kind, site in sites.items():
            parts[kind].append(cache[site][:, 0])
    return {kind: torch.cat(found).unflatten(0, residual.shape[:-1]) for kind, found in parts.items()}


def run_layer(
    model: Model,
    inputs: Inputs,
    layer: int,
    residual: Float[Tensor, "row pos d_model"],
    edits: Sequence[Edit] = (),
    middle: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Written:
    """Run one layer on `residual`, with these edits (the values of readers with other inputs).

    `middle` maps the stream between attention and MLP, and this layer's z, to the stream that the MLP reads.
    """
    live: list[Tensor] = []
    if middle is not None:
        edits = [
            *edits,
            observe(Site("z", layer), live.append),
            apply(Site("resid_mid", layer), lambda mid: middle(mid, live[-1])),
        ]
    has_mlp = Site("mlp_out", layer) in model.sites
    kinds = ("z", "attn_out", "mlp_out") if has_mlp else ("z", "attn_out")
    sites = [Site(kind, layer) for kind in kinds]
    cache = model.run(inputs, keep=sites, edits=edits, start=Start(layer, residual), stop=layer + 1).cache
    return Written(cache[sites[0]], cache[sites[1]], cache[sites[2]] if has_mlp else None)


def run_end(
    model: Model,
    inputs: Inputs,
    residual: Float[Tensor, "row pos d_model"],
    logits: LogitsAt,
    scales: Scales | None = None,
) -> Tensor:
    """The logits of a residual stream that leaves the last layer."""
    edits = [put(site, scale) for site, scale in (scales or {}).items()]
    return model.run(inputs, edits=edits, logits=logits, start=Start(model.shape.n_layers, residual)).logits
