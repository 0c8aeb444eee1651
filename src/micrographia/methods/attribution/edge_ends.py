"""Edge scores: the difference of each writer's output times the gradient at each reader's residual input.

A run gives gradients at q, k, v and at the input of the MLP's activation; each layer is then run once more, token by
token, to backpropagate from there through projection and norm, exactly and in every family. Writers and readers are
multiplied as vectors of d_model for a few positions at a time: 2 d_model FLOPs per edge and token, where projecting
each reader to the heads' spaces would take 2 d_model d_head; no (batch, pos, head, d_model) tensor is stored.
Suffixes: p prompt, t pos, r row (a prompt's position), h head, e d_head, d d_model, g reader.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.edits import put
from micrographia.core.graph import INPUT, Graph, normed_behind
from micrographia.core.model import Cache, Model, Start
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs, ids_of

HELD = 2**24
"""The number of entries of the writers' and readers' d_model vectors that are held at once."""
STRAIGHT, ROUNDINGS = 1e-3, 6
"""Tolerances, as a fraction of the whole and in roundings of the dtype, of backpropagation through the weights alone;
beyond them something else (a norm) is in between."""


class Slope(NamedTuple):
    """One run and its backward pass: activations, gradients at the readers' Sites, and the metric."""

    values: dict[Site, Tensor]
    gradients: dict[Site, Tensor]
    metric: Tensor


def gradient_sites(model: Model) -> list[Site]:
    kinds = ("q", "k", "v", "mlp_pre", "mlp_up")
    return [*(site for site in model.sites if site.kind in kinds), Site("resid_post", model.shape.n_layers - 1)]


def value_sites(model: Model, graph: Graph) -> list[Site]:
    kinds = ("resid_pre", "resid_mid", "attn_raw")
    streams = [site for site in model.sites if site.kind in kinds]
    behind = [site for site in model.sites if site.kind == "attn_out" and normed_behind(model)]
    return list(dict.fromkeys([*streams, *behind, *(node.site for node in graph.writers)]))


def meet(
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
