"""Path patching, exact: the direct effect of senders on chosen receivers, everything else as in the base run.

The sender's contribution is the change of its sublayer's output to the residual stream when the sender takes its value
from the other run. It is added to the input of the receivers (q, k and v inputs of heads, MLP inputs, the logits) and
of no other reader; everything after the receivers is recomputed.
Sources: Wang et al., "Interpretability in the wild" (2022), section 3.1 and appendix B; Goldowsky-Dill et al.,
"Localizing model behavior with path patching" (2023), section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.edits import Edit, put
from micrographia.core.effects import Effects
from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.graph import INPUT, LOGITS, Graph, Node, check_additive, few, graph_of
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Cache, Model, Start
from micrographia.core.prompts import Pairs, check_aligned, position_names
from micrographia.core.sites import Site, select
from micrographia.core.sweep import Donor, MetricSet, Patch, Patched, Place
from micrographia.core.sweep.per_reader import AT_ONCE, Written, read, repeated, run_end, run_layer
from micrographia.core.sweep.places import axis_length, words_of
from micrographia.core.sweep.writing import Frame, Write, as_edits, check_donors
from micrographia.core.titles import Mode
from micrographia.core.tokens import Inputs, ids_of

FRONT = frozenset({"embed", "pos_embed"})
ATTENTION = frozenset(
    {"attn_norm_scale", "attn_norm", "q", "k", "v", "rot_q", "rot_k", "scores", "pattern", "z", "result", "attn_raw"}
)  # what reaches the residual stream as attn_out
MLP = frozenset({"mlp_norm_scale", "mlp_norm", "mlp_pre", "mlp_up", "neurons", "mlp_raw"})  # and as mlp_out


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """The definition of a path.

    >>> print(Rule(mlps="free"))
    receivers see each other's changes; MLPs between sender and receiver are recomputed; norms free
    """

    receivers: Literal["interacting", "independent"] = "interacting"
    """`interacting`: a receiver also sees the changes of earlier receivers, so that edges are patched (Goldowsky-Dill
    et al.). `independent`: its input is that of the base run plus the contribution, whatever the other receivers do
    (Wang et al.)."""
    mlps: Literal["frozen", "free"] = "frozen"
    """`free`: MLPs between sender and receiver are recomputed, so paths through them count, as in Wang et al. for paths
    between heads; MLPs that are receivers are excluded. `frozen`: they keep their base value."""
    norms: Literal["free", "frozen"] = "free"
    """`frozen`: receivers divide by the base run's scale, at the norms before attention, MLP and logits. Contributions
    then act linearly on q, k, v and the logits, unless the model also norms queries and keys (Qwen 3, Gemma 3, OLMo 2)
    or caps logits (Gemma 2); norms after a sublayer are never frozen."""

    def __str__(self) -> str:
        receivers = "see" if self.receivers == "interacting" else "do not see"
        mlps = "recomputed" if self.mlps == "free" else "frozen"
        return (
            f"receivers {receivers} each other's changes; MLPs between sender and receiver are {mlps}; "
            f"norms {self.norms}"
        )


def path_patch(
    model: Model,
    pairs: Pairs,
    metrics: Sequence[Metric],
    senders: Sequence[Patch],
    receivers: Sequence[Node],
    *,
    mode: Mode = "denoise",
    rule: Rule | None = None,
    donors: Sequence[Donor] | None = None,
    tokens_at_once: int = AT_ONCE,
    watch: Watch = silent,
) -> Patched:
    """The direct effect of each sender on the metrics through all receivers. `denoise`: the base is the corrupt run.

    A sender is a Patch: any Places (a head of `z`, a neuron at one position, an embedding ...); with several Places,
    each has its own direct contribution. Receivers are readers of `core.graph` (`Node(Site("q", 9), 6)`,
    `Node(LOGITS)`); those before a sender are unaffected. Keys and values are received per key/value head. `donors`:
    the source of the senders' values instead of the other run.
    Cost: a run of one layer per sender, then per sender two runs of each layer that has receivers and one of the layers
    after the first of those (one more of each layer with `mlps="free"`); all senders that fit `tokens_at_once` run
    together.
    Errors: UserError for no sender, no receiver, an unknown receiver, and models whose residual stream is not a sum.
    """
    rule = rule or Rule()
    check_aligned(pairs, model.tokenizer)
    if not senders:
        raise UserError("Asked for paths from no sender. Name some, for instance 'L*.z'.")
    graph = graph_of(model)
    _check(graph, receivers)
    check_additive(model, pairs.clean)
    base, other = pairs.base(mode), pairs.donor(mode)
    reading = MetricSet(metrics, ids_of(base).shape[1])
    rows = prompts(len(pairs), pairs.answer.device)
    sites = list(dict.fromkeys(place.site for patch in senders for place in patch))
    there = model.run(other, keep=sites, logits=reading.logits(rows))
    here = model.run(base, keep=_kept(model, sites, rule), logits=reading.logits(rows))
    given = donors or [there.cache]
    check_donors(senders, given)
    run = _PathRun(model, base, here.cache, tuple(receivers), rule, reading)
    at_once = max(1, tokens_at_once // ids_of(base).numel())
    found: list[Tensor] = []
    for first in range(0, len(senders), at_once):
        some = senders[first : first + at_once]
        found.append(run.metrics([run.contributions(patch, given) for patch in some]))
        watch(Progress("path patching", first + len(some), len(senders), "sender"))
    baselines = (reading(there.logits, rows), reading(here.logits, rows))
    clean, corrupt = baselines if mode == "denoise" else baselines[::-1]
    return Patched(mode, torch.cat(found), clean, corrupt, tuple(metric.name for metric in metrics))


def path_effects(
    model: Model, pairs: Pairs, metric: Metric, senders: Sequence[Place], receivers: Sequence[Node], **choices: Any
) -> Effects:
    """`path_patch` of one metric, each of these places by itself, as Effects. `choices` are those of `path_patch`.

    Senders of one Site name the same axes, by single numbers. Raises UserError for senders that do not.
    """
    sites: dict[Site, list[int]] = {}
    for i, place in enumerate(senders):
        sites.setdefault(place.site, []).append(i)
    axes = {site: _axes_of([senders[i] for i in chosen]) for site, chosen in sites.items()}
    done = path_patch(model, pairs, [metric], [(place,) for place in senders], receivers, **choices)
    scores, taken = dict[Site, Tensor](), dict[Site, Tensor]()
    n_pos = ids_of(pairs.clean).shape[1]
    for site, chosen in sites.items():
        changes = done.effects()[chosen, :, 0]
        lengths = [axis_length(model.shape, site, axis, n_pos) for axis in axes[site]]
        score = changes.new_full((changes.shape[1], *lengths), torch.nan)
        for change, i in zip(changes, chosen):
            score[(slice(None), *(senders[i].where[axis] for axis in axes[site]))] = change
        scores[site] = score
        if len(chosen) < math.prod(lengths):
            taken[site] = torch.zeros(lengths, dtype=torch.bool)
            for i in chosen:
                taken[site][tuple(senders[i].where[axis] for axis in axes[site])] = True
    return Effects(
        mode=done.mode,
        method="exact",
        scores=scores,
        axes=axes,
        clean=done.clean[:, 0],
        corrupt=done.corrupt[:, 0],
        metric=metric.name,
        unit=metric.unit,
        source=f"the other run, along the paths to {', '.join(map(str, receivers))}",
        positions=tuple(position_names(pairs, model.tokenizer)),
        taken=taken,
        group=model.shape.group,
    )


def _axes_of(places: Sequence[Place]) -> tuple[str, ...]:
    """The axes that these places of one Site name, in the Site's order."""
    site = places[0].site
    if len({frozenset(place.where) for place in places}) > 1 or len({str(place) for place in places}) < len(places):
        shown = ", ".join(map(str, places[:4]))
        raise UserError(f"Asked for paths from {shown}. Name the same axes of {site} each time, and no place twice.")
    return tuple(axis for axis in words_of(site) if axis in places[0].where)


def receivers_of(model: Model, names: Sequence[str | Node]) -> list[Node]:
    """Receivers by name: "L1.q[3]" one head, "L1.q" or "L*.q" every head, "L*.mlp_pre", "logits".

    Raises UserError for a Site that reads nothing from the residual stream, UnknownSite.
    """
    readers, found = graph_of(model).readers, list[Node]()
    for name in names:
        one = Node.parse(name) if isinstance(name, str) and name.endswith("]") else name
        wanted = {one} if isinstance(one, Node) else {n for n in readers if n.site in select(model.sites, one)}
        if not wanted & set(readers):
            raise UserError(
                f"Asked for paths to {name}, which reads nothing from the residual stream by itself. Receivers are the "
                "query, key or value of a head (L1.q[0], or L1.q for all of a layer), the input of an MLP "
                f"(L1.mlp_pre) and the logits; here {readers[0]} ... {readers[-1]}."
            )
        found += [node for node in readers if node in wanted and node not in found]
    return found


def _check(graph: Graph, receivers: Sequence[Node]) -> None:
    if not receivers:
        raise UserError("Asked for paths to no receiver. Give some, for instance Node(Site('logits')).")
    if unknown := [str(node) for node in receivers if node not in graph.readers]:
        raise UserError(
            f"Asked for paths to {', '.join(unknown[:5])}, which read nothing from the residual stream here. Receivers "
            f"are {few(graph.readers)}."
        )


def _kept(model: Model, sites: Sequence[Site], rule: Rule) -> list[Site]:
    kinds = {"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"}
    if rule.norms == "frozen":
        kinds |= {"attn_norm_scale", "mlp_norm_scale", "final_norm_scale"}
    return list(dict.fromkeys([*(site for site in model.sites if site.kind in kinds), *sites]))


class _Contribution(NamedTuple):
    """`change` of the residual stream from moment `after` on: 3 l is before layer l, 3 l + 1 before its MLP."""

    after: int
    change: Float[Tensor, "prompt pos d_model"]


@dataclass(frozen=True)
class _PathRun:
    """The base run and the receivers, shared by all senders: computes contributions and the patched metrics."""

    model: Model
    inputs: Inputs
    base: Cache
    receivers: tuple[Node, ...]
    rule: Rule
    reading: MetricSet

    @cached_property
    def sites(self) -> frozenset[Site]:
        return frozenset(self.model.sites)

    def contributions(self, patch: Patch, donors: Sequence[Donor]) -> list[_Contribution]:
        """The direct contributions of a sender's places, those of one sublayer together."""
        groups: dict[tuple[int, Site], list[Write]] = {}
        for place in patch:
            groups.setdefault(_way_out(place.site), []).append(Write(0, place))
        frame = Frame(donors, len(ids_of(self.inputs)))
        found = []
        for (after, out), writes in groups.items():
            layer = out.layer or 0
            start = None if out == INPUT else Start(layer, self.base[Site("resid_pre", layer)])
            edits = as_edits(writes, frame)
            new = self.model.run(self.inputs, keep=out, edits=edits, start=start, stop=layer + 1).cache[out]
            found.append(_Contribution(after, new - self.base[out]))
        return found

    def metrics(self, senders: Sequence[list[_Contribution]]) -> Float[Tensor, "sender prompt metric"]:
        """Run the layers from the first receiver on, with each sender's contribution in the receivers' inputs."""
        n, n_layers = len(senders), self.model.shape.n_layers
        inputs = repeated(self.inputs, n)
        first = min((node.site.layer for node in self.receivers if node.site.layer is not None), default=n_layers)
        through = self._through_mlps(senders, inputs)
        stream = self._entering(first, n)
        for layer in range(first, n_layers):
            added = [self._added(senders, 3 * layer + half) + through[layer] for half in (0, 1)]
            stream = stream + self._layer(inputs, layer, stream, added[0], added[1], n).total
        scales = {}
        if Node(LOGITS) in self.receivers:
            own = stream if self.rule.receivers == "interacting" else self._entering(n_layers, n)
            stream = own + self._added(senders, 3 * n_layers) + through[n_layers]
            scales = self._scales("final_norm_scale", None, n)
        rows = prompts(len(ids_of(self.inputs)), stream.device).repeat(n)
        logits = run_end(self.model, inputs, stream, self.reading.logits(rows), scales)
        return self.reading(logits, rows).unflatten(0, (n, -1))

    def _layer(self, inputs: Inputs, layer: int, stream: Tensor, before: Tensor, inside: Tensor, n: int) -> Written:
        """One layer whose receivers read the stream plus `before`, or `inside` for an MLP after its attention."""
        here = [node for node in self.receivers if node.site.layer == layer]
        own = stream if self.rule.receivers == "interacting" else self._entering(layer, n)
        between = Site("resid_mid", layer) in self.sites
        has_mlp = any(node.site.kind == "mlp_pre" for node in here)
        kinds = [kind for kind in "qkv" if any(node.site.kind == kind for node in here)]
        kinds += ["neurons"] if has_mlp and not between else []
        edits: list[Edit] = []
        if kinds:
            scales = self._scales("attn_norm_scale", layer, n)
            scales |= self._scales("mlp_norm_scale", layer, n) if "neurons" in kinds else {}
            for kind, value in read(self.model, layer, kinds, own + before, scales).items():
                heads = [node.head for node in here if node.site.kind == kind and node.head is not None]
                where = {"head": heads} if heads else {}
                edits.append(put(Site(kind, layer), value[:, :, heads] if heads else value, **where))
        if not (has_mlp and between):
            return run_layer(self.model, inputs, layer, stream, edits)
        edits += [put(site, scale) for site, scale in self._scales("mlp_norm_scale", layer, n).items()]
        independent = self.rule.receivers == "independent"
        middle = self._expanded(Site("resid_mid", layer), n)
        return run_layer(
            self.model, inputs, layer, stream, edits, lambda mid, z: (middle if independent else mid) + inside
        )

    def _through_mlps(self, senders: Sequence[list[_Contribution]], inputs: Inputs) -> list[Tensor | float]:
        """The contributions through intermediate MLPs, at the input of each layer."""
        n, n_layers = len(senders), self.model.shape.n_layers
        nothing: list[Tensor | float] = [0.0] * (n_layers + 1)
        if self.rule.mlps == "frozen":
            return nothing
        begin = min(part.after for parts in senders for part in parts)
        through = nothing
        for layer in range(n_layers):
            through[layer + 1] = through[layer]
            out = Site("mlp_out", layer)
            if 3 * layer + 1 < begin or out not in self.sites or Node(Site("mlp_pre", layer)) in self.receivers:
                continue
            between = Site("resid_mid", layer) in self.sites
            added = self._added(senders, 3 * layer + between) + through[layer]
            base = self._entering(layer, n)
            if between:
                middle = self._expanded(Site("resid_mid", layer), n) + added
                new = run_layer(self.model, inputs, layer, base, [put(Site("resid_mid", layer), middle)]).mlp_out
            else:
                new = run_layer(self.model, inputs, layer, base + added).mlp_out
            assert new is not None
            through[layer + 1] = through[layer] + new - self._expanded(out, n)
        return through

    def _added(self, senders: Sequence[list[_Contribution]], moment: int) -> Tensor:
        """The sum of contributions up to this moment, (sender and prompt, pos, d_model)."""
        zero = torch.zeros_like(self.base[INPUT])
        return torch.cat([sum((part.change for part in parts if part.after <= moment), zero) for parts in senders])

    def _entering(self, layer: int, n: int) -> Tensor:
        last = layer == self.model.shape.n_layers
        return self._expanded(Site("resid_post", layer - 1) if last else Site("resid_pre", layer), n)

    def _expanded(self, site: Site, n: int) -> Tensor:
        return self.base[site].repeat(n, 1, 1)

    def _scales(self, kind: str, layer: int | None, n: int) -> dict[Site, Tensor]:
        site = Site(kind, layer)
        return {site: self._expanded(site, n)} if self.rule.norms == "frozen" and site in self.sites else {}


def _way_out(site: Site) -> tuple[int, Site]:
    """The moment from which a change at this Site is in the residual stream, and the Site where it enters.

    Raises UserError for a Site without its own output to the residual stream.
    """
    if site.kind in FRONT or site == INPUT:
        return 0, INPUT
    if site.layer is None or site.kind == "resid_post":
        raise UserError(
            f"Asked for paths from {site}, which writes to no later reader of its own. Send from an embedding, from a "
            "part of attention or an MLP, or from resid_pre or resid_mid."
        )
    layer = site.layer
    if site.kind in ATTENTION or site.kind == "attn_out":
        return 3 * layer + 1, Site("attn_out", layer)
    if site.kind in MLP or site.kind == "mlp_out":
        return 3 * layer + 2, Site("mlp_out", layer)
    return (3 * layer, Site("resid_pre", layer)) if site.kind == "resid_pre" else (3 * layer + 1, site)
