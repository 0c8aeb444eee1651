"""Exact patches of single edges, many at once: one reader alone sees one writer's value from the other run.

The same as `paths.path_patch` of that writer to that reader, to rounding, at the cost of an ordinary patch: what the
writer adds to the residual stream is added to the base run's stream, the reader's own value is computed from the sum,
and this value is written into the base run. So an edge costs nothing before its reader's layer, readers of one kind and
layer are computed together, and all edges go through the layers as one sweep.
Source: Goldowsky-Dill et al., "Localizing model behavior with path patching" (2023), section 3, for the patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.edits import put
from micrographia.core.events import Watch, silent
from micrographia.core.graph import LOGITS, Edge, Node, check_additive, graph_of
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Cache, Model, Start
from micrographia.core.prompts import Pairs, check_aligned
from micrographia.core.sites import Site
from micrographia.core.sweep import Donor, MetricSet, Patched, Place, sweep
from micrographia.core.sweep.per_reader import AT_ONCE, read, repeated
from micrographia.core.sweep.writing import Frame, Write, as_edits
from micrographia.core.titles import Mode
from micrographia.core.tokens import Inputs, ids_of


def edge_patch(
    model: Model,
    pairs: Pairs,
    metrics: Sequence[Metric],
    edges: Sequence[Edge],
    *,
    mode: Mode = "denoise",
    tokens_at_once: int = AT_ONCE,
    watch: Watch = silent,
) -> Patched:
    """The effect of each edge by itself on the metrics. `denoise`: the base is the corrupt run.

    Cost: two forward passes and one of a single prompt; for each head that writes a run of its layer, for each edge one
    token by token of its reader's up to the reader, and the patch (`core.sweep`): 64 edges of a model of 30 layers take
    some 35 forwards. Memory: the residual streams of both runs, and for each edge of a batch of `tokens_at_once` tokens
    the values of its reader's Site.
    Errors: UserError for edges that the graph lacks, and models whose residual stream is not a sum; BadPrompt for pairs
    that do not line up.
    """
    check_aligned(pairs, model.tokenizer)
    by_head = any(edge.writer.site.kind == "z" for edge in edges)
    graph = graph_of(model, heads=by_head or None)
    for edge in edges:
        graph.place(edge)
    check_additive(model, pairs.clean)
    rows, base, other = prompts(len(pairs), pairs.answer.device), pairs.base(mode), pairs.donor(mode)
    reading = MetricSet(metrics, ids_of(base).shape[1])
    writes = list(dict.fromkeys(edge.writer.site for edge in edges))
    there = model.run(other, keep=writes, logits=reading.logits(rows))
    here = model.run(base, keep=_streams(model, writes), logits=reading.logits(rows))
    run = _EdgeRun(model, base, here.cache, there.cache)
    order = sorted(range(len(edges)), key=lambda i: graph.readers.index(edges[i].reader))
    n_at_once, found = max(1, tokens_at_once // ids_of(base).numel()), dict[int, Tensor]()
    for first in range(0, len(order), n_at_once):
        some = order[first : first + n_at_once]
        places, donors = run.patches([edges[i] for i in some])
        values = sweep(model, base, [(place,) for place in places], donors, metrics, watch=watch)
        found |= dict(zip(some, values))
    ends = (reading(there.logits, rows), reading(here.logits, rows))
    clean, corrupt = ends if mode == "denoise" else ends[::-1]
    values = torch.stack([found[i] for i in range(len(edges))])
    return Patched(mode, values, clean, corrupt, tuple(metric.name for metric in metrics))


def _streams(model: Model, writes: Sequence[Site]) -> list[Site]:
    kinds = ("resid_pre", "resid_mid", "attn_out")
    last = Site("resid_post", model.shape.n_layers - 1)
    return list(dict.fromkeys([*(site for site in model.sites if site.kind in kinds), last, *writes]))


@dataclass(frozen=True)
class _EdgeRun:
    """Both runs, of which every edge takes its writer's change and its reader's input."""

    model: Model
    inputs: Inputs
    here: Cache
    there: Cache

    def patches(self, edges: Sequence[Edge]) -> tuple[list[Place], list[Donor]]:
        """The place that stands for each edge, and its donor, which holds the reader's new value."""
        moved = self._changes(list(dict.fromkeys(edge.writer for edge in edges)))
        groups: dict[Site, list[int]] = {}
        for i, edge in enumerate(edges):
            groups.setdefault(edge.reader.site, []).append(i)
        places, donors = dict[int, Place](), dict[int, Donor]()
        for reader, members in groups.items():
            site, values = self._read(reader, torch.stack([moved[edges[i].writer] for i in members]))
            for i, value in zip(members, values):
                head = edges[i].reader.head
                places[i] = Place(site, {} if head is None else {"head": head}, i)
                donors[i] = {site: value}
        return [places[i] for i in range(len(edges))], [donors[i] for i in range(len(edges))]

    def _changes(self, writers: Sequence[Node]) -> Mapping[Node, Float[Tensor, "prompt pos d_model"]]:
        """What each writer's value from the other run adds to the residual stream."""
        found = {node: self.there[node.site] - self.here[node.site] for node in writers if node.head is None}
        for layer in sorted(
            {node.site.layer for node in writers if node.head is not None and node.site.layer is not None}
        ):
            heads = [node for node in writers if node.head is not None and node.site.layer == layer]
            found |= dict(zip(heads, self._heads(layer, heads)))
        return found

    def _heads(self, layer: int, heads: Sequence[Node]) -> Float[Tensor, "head prompt pos d_model"]:
        """One run of the layer, in which each copy of the prompts has one head replaced."""
        inputs, out = repeated(self.inputs, len(heads)), Site("attn_out", layer)
        writes = [Write(i, Place(node.site, {"head": node.head or 0})) for i, node in enumerate(heads)]
        edits = as_edits(writes, Frame([self.there], len(ids_of(self.inputs))))
        start = Start(layer, self.here[Site("resid_pre", layer)].repeat(len(heads), 1, 1))
        new = self.model.run(inputs, keep=out, edits=edits, start=start, stop=out).cache[out]
        return new.unflatten(0, (len(heads), -1)) - self.here[out]

    def _read(
        self, reader: Site, change: Float[Tensor, "edge prompt pos d_model"]
    ) -> tuple[Site, Float[Tensor, "edge prompt pos ..."]]:
        """The Site that stands for a reader, and its values where the reader sees each change."""
        if reader == LOGITS:
            last = Site("resid_post", self.model.shape.n_layers - 1)
            return last, self.here[last] + change
        layer = reader.layer
        assert layer is not None
        middle = Site("resid_mid", layer)
        entering = self.here[Site("resid_pre", layer)]
        if reader.kind != "mlp_pre":
            return reader, read(self.model, layer, [reader.kind], entering + change)[reader.kind]
        if middle not in self.model.sites:  # a parallel block: the MLP reads what attention reads
            return Site("neurons", layer), read(self.model, layer, ["neurons"], entering + change)["neurons"]
        out, rows = Site("mlp_out", layer), (self.here[middle] + change).flatten(0, 2)[:, None]
        tokens = torch.zeros(len(rows), 1, dtype=torch.long, device=rows.device)
        start = Start(layer, entering.expand_as(change).flatten(0, 2)[:, None])
        new = self.model.run(tokens, keep=out, edits=[put(middle, rows)], start=start, stop=out).cache[out]
        return out, new[:, 0].unflatten(0, change.shape[:-1])
