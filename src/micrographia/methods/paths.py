"""Path patching, exact: what a sender says directly to chosen receivers, everything else as in the base run.

The sender's message is what its own sublayer adds to the residual stream when the sender takes its value from the other
run, less what it adds in the base run. Receivers (q, k and v inputs of heads, MLPs' inputs, the logits) read the stream
plus the message; whatever follows them is computed anew, and nobody else hears the message.
Sources: Wang et al., "Interpretability in the wild" (2022), section 3.1 and appendix B; Goldowsky-Dill et al.,
"Localizing model behavior with path patching" (2023), section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.edits import Edit, put
from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.graph import INPUT, LOGITS, Graph, Node, check_additive, graph_of
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Cache, Model, Start
from micrographia.core.prompts import Pairs, check_aligned
from micrographia.core.sites import Site
from micrographia.core.sweep import Donor, MetricSet, Patch
from micrographia.core.sweep.per_reader import AT_ONCE, Written, read, repeated, run_end, run_layer
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
    """What a path is.

    >>> print(Rule(mlps="free"))
    receivers hear each other; MLPs between sender and receiver pass the message on; norms free
    """

    receivers: Literal["hear", "deaf"] = "hear"
    """`hear`: a receiver also hears what earlier receivers change, so that edges are patched (Goldowsky-Dill et al.).
    `deaf`: its input is that of the base run plus the message, whatever the others do (Wang et al.)."""
    mlps: Literal["frozen", "free"] = "frozen"
    """`free`: MLPs between sender and receiver pass the message on, as Wang et al. count paths between heads. MLPs that
    are receivers do not."""
    norms: Literal["free", "frozen"] = "free"
    """`frozen`: receivers divide by the base run's scale, at the norms before attention, MLP and logits. Messages then
    act linearly on q, k, v and the logits, unless the model also norms queries and keys (Qwen 3, Gemma 3, OLMo 2) or
    caps logits (Gemma 2); norms behind a sublayer are never held."""

    def __str__(self) -> str:
        hearing = "hear each other" if self.receivers == "hear" else "do not hear each other"
        passing = "pass the message on" if self.mlps == "free" else "are held"
        return f"receivers {hearing}; MLPs between sender and receiver {passing}; norms {self.norms}"


class Paths(NamedTuple):
    """The metrics with each sender's message delivered."""

    mode: Mode
    rule: Rule
    senders: Sequence[Patch]
    receivers: tuple[Node, ...]
    values: Float[Tensor, "sender prompt metric"]
    clean: Float[Tensor, "prompt metric"]
    corrupt: Float[Tensor, "prompt metric"]

    @property
    def base(self) -> Float[Tensor, "prompt metric"]:
        return self.corrupt if self.mode == "denoise" else self.clean

    def effects(self) -> Float[Tensor, "sender prompt metric"]:
        """Change from the base run, in the metrics' units."""
        return self.values - self.base


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
) -> Paths:
    """Deliver each sender's message to all receivers. `denoise`: the base is the corrupt run.

    A sender is a Patch: any Places (a head of `z`, a neuron at one position, an embedding ...); of several, each
    sends its own direct message. Receivers are readers of `core.graph` (`Node(Site("q", 9), 6)`, `Node(LOGITS)`); those
    before a sender hear nothing. Keys and values are received per key/value head. `donors`: where senders take their
    values from instead of the other run.
    Cost: a run of one layer per sender, then per sender two runs of each layer that has receivers and one of the layers
    behind the first of those (one more of each layer with `mlps="free"`); all senders that fit `tokens_at_once` go
    together.
    Errors: UserError for no sender, no receiver, a receiver that is none, and models whose residual stream is no sum.
    """
    rule = rule or Rule()
    check_aligned(pairs, model.tokenizer)
    graph = graph_of(model)
    _check(graph, receivers)
    check_additive(model, pairs.clean)
    base, other = (pairs.corrupt, pairs.clean) if mode == "denoise" else (pairs.clean, pairs.corrupt)
    reading = MetricSet(metrics, ids_of(base).shape[1])
    rows = prompts(len(pairs), pairs.answer.device)
    sites = list(dict.fromkeys(place.site for patch in senders for place in patch))
    there = model.run(other, keep=sites, logits=reading.logits(rows))
    here = model.run(base, keep=_kept(model, sites, rule), logits=reading.logits(rows))
    given = donors or [there.cache]
    check_donors(senders, given)
    post = _Post(model, base, here.cache, tuple(receivers), rule, reading)
    at_once = max(1, tokens_at_once // ids_of(base).numel())
    found: list[Tensor] = []
    for first in range(0, len(senders), at_once):
        some = senders[first : first + at_once]
        found.append(post.deliver([post.messages(patch, given) for patch in some]))
        watch(Progress("path patching", first + len(some), len(senders), "sender"))
    ends = (reading(there.logits, rows), reading(here.logits, rows))
    clean, corrupt = ends if mode == "denoise" else ends[::-1]
    return Paths(mode, rule, senders, tuple(receivers), torch.cat(found), clean, corrupt)


def _check(graph: Graph, receivers: Sequence[Node]) -> None:
    if not receivers:
        raise UserError("Asked for paths to no receiver. Give some, for instance Node(Site('logits')).")
    if unknown := [str(node) for node in receivers if node not in graph.readers]:
        shown = ", ".join(map(str, graph.readers[:3]))
        raise UserError(
            f"Asked for paths to {', '.join(unknown[:5])}, which read nothing from the residual stream here. Receivers "
            f"are {shown} ... {graph.readers[-1]}."
        )


def _kept(model: Model, sites: Sequence[Site], rule: Rule) -> list[Site]:
    kinds = {"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"}
    if rule.norms == "frozen":
        kinds |= {"attn_norm_scale", "mlp_norm_scale", "final_norm_scale"}
    return list(dict.fromkeys([*(site for site in model.sites if site.kind in kinds), *sites]))


class _Message(NamedTuple):
    """`change` of the residual stream from moment `after` on: 3 l is before layer l, 3 l + 1 before its MLP."""

    after: int
    change: Float[Tensor, "prompt pos d_model"]


@dataclass(frozen=True)
class _Post:
    """Takes messages and delivers them: what all senders share."""

    model: Model
    inputs: Inputs
    base: Cache
    receivers: tuple[Node, ...]
    rule: Rule
    reading: MetricSet
    sites: frozenset[Site] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", frozenset(self.model.sites))

    def messages(self, patch: Patch, donors: Sequence[Donor]) -> list[_Message]:
        """What the places of a sender say, those of one sublayer together."""
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
            found.append(_Message(after, new - self.base[out]))
        return found

    def deliver(self, senders: Sequence[list[_Message]]) -> Float[Tensor, "sender prompt metric"]:
        """Run the layers from the first receiver on, each sender's rows hearing its messages."""
        n, n_layers = len(senders), self.model.shape.n_layers
        inputs = repeated(self.inputs, n)
        first = min((node.site.layer for node in self.receivers if node.site.layer is not None), default=n_layers)
        passed = self._passed_on(senders, inputs)
        stream = self._entering(first, n)
        for layer in range(first, n_layers):
            heard = [self._heard(senders, 3 * layer + half) + passed[layer] for half in (0, 1)]
            stream = stream + self._layer(inputs, layer, stream, heard[0], heard[1], n).total
        scales = {}
        if Node(LOGITS) in self.receivers:
            own = stream if self.rule.receivers == "hear" else self._entering(n_layers, n)
            stream = own + self._heard(senders, 3 * n_layers) + passed[n_layers]
            scales = self._scales("final_norm_scale", None, n)
        rows = prompts(len(ids_of(self.inputs)), stream.device).repeat(n)
        logits = run_end(self.model, inputs, stream, self.reading.logits(rows), scales)
        return self.reading(logits, rows).unflatten(0, (n, -1))

    def _layer(
        self, inputs: Inputs, layer: int, stream: Tensor, heard: Tensor, heard_inside: Tensor, n: int
    ) -> Written:
        """One layer whose receivers hear: `heard` before it, `heard_inside` by an MLP behind its attention."""
        here = [node for node in self.receivers if node.site.layer == layer]
        own = stream if self.rule.receivers == "hear" else self._entering(layer, n)
        between = Site("resid_mid", layer) in self.sites
        has_mlp = any(node.site.kind == "mlp_pre" for node in here)
        kinds = [kind for kind in "qkv" if any(node.site.kind == kind for node in here)]
        kinds += ["neurons"] if has_mlp and not between else []
        edits: list[Edit] = []
        if kinds:
            scales = self._scales("attn_norm_scale", layer, n)
            scales |= self._scales("mlp_norm_scale", layer, n) if "neurons" in kinds else {}
            for kind, value in read(self.model, layer, kinds, own + heard, scales).items():
                ears = [node.head for node in here if node.site.kind == kind and node.head is not None]
                where = {"head": ears} if ears else {}
                edits.append(put(Site(kind, layer), value[:, :, ears] if ears else value, **where))
        if not (has_mlp and between):
            return run_layer(self.model, inputs, layer, stream, edits)
        edits += [put(site, scale) for site, scale in self._scales("mlp_norm_scale", layer, n).items()]
        deaf = self.rule.receivers == "deaf"
        middle = self._expanded(Site("resid_mid", layer), n)
        return run_layer(
            self.model, inputs, layer, stream, edits, lambda mid, z: (middle if deaf else mid) + heard_inside
        )

    def _passed_on(self, senders: Sequence[list[_Message]], inputs: Inputs) -> list[Tensor | float]:
        """What MLPs have added to the messages, at the entry of each layer."""
        n, n_layers = len(senders), self.model.shape.n_layers
        nothing: list[Tensor | float] = [0.0] * (n_layers + 1)
        if self.rule.mlps == "frozen":
            return nothing
        begin = min(message.after for messages in senders for message in messages)
        passed = nothing
        for layer in range(n_layers):
            passed[layer + 1] = passed[layer]
            out = Site("mlp_out", layer)
            if 3 * layer + 1 < begin or out not in self.sites or Node(Site("mlp_pre", layer)) in self.receivers:
                continue
            between = Site("resid_mid", layer) in self.sites
            heard = self._heard(senders, 3 * layer + between) + passed[layer]
            base = self._entering(layer, n)
            if between:
                middle = self._expanded(Site("resid_mid", layer), n) + heard
                new = run_layer(self.model, inputs, layer, base, [put(Site("resid_mid", layer), middle)]).mlp_out
            else:
                new = run_layer(self.model, inputs, layer, base + heard).mlp_out
            assert new is not None
            passed[layer + 1] = passed[layer] + new - self._expanded(out, n)
        return passed

    def _heard(self, senders: Sequence[list[_Message]], moment: int) -> Tensor:
        """All that was said up to this moment, (sender and prompt, pos, d_model)."""
        silence = torch.zeros_like(self.base[INPUT])
        said = [
            sum((message.change for message in messages if message.after <= moment), silence) for messages in senders
        ]
        return torch.cat(said)

    def _entering(self, layer: int, n: int) -> Tensor:
        last = layer == self.model.shape.n_layers
        return self._expanded(Site("resid_post", layer - 1) if last else Site("resid_pre", layer), n)

    def _expanded(self, site: Site, n: int) -> Tensor:
        return self.base[site].repeat(n, 1, 1)

    def _scales(self, kind: str, layer: int | None, n: int) -> dict[Site, Tensor]:
        site = Site(kind, layer)
        return {site: self._expanded(site, n)} if self.rule.norms == "frozen" and site in self.sites else {}


def _way_out(site: Site) -> tuple[int, Site]:
    """The moment at which a change at this Site is in the residual stream, and the Site where it is seen.

    Raises UserError for a Site that has no way there of its own.
    """
    if site.kind in FRONT or site == INPUT:
        return 0, INPUT
    if site.layer is None or site.kind == "resid_post":
        raise UserError(
            f"Asked for what {site} says, but it writes to no later reader of its own. Send from an embedding, from a "
            "part of attention or an MLP, or from resid_pre or resid_mid."
        )
    layer = site.layer
    if site.kind in ATTENTION or site.kind == "attn_out":
        return 3 * layer + 1, Site("attn_out", layer)
    if site.kind in MLP or site.kind == "mlp_out":
        return 3 * layer + 2, Site("mlp_out", layer)
    return (3 * layer, Site("resid_pre", layer)) if site.kind == "resid_pre" else (3 * layer + 1, site)
