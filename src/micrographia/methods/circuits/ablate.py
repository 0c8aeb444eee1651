"""Circuit evaluation: exact runs of the model with everything outside a circuit ablated.

`Ablation` is the replacement: the other prompt of the pair, zeros, or the mean of a reference set. Scores depend on it,
so it is reported with every figure. `nodes_alone` ablates the outputs of components outside the circuit; `edges_alone`
gives each reader its own residual input, in which the writers of edges outside the circuit are ablated. The model runs
on the clean prompts; readers within the circuit are recomputed from their inputs.
Sources: Wang et al. (2022), section 2.1 (mean ablation, nodes); Conmy et al. (2023) and Hanna et al. (2024)
(the other prompt, edges); Miller et al. (2024) for how much the choice matters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.edits import Edit, put
from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.graph import INPUT, LOGITS, Edge, Graph, Node, check_additive, check_heads
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, check_aligned
from micrographia.core.sites import Site
from micrographia.core.sweep import Donor, MetricSet, Patch, Place, Reference, replacement, sweep
from micrographia.core.sweep.per_reader import read, repeated, run_end, run_layer
from micrographia.core.tokens import Inputs, ids_of, mask_of, rows_of
from micrographia.methods.circuits.members import Part

By = Literal["other", "zero", "mean"]
HELD = 2**26
"""The number of entries of the writers' d_model vectors that are held at once: 256 MB in float32."""
Alone = Callable[[Sequence[frozenset]], Float[Tensor, "circuit prompt"]]
"""Score function of circuits: the metric of each prompt with everything outside each circuit ablated."""


class Ablation(NamedTuple):
    """The replacement of everything outside a circuit: the pair's other prompt, zeros, or the mean over a reference.

    >>> print(Ablation("zero"))
    zeros
    """

    by: By = "other"
    reference: Inputs | None = None
    """For "mean"; by default the corrupt prompts. Wang et al. average within one template at a time."""

    def __str__(self) -> str:
        if self.by != "mean":
            return {"other": "the corrupt prompt of each pair", "zero": "zeros"}[self.by]
        of = "the corrupt prompts" if self.reference is None else f"{len(ids_of(self.reference))} reference prompts"
        return f"the mean over {of}, position by position"

    def values(self, model: Model, pairs: Pairs, sites: Sequence[Site]) -> Donor:
        """The replacement values by Site: (prompt or 1, ...). One forward pass.

        Raises UserError for a reference that this kind of ablation does not use.
        """
        if self.reference is not None and self.by != "mean":
            raise UserError(
                f"Ablation by {self.by!r} was asked for with reference prompts, which only 'mean' reads. Leave one out."
            )
        source = pairs.corrupt if self.reference is None else self.reference
        cache = model.fused.run(source, keep=sites, logits="last").cache
        if self.by == "other":
            return cache
        n_prompts, n_pos = ids_of(pairs.clean).shape
        return replacement(self.by, Reference(dict(cache), mask_of(source)), n_prompts, n_pos)


def nodes_alone(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    universe: Sequence[Part],
    *,
    ablation: Ablation | None = None,
    watch: Watch = silent,
) -> Alone:
    """Scores of circuits of Parts of this universe; the embeddings are always in.

    Cost of a circuit: at most one forward pass, from the first ablated part on; many circuits run together.
    Errors: UserError for parts that are not in the universe.
    """
    check_aligned(pairs, model.tokenizer)
    ablation = ablation or Ablation()
    sites = list(dict.fromkeys(part.node.site for part in universe))
    donor = ablation.values(model, pairs, sites)
    known = frozenset(universe)

    def score(circuits: Sequence[frozenset[Part]]) -> Tensor:
        for circuit in circuits:
            if unknown := circuit - known:
                raise UserError(f"{next(iter(unknown))} is in a circuit, but not in its universe.")
        patches = [_outside(universe, circuit) for circuit in circuits]
        some = [i for i, patch in enumerate(patches) if patch]
        whole = model.fused.run(pairs.clean, logits=metric.readout(prompts(len(pairs), pairs.answer.device))).logits
        found = metric(whole, prompts(len(pairs), pairs.answer.device)).repeat(len(circuits), 1)
        if some:
            found[some] = sweep(model, pairs.clean, [patches[i] for i in some], donor, [metric], watch=watch)[..., 0]
        return found

    return score


def _outside(universe: Sequence[Part], circuit: frozenset[Part]) -> Patch:
    """One Place for each Site and set of positions, with all its heads outside the circuit."""
    groups: dict[tuple[Site, int | None], list[int | None]] = {}
    for part in universe:
        if part not in circuit:
            groups.setdefault((part.node.site, part.pos), []).append(part.node.head)
    found = []
    for (site, pos), heads in groups.items():
        where: dict[str, int | tuple[int, ...]] = {} if pos is None else {"pos": pos}
        if heads[0] is not None:
            where["head"] = tuple(head for head in heads if head is not None)
        found.append(Place(site, where))
    return tuple(found)


def edges_alone(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    graph: Graph,
    *,
    ablation: Ablation | None = None,
    numbers_at_once: int = HELD,
    watch: Watch = silent,
) -> Alone:
    """Scores of circuits of Edges of this graph, exact: the input of every reader has the writers of its circuit edges
    as they are in this run, and all others ablated. The model's input is a writer too.

    Cost of a circuit: one forward pass, and in each layer norms and projections once more for every distinct set of
    edges of its readers; circuits that differ in late readers alone share the layers before. For SmolLM2-135M's shape,
    5 tokens on one CPU thread, 2 to 4 forwards. Memory: `numbers_at_once` floats, what every writer adds to the
    residual stream in the circuits and prompts that run together.
    Errors: BadConfig for a graph whose heads do not add up; UserError for edges it does not have.
    """
    check_aligned(pairs, model.tokenizer)
    check_heads(graph, model)
    check_additive(model, pairs.clean)
    ablation = ablation or Ablation()
    writes = list(dict.fromkeys(node.site for node in graph.writers))
    donor = ablation.values(model, pairs, writes)
    base = model.run(pairs.clean, keep=INPUT, stop=1).cache[INPUT]
    reading = MetricSet([metric], ids_of(pairs.clean).shape[1])
    groups = prompts(len(pairs), base.device).split(max(1, numbers_at_once // (len(graph.writers) * base[0].numel())))
    routed = [_Routed(model, rows_of(pairs.clean, rows), graph, donor, base[rows], reading, rows) for rows in groups]
    at_once = max(1, numbers_at_once // (len(graph.writers) * base[groups[0]].numel()))

    def score(circuits: Sequence[frozenset[Edge]]) -> Tensor:
        found = []
        for first in range(0, len(circuits), at_once):
            masks = torch.stack([graph.mask(circuit) for circuit in circuits[first : first + at_once]]).to(base.device)
            found.append(torch.cat([some.score(masks) for some in routed], 1))
            watch(Progress("circuits", min(first + at_once, len(circuits)), len(circuits), "circuit"))
        return torch.cat(found)

    return score


@dataclass(frozen=True)
class _Routed:
    """Runs of some prompts in which each reader has its own input.

    A state is a run up to here; circuits whose readers so far have the same edges share one. `gaps` (state, writer,
    prompt, pos, d_model) hold what each writer adds to the residual stream, less its replacement.
    """

    model: Model
    inputs: Inputs
    graph: Graph
    donor: Donor
    base: Float[Tensor, "prompt pos d_model"]
    reading: MetricSet
    prompt: Int[Tensor, "prompt"]

    @cached_property
    def columns(self) -> Mapping[int, Mapping[str, list[int]]]:
        """The readers of each layer by kind."""
        found: dict[int, dict[str, list[int]]] = {}
        for j, node in enumerate(self.graph.readers):
            if node.site.layer is not None:
                found.setdefault(node.site.layer, {}).setdefault(node.site.kind, []).append(j)
        return found

    @cached_property
    def spans(self) -> Mapping[Site, slice]:
        """The writers of each Site, which stand together."""
        sites = [node.site for node in self.graph.writers]
        return {site: slice(sites.index(site), sites.index(site) + sites.count(site)) for site in dict.fromkeys(sites)}

    def score(self, masks: Bool[Tensor, "circuit writer reader"]) -> Float[Tensor, "circuit prompt"]:
        state = torch.zeros(len(masks), dtype=torch.long, device=masks.device)  # of each circuit
        stream = self.base[None]
        gaps = self.base.new_empty((len(masks), len(self.graph.writers), *self.base.shape))
        gaps[:1, :1] = (self.base - self._given(INPUT))[None, None]
        for layer in range(self.model.shape.n_layers):
            here = [j for at in self.columns.get(layer, {}).values() for j in at]
            n_seen = max((self.graph.seen[j] for j in here), default=0)
            state, circuit = _split(state, len(stream), masks[:, :n_seen, here])
            if len(circuit) > len(stream):
                parent, filled = circuit[len(stream) :, 1], self.graph.seen[here[0]]
                gaps[len(stream) : len(circuit), :filled] = gaps[parent, :filled]
                stream = torch.cat([stream, stream[parent]])
            stream = stream + self._layer(layer, masks[circuit[:, 0]], stream, gaps[: len(circuit)])
        last = ~masks[:, :, self.graph.readers.index(Node(LOGITS))]
        left = torch.stack([stream[i] - _mixed(out[None], gaps[i])[0] for out, i in zip(last, state.tolist())])
        rows = self.prompt.repeat(len(masks))
        logits = run_end(self.model, repeated(self.inputs, len(masks)), left.flatten(0, 1), self.reading.logits(rows))
        return self.reading(logits, rows)[:, 0].unflatten(0, (len(masks), -1))

    def _layer(self, layer: int, masks: Tensor, stream: Tensor, gaps: Tensor) -> Tensor:
        """What a layer adds to the stream of each state; its writers' gaps are filled in."""
        columns = dict(self.columns.get(layer, {}))
        heads, whole, out = Site("z", layer), Site("attn_out", layer), Site("mlp_out", layer)
        own = heads if heads in self.spans else whole

        def fill(site: Site, value: Tensor) -> None:
            less = value.unflatten(0, (len(masks), -1)) - self._given(site)
            parts = (
                torch.einsum("nbphe,hed->nhbpd", less, self.model.weights.W_O[layer])
                if site == heads
                else less[:, None]
            )
            gaps[:, self.spans[site]] = parts

        between = "mlp_pre" in columns and Site("resid_mid", layer) in self.model.sites
        reader = columns.pop("mlp_pre")[0] if between else 0

        def middle(mid: Tensor, z: Tensor) -> Tensor:
            fill(own, z if own == heads else mid - stream.flatten(0, 1))
            n = self.graph.seen[reader]
            missing = [_mixed(~mask[None, :n, reader], gap[:n])[0] for mask, gap in zip(masks, gaps)]
            return mid - torch.stack(missing).flatten(0, 1)

        edits = self._reads(layer, columns, masks, stream, gaps)
        written = run_layer(
            self.model,
            repeated(self.inputs, len(masks)),
            layer,
            stream.flatten(0, 1),
            edits,
            middle if between else None,
        )
        if not between:
            fill(own, written.z if own == heads else written.attn_out)
        if written.mlp_out is not None:
            fill(out, written.mlp_out)
        return written.total.unflatten(0, (len(masks), -1))

    def _reads(
        self, layer: int, columns: Mapping[str, list[int]], masks: Tensor, stream: Tensor, gaps: Tensor
    ) -> list[Edit]:
        """Edits with the values of this layer's readers for their own inputs, each distinct input computed once."""
        readers = [j for at in columns.values() for j in at]
        n = self.graph.seen[readers[0]] if readers else 0
        patterns = masks[:, :n, readers].transpose(1, 2)
        if patterns.all():
            return []
        found = [pattern.unique(dim=0, return_inverse=True) for pattern in patterns]
        counts = [len(different) for different, _ in found]
        inputs = [own - _mixed(~different, gap[:n]) for (different, _), own, gap in zip(found, stream, gaps)]
        starts = torch.tensor([0, *counts[:-1]], device=masks.device).cumsum(0)
        place = torch.stack([inverse for _, inverse in found]) + starts[:, None]
        kinds = ["neurons" if kind == "mlp_pre" else kind for kind in columns]
        values = read(self.model, layer, kinds, torch.cat(inputs))
        edits: list[Edit] = []
        for kind, places in zip(kinds, place.split([len(at) for at in columns.values()], 1)):
            value = values[kind]
            if kind == "neurons":
                own = value[places[:, 0]]
            else:
                own = torch.stack([value[at, :, :, head] for head, at in enumerate(places.T)], 3)
            edits.append(put(Site(kind, layer), own.flatten(0, 1)))
        return edits

    def _given(self, site: Site) -> Tensor:
        """The replacement of a Site, for these prompts or for all alike."""
        value = self.donor[site]
        return value[self.prompt] if len(value) > 1 else value


def _split(
    state: Int[Tensor, "circuit"], n: int, read: Bool[Tensor, "circuit writer reader"]
) -> tuple[Int[Tensor, "circuit"], Int[Tensor, "state 2"]]:
    """The new state of each circuit, of `n` so far; and of each state one of its circuits, and the state that it was.

    Circuits stay in one state as long as they read alike. Old states keep their numbers; new ones come behind.
    """
    named = torch.cat([state[:, None], read.flatten(1).to(state)], 1)
    _, group = named.unique(dim=0, return_inverse=True)
    first = torch.full((int(group.max()) + 1,), len(state), device=state.device)
    first.scatter_reduce_(0, group, torch.arange(len(state), device=state.device), "amin")
    parent = state[first]
    heir = torch.full((n,), len(first), device=state.device)  # of each state, the group that keeps its number
    heir.scatter_reduce_(0, parent, torch.arange(len(first), device=state.device), "amin")
    number = torch.empty_like(parent)
    new = heir[parent] != torch.arange(len(first), device=state.device)
    number[~new] = parent[~new]
    number[new] = n + torch.arange(int(new.sum()), device=state.device)
    order = number.argsort()
    return number[group], torch.stack([first, parent], 1)[order]


def _mixed(
    out: Bool[Tensor, "pattern writer"], gap: Float[Tensor, "writer *stream"]
) -> Float[Tensor, "pattern *stream"]:
    """The sum of the writers outside each pattern."""
    return (out.to(gap) @ gap.flatten(1)).unflatten(1, gap.shape[1:])
