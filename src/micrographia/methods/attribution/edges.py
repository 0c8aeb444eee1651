"""Edge attribution: the effect of each writer on each later reader, estimated for all edges from one backward pass.

score(u -> v) = (u's output in the other run - in the base run) . (gradient of the metric at v's own residual input,
before v's norm), summed over positions: the first-order change of the metric if v alone read u's value from the other
run. `eap-ig` averages the gradient over runs whose input goes straight from one prompt's embeddings to the other's.
A run gives gradients at q, k, v and at the input of the MLP's activation; each layer is then run once more, token by
token, to backpropagate from there through projection and norm, exactly and in every family. Writers and readers are
multiplied as vectors of d_model for a few positions at a time: 2 d_model FLOPs per edge and token, where projecting
each reader to the heads' spaces would take 2 d_model d_head; no (batch, pos, head, d_model) tensor is stored.
Sources: Syed, Rager and Conmy, "Attribution patching outperforms automated circuit discovery" (2023);
Hanna, Pezzelle and Belinkov, "Have faith in faithfulness" (2024). Their rule takes the steps' right ends,
k / n; ours their middles, (k - 1/2) / n, whose error falls with n^2.
Suffixes: p prompt, t pos, r row (a prompt's position), h head, e d_head, d d_model, g reader.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core import figures
from micrographia.core.edits import leaf, observe, put
from micrographia.core.errors import BadConfig, UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.gradients import with_gradients
from micrographia.core.graph import INPUT, Edge, Graph, check_additive, graph_of, normed_behind
from micrographia.core.graph_figure import strongest_links
from micrographia.core.metrics import Metric
from micrographia.core.model import Cache, Model, Start
from micrographia.core.prompts import Pairs, check_aligned, gap_of
from micrographia.core.sites import Site
from micrographia.core.titles import MODES, Mode
from micrographia.core.tokens import Inputs, ids_of, rows_of

Method = Literal["eap", "eap-ig"]
HELD = 2**24
"""The number of entries of the writers' and readers' d_model vectors that are held at once."""
STRAIGHT, ROUNDINGS = 1e-3, 6
"""Tolerances, as a fraction of the whole and in roundings of the dtype, of backpropagation through the weights alone;
beyond them something else (a norm) is in between."""


class EdgeAttribution(NamedTuple):
    """Scores of all edges, 0 where there is none; they estimate the change of the metric in the base run."""

    mode: Mode
    method: Method
    graph: Graph
    values: Float[Tensor, "prompt writer reader"]
    clean: Float[Tensor, "prompt"]
    """The metric of the clean prompts, and of the corrupt ones."""
    corrupt: Float[Tensor, "prompt"]

    def mean(self) -> Float[Tensor, "writer reader"]:
        return self.values.mean(0)

    def of_writers(self) -> Float[Tensor, "prompt writer"]:
        """The edges out of each writer together: its own attribution score."""
        return self.values.sum(2)

    def top(self, n: int) -> list[tuple[Edge, float]]:
        """The n edges of largest mean score in absolute value, largest first; before them those without a number."""
        rows = self.mean().tolist()
        scored = [(edge, rows[i][j]) for edge, (i, j) in ((edge, self.graph.place(edge)) for edge in self.graph.edges)]
        return sorted(scored, key=lambda pair: -abs(pair[1]) if math.isfinite(pair[1]) else -math.inf)[:n]

    @property
    def gap(self) -> float | None:
        """Clean less corrupt, over the prompts; None where rounding alone tells them apart."""
        return gap_of(self.clean, self.corrupt)

    def table(self) -> dict[str, Any]:
        """A row an edge, as columns: writer, reader, change of the metric and share of the gap, means over prompts."""
        mean = self.mean()[self.graph.legal].double().cpu().numpy()
        return {
            "writer": [str(edge.writer) for edge in self.graph.edges],
            "reader": [str(edge.reader) for edge in self.graph.edges],
            f"{self.mode}_change": mean,
            f"{self.mode}_share": MODES[self.mode].sign * mean / (self.gap or np.nan),
        }

    def figures(self) -> list[Figure]:
        """The strongest edges between components, those into query, key and value of a head summed."""
        label = "share of the gap" if self.gap else "change of the metric"
        data, n, _ = strongest_links(self.graph, self.mean() * MODES[self.mode].sign / (self.gap or 1.0), label)
        return [
            figures.graph(
                f"edges-{self.mode}",
                f"The {n} strongest edges: {MODES[self.mode].panel}",
                data,
                caption=f"Orange edges would have {MODES[self.mode].verb} part of the gap, blue ones work against it. "
                "Edges into a head's query, key and value are summed; where heads share keys, each takes an equal "
                "part.",
                group="In pictures",
            )
        ]


@with_gradients
def edge_attribution(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    *,
    mode: Mode = "denoise",
    method: Method = "eap",
    steps: int = 5,
    heads: bool | None = None,
    prompts_at_once: int = 16,
    watch: Watch = silent,
) -> EdgeAttribution:
    """Scores of every edge, per prompt pair, in the metric's unit. `denoise`: the base is the corrupt run.

    `heads`: see `graph_of`. Where a norm stands behind attention (Gemma 2 and 3, OLMo 2), attention is one writer by
    default; with `heads` each head's part is taken through that norm's derivative at the base run, so that heads out
    of one layer still sum to their node scores, but not exactly to the attention output's.
    Cost: `eap` 2 forwards, 1 backward, and about as much again for the readers; `eap-ig` 2 forwards, and all but one of
    these for each of `steps`. In it, for n edges, 2 n d_model FLOPs a token: 0.3 of a forward for GPT-2 small. Measured
    there, 8 prompts of 15 tokens on one CPU thread, `eap` took 9 to 10 forwards. Memory: some 7 residual streams a
    layer for `prompts_at_once` prompts, and the scores.
    Errors: UserError for models whose residual stream is no sum (BERT) or that have no attention; BadPrompt for pairs
    that do not line up; BadConfig for fewer than one step.
    """
    if method == "eap-ig" and steps < 1:
        raise BadConfig(f"Integrated gradients over {steps} steps were asked for. Take at least one.")
    check_aligned(pairs, model.tokenizer)
    graph = graph_of(model, heads=heads)
    check_additive(model, pairs.clean)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, len(pairs), prompts_at_once):
        rows = torch.arange(first, min(first + prompts_at_once, len(pairs)), device=pairs.answer.device)
        base, other = (rows_of(inputs, rows) for inputs in (pairs.base(mode), pairs.donor(mode)))
        found.append(_score(model.fused, graph, metric, rows, base, other, steps if method == "eap-ig" else 0))
        watch(Progress("edge attribution", int(rows[-1]) + 1, len(pairs), "pair"))
    values, *baselines = (torch.cat(parts) for parts in zip(*found))
    clean, corrupt = baselines[::-1] if mode == "denoise" else baselines
    return EdgeAttribution(mode, method, graph, values, clean, corrupt)


class Slope(NamedTuple):
    """One run and its backward pass: activations, gradients at the readers' Sites, and the metric."""

    values: dict[Site, Tensor]
    gradients: dict[Site, Tensor]
    metric: Tensor


def _score(
    model: Model, graph: Graph, metric: Metric, rows: Tensor, base: Inputs, other: Inputs, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores of these prompts, and the metric of the base and of the other run."""
    writes = list(dict.fromkeys(node.site for node in graph.writers))
    there = model.run(other, keep=writes, logits=metric.readout(rows))
    slope = _slope(model, graph, metric, rows, base)
    difference = {site: there.cache[site] - slope.values[site] for site in writes}
    baselines = (slope.metric, metric(there.logits, rows))
    if not steps:
        return _edge_scores(model, graph, base, slope, difference, slope.values), *baselines
    start = slope.values
    total = torch.zeros(())
    for k in range(steps):
        between = start[INPUT] + (k + 0.5) / steps * difference[INPUT]
        slope = _slope(model, graph, metric, rows, base, between)
        total = total + _edge_scores(model, graph, base, slope, difference, start)
    return total / steps, *baselines


def _slope(model: Model, graph: Graph, metric: Metric, rows: Tensor, inputs: Inputs, at: Tensor | None = None) -> Slope:
    """One forward, one backward, with `at` as the input to the first layer."""
    live: dict[Site, Tensor] = {}

    def keeping(site: Site) -> Callable[[Tensor], None]:
        return lambda value: live.__setitem__(site, value)

    sites = [site for site in model.sites if site.kind in ("q", "k", "v", "mlp_pre", "mlp_up")]
    sites.append(Site("resid_post", model.shape.n_layers - 1))
    begin = [leaf(INPUT)] if at is None else [put(INPUT, at), leaf(INPUT)]
    out = model.run(
        inputs,
        edits=[*begin, *(observe(site, keeping(site)) for site in sites)],
        keep=_value_sites(model, graph),
        logits=metric.readout(rows),
        grad=True,
    )
    found = metric(out.logits, rows)
    if not found.requires_grad:
        raise UserError(
            f"Edges were to be scored by {metric.name}, which has no gradient. Take a metric that can be "
            "differentiated, such as the logit difference."
        )
    gradients = torch.autograd.grad(found.sum(), [live[site] for site in sites], allow_unused=True)
    return Slope(
        {site: value.detach() for site, value in out.cache.items()},
        {site: torch.zeros_like(live[site]) if g is None else g for site, g in zip(sites, gradients)},
        found.detach(),
    )


def _value_sites(model: Model, graph: Graph) -> list[Site]:
    kinds = ("resid_pre", "resid_mid", "attn_raw")
    streams = [site for site in model.sites if site.kind in kinds]
    behind = [site for site in model.sites if site.kind == "attn_out" and normed_behind(model)]
    return list(dict.fromkeys([*streams, *behind, *(node.site for node in graph.writers)]))


def _edge_scores(
    model: Model,
    graph: Graph,
    inputs: Inputs,
    slope: Slope,
    difference: dict[Site, Tensor],
    base: dict[Site, Tensor],
) -> Float[Tensor, "prompt writer reader"]:
    """Every writer's difference times every reader's gradient, a few positions at a time."""
    stream = slope.values[INPUT]
    n_prompts, n_pos, d_model = stream.shape
    wide = torch.promote_types(stream.dtype, torch.float32)
    scores = stream.new_zeros((n_prompts, len(graph.writers), len(graph.readers)), dtype=wide)
    per_layer = 1 + model.shape.n_heads + 2 * model.shape.n_kv_heads
    length = max(1, HELD // (n_prompts * (len(graph.writers) + per_layer) * d_model))
    for first in range(0, n_pos, length):
        at = slice(first, first + length)
        written = _written(model, graph, difference, base, at).to(wide)
        column = 0
        for layer in range(model.shape.n_layers):
            for read in _read(model, layer, ids_of(inputs)[:, at], slope, at):
                n = graph.seen[column]
                where = slice(column, column + read.shape[1])
                scores[:, :n, where] += torch.bmm(written[:, :n].flatten(2), read.to(wide).flatten(2).mT)
                column += read.shape[1]
        final = slope.gradients[Site("resid_post", model.shape.n_layers - 1)][:, at].to(wide)
        scores[:, :, column] += torch.bmm(written.flatten(2), final.flatten(1)[..., None])[..., 0]
    return scores


def _written(
    model: Model, graph: Graph, difference: dict[Site, Tensor], base: dict[Site, Tensor], at: slice
) -> Float[Tensor, "prompt writer pos d_model"]:
    parts: list[Tensor] = []
    for site in dict.fromkeys(node.site for node in graph.writers):
        delta = difference[site][:, at]
        if site.kind == "z":
            assert site.layer is not None
            result = torch.einsum("bphe,hed->bhpd", delta, model.weights.W_O[site.layer])
            parts.append(_behind_norm(model, site.layer, result, base, at) if normed_behind(model) else result)
        else:
            parts.append(delta[:, None])
    return torch.cat(parts, 1)


def _behind_norm(
    model: Model, layer: int, delta: Float[Tensor, "prompt head pos d_model"], base: dict[Site, Tensor], at: slice
) -> Float[Tensor, "prompt head pos d_model"]:
    """The derivative of the RMSNorm behind attention, y = gain x / r: gain / r (delta - x (x . delta) / (d_model r^2)).

    1 / r is taken from the run itself, as the factor between gain x and y, so it includes the norm's epsilon.
    """
    x, y = (base[Site(kind, layer)][:, None, at] for kind in ("attn_raw", "attn_out"))
    gain = model.weights.attn_post_norm_w[layer]
    inverse = (gain * x * y).sum(-1, keepdim=True) / (gain * x).pow(2).sum(-1, keepdim=True)
    along = (x * delta).sum(-1, keepdim=True) / x.shape[-1]
    return gain * inverse * (delta - x * along * inverse**2)


def _read(
    model: Model, layer: int, ids: Tensor, slope: Slope, at: slice
) -> list[Float[Tensor, "prompt reader pos d_model"]]:
    """Gradients at the residual input of this layer's readers: q, k and v heads, then the MLP, in the graph's order.

    The layer runs on rows of one token each, since projections and norms act per token; then back to its input.
    """
    sites = set(model.sites)

    def rows(x: Tensor) -> Tensor:
        return x[:, at].flatten(0, 1)[:, None]

    entering = rows(slope.values[Site("resid_pre", layer)]).requires_grad_()
    middle = Site("resid_mid", layer)
    halfway = rows(slope.values[middle]).requires_grad_() if middle in sites else entering
    inner = [Site(kind, layer) for kind in ("mlp_pre", "mlp_up") if Site(kind, layer) in sites]
    norm = [site for site in (Site("attn_norm", layer),) if site in sites]
    run = model.run(
        ids.reshape(-1, 1),
        keep=[*(Site(kind, layer) for kind in "qkv"), *norm, *inner],
        edits=[put(middle, halfway)] if middle in sites else [],
        start=Start(layer, entering),
        stop=layer + 1,
        grad=True,
    )
    found = [_heads(model, Site(kind, layer), rows, slope, run.cache, entering) for kind in "qkv"]
    if inner:
        gradients = [rows(slope.gradients[site]) for site in inner]
        (back,) = torch.autograd.grad([run.cache[site] for site in inner], halfway, gradients, retain_graph=True)
        found.append(back[None])
    return [x.squeeze(2).unflatten(1, (len(ids), -1)).transpose(0, 1) for x in found]


def _heads(
    model: Model, site: Site, rows: Callable[[Tensor], Tensor], slope: Slope, cache: Cache, entering: Tensor
) -> Float[Tensor, "head row one d_model"]:
    """The gradient of each head of q, k or v at the residual stream, head by head.

    Where the Site is a plain projection, a head's gradient passes through its own columns only. This is checked on the
    sum over heads, which is backpropagated through all that is there (a norm of q and k, in Qwen3).
    """
    gradient = rows(slope.gradients[site])
    norm = Site("attn_norm", site.layer)
    normed = cache.get(norm, entering)
    cotangents = torch.einsum("rphe,hde->hrpd", gradient, getattr(model.weights, f"W_{site.kind.upper()}")[site.layer])
    whole = _back(cache[site], normed, gradient[None])[0]
    straight = max(STRAIGHT, ROUNDINGS * torch.finfo(whole.dtype).eps)
    if float((cotangents.sum(0) - whole).norm()) <= straight * float(whole.norm()):
        return _back(normed, entering, cotangents) if norm in cache else cotangents
    each = torch.eye(gradient.shape[2], dtype=gradient.dtype, device=gradient.device)
    return _back(cache[site], entering, torch.einsum("rphe,hg->grphe", gradient, each))


def _back(output: Tensor, entering: Tensor, cotangents: Float[Tensor, "reader ..."]) -> Tensor:
    """The vector-Jacobian products of all cotangents, in one batched backward pass of this piece of the graph."""
    (found,) = torch.autograd.grad(output, entering, cotangents, retain_graph=True, is_grads_batched=True)
    return found
