"""Lenses: what each component writes straight to the logits, and what the residual stream predicts at each layer.

`direct_logit_attribution` splits the logit of an answer (or a difference of two) into the parts that embeddings, heads,
MLPs and all biases write, with the final norm's scale held at this run's value: the parts sum to the whole, before any
soft-cap. `by_source` splits a head's part by the token it was carried from. What a writer does through later layers is
not in its part. `logit_lens` unembeds the stream on its way.
Sources: Elhage et al., "A mathematical framework for transformer circuits" (2021); nostalgebraist, "interpreting GPT:
the logit lens" (2020).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.edits import wide
from micrographia.core.errors import UserError
from micrographia.core.graph import INPUT, Node, check_additive, normed_behind
from micrographia.core.metrics import mean_over_options
from micrographia.core.model import Cache, Model
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.tokens import Inputs

POS_EMBED = Site("pos_embed")
SCALE = Site("final_norm_scale")


class Direct(NamedTuple):
    """Each writer's part, in logits. Constant parts (biases) have a label of their own, such as "L3.b_O"."""

    labels: tuple[str, ...]
    values: Float[Tensor, "prompt writer"]

    @property
    def total(self) -> Float[Tensor, "prompt"]:
        """The logit, or the difference, before any soft-cap."""
        return self.values.sum(1)

    def top(self, n: int) -> list[tuple[str, float]]:
        """The n writers of largest mean part in absolute value."""
        mean = self.values.mean(0)
        return [(self.labels[i], float(mean[i])) for i in mean.abs().argsort(descending=True)[:n].tolist()]


class LogitLens(NamedTuple):
    """The prediction of the stream at each Site: for the answers, and its best tokens."""

    sites: tuple[Site, ...]
    logit: Float[Tensor, "site prompt at answer"]
    prob: Float[Tensor, "site prompt at answer"]
    rank: Int[Tensor, "site prompt at answer"]
    """How many tokens have a larger logit."""
    top: Int[Tensor, "site prompt at k"]
    """The tokens of largest logit, largest first."""
    top_prob: Float[Tensor, "site prompt at k"]


def direct_logit_attribution(
    model: Model,
    inputs: Inputs,
    answer: Int[Tensor, "prompt *option"],
    wrong: Int[Tensor, "prompt *other"] | None = None,
    *,
    pos: int = -1,
) -> Direct:
    """The logit of `answer` at `pos`, less that of `wrong`, as a sum over all that write to the residual stream.

    Of sets of answers, (prompt, option) with -1 where there are fewer, the mean logits: a mean of directions.
    Labels are "pos_embed", "embed", "L3.z[5]", "L3.mlp_out", and for constants "L3.b_O", "L3.b_out", "final_norm_b" and
    "b_U". A bias inside a head is part of that head. Where a norm stands behind attention or MLP (Gemma 2 and 3,
    OLMo 2), its scale is held too, so that heads add up.
    Cost: one forward pass; keeps z, mlp_out and a few sums of the residual's size. Errors: UserError for models whose
    logits are not linear in a sum of writers (BERT).
    """
    check_additive(model, inputs)
    directions = _of_answers(model.weights.W_U, answer, wrong)
    front = [INPUT, *(site for site in (POS_EMBED, SCALE) if site in model.sites)]
    kinds = {"z", "mlp_out", *(("attn_raw", "attn_out", "mlp_raw") if normed_behind(model) else ())}
    cache = model.run(inputs, keep=[*front, *(s for s in model.sites if s.kind in kinds)], logits="last").cache
    read = _readout(model, cache, directions, pos)
    parts: dict[str, Tensor] = {}
    at = {site: wide(cache[site][:, pos]) for site in cache if site != SCALE}
    parts["embed"] = _along(at[INPUT] - at[POS_EMBED] if POS_EMBED in at else at[INPUT], read)
    if POS_EMBED in at:
        parts["pos_embed"] = _along(at[POS_EMBED], read)
    for layer in range(model.shape.n_layers):
        parts |= _attention_parts(model, layer, at, read) | _mlp_parts(model, layer, at, read)
    constants = (("final_norm_b", model.weights.final_norm_b, directions), ("b_U", model.weights.b_U, None))
    for label, bias, direction in constants:
        if bias is not None:
            parts[label] = bias @ direction if direction is not None else _of_answers(bias, answer, wrong)
    return Direct(tuple(parts), torch.stack(list(parts.values()), 1))


def by_source(
    model: Model,
    inputs: Inputs,
    heads: Sequence[Node],
    answer: Int[Tensor, "prompt *option"],
    wrong: Int[Tensor, "prompt *other"] | None = None,
    *,
    pos: int = -1,
) -> Float[Tensor, "prompt head source"]:
    """The part of each of these heads (`Node(Site("z", 9), 6)`), by the position that it was carried from, in logits.

    attention x (value W_O) . readout; over sources it sums to the head's part in `direct_logit_attribution`.
    Cost: one forward pass, in which patterns are computed beside the path.
    Errors: UserError for a Node that is no head.
    """
    if wrongly := [str(node) for node in heads if node.site.kind != "z" or node.head is None]:
        raise UserError(f"Asked for the sources of {', '.join(wrongly)}. Give heads, such as Node(Site('z', 9), 6).")
    layers = sorted({node.site.layer for node in heads if node.site.layer is not None})
    scale = [SCALE] if SCALE in model.sites else []
    behind = [Site(kind, i) for kind in ("attn_raw", "attn_out") for i in layers if normed_behind(model)]
    kept = [*scale, *behind, *(Site(kind, i) for kind in ("pattern", "v") for i in layers)]
    cache = model.run(inputs, keep=kept, logits="last").cache
    read = _readout(model, cache, _of_answers(model.weights.W_U, answer, wrong), pos)
    at = {site: wide(cache[site][:, pos]) for site in behind}
    group = model.shape.group
    found: list[Tensor] = []
    for node in heads:
        layer, head = node.site.layer, node.head
        assert layer is not None
        assert head is not None
        reads = read * _held_scale(model, "attn", layer, at)
        v = wide(cache[Site("v", layer)][:, :, head // group])
        value = torch.einsum("bke,ed,bd->bk", v, model.weights.W_O[layer, head].to(v), reads)
        found.append(cache[Site("pattern", layer)][:, head, pos] * value)
    return torch.stack(found, 1)


def logit_lens(
    model: Model,
    inputs: Inputs,
    answers: Int[Tensor, "prompt answer"],
    *,
    sites: SiteLike | Sequence[SiteLike] = "L*.resid_post",
    at: Sequence[int] = (-1,),
    k: int = 5,
) -> LogitLens:
    """What `model.unembed` makes of the residual stream at these Sites and positions.

    Logits, probabilities and ranks of the answers, and the k best tokens.
    Cost: one forward pass, then an unembedding per Site and position; the vocabulary is held for one Site at a time.
    Raises UserError for less than one token.
    """
    if k < 1:
        raise UserError(f"Asked for the {k} best tokens of each point of the stream. Ask for 1 at least.")
    chosen = select(model.sites, sites)
    cache = model.run(inputs, keep=chosen, logits="last").cache
    positions = list(at)
    rows: list[tuple[Tensor, ...]] = []
    for site in chosen:
        logits = wide(model.unembed(cache[site][:, positions]))
        wanted = answers[:, None].expand(-1, len(positions), -1)
        own = logits.gather(-1, wanted)
        prob = logits.softmax(-1)
        best = prob.topk(min(k, prob.shape[-1]), dim=-1)
        rank = (logits[..., None, :] > own[..., None]).sum(-1)
        rows.append((own, prob.gather(-1, wanted), rank, best.indices, best.values))
    own, prob, rank, top, top_prob = (torch.stack(column) for column in zip(*rows))
    return LogitLens(chosen, own, prob, rank, top, top_prob)


def _of_answers(columns: Float[Tensor, "*d vocab"], answer: Tensor, wrong: Tensor | None) -> Float[Tensor, "*d prompt"]:
    own = _of_options(columns, answer)
    return own if wrong is None else own - _of_options(columns, wrong)


def _of_options(
    columns: Float[Tensor, "*d vocab"], tokens: Int[Tensor, "prompt *option"]
) -> Float[Tensor, "*d prompt"]:
    """The column of each prompt's answer; of a set the mean, which is the direction of its mean logit."""
    if tokens.ndim == 1:
        return columns[..., tokens]
    return (columns[..., tokens.clamp(min=0)] * mean_over_options(tokens).to(columns)).sum(-1)


def _readout(model: Model, cache: Cache, directions: Tensor, pos: int) -> Float[Tensor, "prompt d_model"]:
    """What reads the answers off the residual stream, the final norm's scale held."""
    read = wide(model.weights.final_readout(directions)).T
    return read / cache[SCALE][:, pos] if SCALE in cache else read


def _along(vector: Float[Tensor, "prompt d_model"], read: Float[Tensor, "prompt d_model"]) -> Float[Tensor, "prompt"]:
    return (vector * read).sum(-1)


def _attention_parts(model: Model, layer: int, at: dict[Site, Tensor], read: Tensor) -> dict[str, Tensor]:
    """Heads, and what attention adds beside them."""
    z = at.get(Site("z", layer))
    if z is None:
        return {}
    reads = read * _held_scale(model, "attn", layer, at)
    heads = torch.einsum("bhe,hed,bd->bh", z, model.weights.W_O[layer].to(z), reads)
    parts = {str(Node(Site("z", layer), head)): part for head, part in enumerate(heads.unbind(1))}
    bias = _bias(model, "b_O", layer)
    return parts if bias is None else parts | {f"L{layer}.b_O": reads @ bias.to(reads)}


def _mlp_parts(model: Model, layer: int, at: dict[Site, Tensor], read: Tensor) -> dict[str, Tensor]:
    site = Site("mlp_out", layer)
    if site not in at:
        return {}
    whole, bias = _along(at[site], read), _bias(model, "b_out", layer)
    if bias is None:
        return {str(site): whole}
    constant = (read * _held_scale(model, "mlp", layer, at)) @ bias.to(read)
    return {str(site): whole - constant, f"L{layer}.b_out": constant}


def _held_scale(model: Model, part: str, layer: int, at: dict[Site, Tensor]) -> Tensor | float:
    """What an RMSNorm behind a sublayer multiplies by, gain / scale, read off its input and output; 1 without one."""
    raw, out = Site(f"{part}_raw", layer), Site(f"{part}_out", layer)
    if raw not in at:
        return 1.0
    gain = getattr(model.weights, f"{part}_post_norm_w")[layer]
    scaled = gain * at[raw]
    return gain * (scaled * at[out]).sum(-1, keepdim=True) / scaled.pow(2).sum(-1, keepdim=True)


def _bias(model: Model, name: str, layer: int) -> Tensor | None:
    """The bias by which a sublayer ends. A mixture of experts has no single one: its output is one part, whole."""
    if name == "b_out" and Site("expert_out", layer) in model.sites:
        return None
    try:
        return getattr(model.weights, name)[layer]
    except KeyError:
        return None
