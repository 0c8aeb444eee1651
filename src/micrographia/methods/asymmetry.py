"""Is an association stored in both directions? Read off the weights and activations of any Model.

A map M[i, j] scores how strongly input i speaks for output j; matched pairs stand on its diagonal. An association that
is stored in both directions raises the diagonal of the forward and of the reverse map alike; one that is stored in one
leaves the reverse map's diagonal where everything else in it is. Also: whether what recognises an entity as input is
like what writes it as output, and whether two tasks use the same neurons. Every figure has a permutation null.
The argument that the two directions share nothing is Nanda's (2023); the prediction for W_OV that a diagonal equals the
rest is Ma et al.'s (2026). Axes: pair, input, output, neuron, fact.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.edits import Edit, leaf, zero
from micrographia.core.errors import BadShape
from micrographia.core.model import Model
from micrographia.core.sites import Site


class Matched(NamedTuple):
    """A mean over matched pairs, beside other pairs. `low`, `high`: 95 % of the means of permuted pairs."""

    own: float
    others: float
    low: float
    high: float
    p: float
    """Share of the permutations, itself among them, whose mean is at least as large; NaN where a mean is."""

    @property
    def excess(self) -> float:
        return self.own - self.others


class Asymmetry(NamedTuple):
    """`share`: what the diagonal is above the rest in the reverse map, as a share of the same in the forward map: 0 is
    one direction alone, 1 is both alike. `low`, `high`: 95 % of the indices where reverse pairs are permuted. All three
    are NaN where the forward diagonal is not above 95 % of its own permutations: nothing to have a share of."""

    share: float
    low: float
    high: float
    forward: float
    reverse: float
    standardised: float
    """What the reverse diagonal is above the rest, in standard deviations of the rest."""


def ov_map(
    model: Model, inputs: Int[Tensor, "input"], outputs: Int[Tensor, "output"], *, layer: int = 0
) -> Float[Tensor, "input output"]:
    """e_i W_V W_O u_j, summed over the heads of a layer: what attending to token i alone adds to the logit of token j.

    In logits where the model has no norm; else the norm before attention is left out, and the final one's scale. No
    pass of the model.
    Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).
    """
    w, shape = model.weights, model.shape
    u = w.final_readout(w.W_U[:, outputs])
    e = w.W_E[inputs]
    group = shape.n_heads // shape.n_kv_heads
    parts = [e @ w.W_V[layer, head // group] @ w.W_O[layer, head] for head in range(shape.n_heads)]
    return torch.stack(parts).sum(0) @ u


def logit_map(
    model: Model, prompts: Int[Tensor, "input pos"], outputs: Int[Tensor, "output"]
) -> Float[Tensor, "input output"]:
    """The logit of every output after every prompt: the whole model as a map. One pass."""
    return model.run(prompts, logits="last").logits[:, -1, outputs].detach()


def gradient_map(
    model: Model, prompts: Int[Tensor, "input pos"], outputs: Int[Tensor, "output"], *, pos: int = 0
) -> Float[Tensor, "input output"]:
    """The embedding at `pos` times the gradient of each output's logit there: what the input says, MLPs included.

    To first order, less the mean embedding of the prompts, so that what all inputs share is left out. One forward pass
    and one backward pass an output.
    """
    site = Site("embed")
    kept: list[Tensor] = []
    run = model.run(prompts, edits=[leaf(site, kept.append)], logits="last", grad=True)
    (value,) = kept
    own = value[:, pos].detach()
    own = own - own.mean(0)
    columns = []
    for output in outputs.tolist():
        (gradient,) = torch.autograd.grad(run.logits[:, -1, output].sum(), value, retain_graph=True)
        columns.append((own * gradient[:, pos]).sum(-1))
    return torch.stack(columns, 1)


def asymmetry(
    forward: Sequence[Float[Tensor, "input output"]],
    reverse: Sequence[Float[Tensor, "output input"]],
    generator: Generator,
    *,
    draws: int = 1000,
) -> Asymmetry:
    """The index of maps in blocks: pair k of a block is row and column k of both its maps. Each column is centred.

    Diagonals and the rest are compared within blocks, so that what one relation has against another plays no part.
    Both maps have the same permutations. Cost: 2 `draws` sums over diagonals. Raises BadShape for no maps, maps that
    are not square, or blocks of one pair.
    """
    ahead = _matched(forward, generator.clone_state(), draws)
    back = _matched(reverse, generator, draws)
    rest = torch.cat([_rest(each) for each in _centred(reverse)])
    scale = ahead.excess if ahead.own > ahead.high else math.nan
    return Asymmetry(
        share=back.excess / scale,
        low=(back.low - back.others) / scale,
        high=(back.high - back.others) / scale,
        forward=ahead.excess,
        reverse=back.excess,
        standardised=back.excess / (float(rest.std()) or 1.0),
    )


def _centred(maps: Sequence[Tensor]) -> list[Tensor]:
    """Without what an output has after any input."""
    return [(each - each.mean(0)).double() for each in maps]


def _rest(each: Tensor) -> Tensor:
    return each[~torch.eye(len(each), dtype=torch.bool)]


def matched(tables: Sequence[Float[Tensor, "pair pair"]], generator: Generator, *, draws: int = 1000) -> Matched:
    """The mean over the diagonals of blocks of similarities, beside the rest and permutations within the blocks.

    Raises BadShape for no blocks, blocks that are not square, or of one pair.
    """
    _check_pairs(tables)
    return _of(tables, generator, draws)


def _matched(maps: Sequence[Tensor], generator: Generator, draws: int) -> Matched:
    _check_pairs(maps)
    return _of(_centred(maps), generator, draws)


def _check_pairs(maps: Sequence[Tensor]) -> None:
    if not maps:
        raise BadShape("Maps of pairs were to be compared. Found none. Give a block of two pairs at least.")
    for each in maps:
        if each.ndim != 2 or each.shape[0] != each.shape[1] or len(each) < 2:
            raise BadShape(f"A map of pairs is square, with two of them at least. Found {tuple(each.shape)}.")


def _of(maps: Sequence[Tensor], generator: Generator, draws: int) -> Matched:
    own = torch.cat([each.diagonal() for each in maps]).mean()
    others = torch.cat([_rest(each) for each in maps]).mean()
    means = torch.stack([own, *(_permuted(maps, generator) for _ in range(draws))])
    low, high = torch.quantile(means[1:] if draws else means, torch.tensor([0.025, 0.975], dtype=means.dtype))
    as_large = torch.where(means.isnan(), means, (means >= own).to(means))
    return Matched(*(float(x) for x in (own, others, low, high, as_large.double().mean())))


def _permuted(maps: Sequence[Tensor], generator: Generator) -> Tensor:
    diagonals = [each.gather(1, torch.randperm(len(each), generator=generator)[:, None]) for each in maps]
    return torch.cat(diagonals).mean()


def cosines(x: Float[Tensor, "pair d"], y: Float[Tensor, "pair d"]) -> Float[Tensor, "pair pair"]:
    """Of every x with every y, each without the mean over all pairs."""
    x, y = (each - each.mean(0) for each in (x, y))
    return torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(y, dim=1).T


def recognisers(model: Model, prompts: Int[Tensor, "pair pos"], *, layer: int) -> Float[Tensor, "pair neuron"]:
    """What each prompt's entity does to the neurons of a layer, at the last position: how it is recognised as input.

    One pass. With `writers`, in the space of the neurons (Nanda 2023).
    """
    site = Site("neurons", layer)
    return model.run(prompts, keep=[site], logits="last").cache[site][:, -1].detach()


def writers(model: Model, outputs: Int[Tensor, "pair"], *, layer: int) -> Float[Tensor, "pair neuron"]:
    """What each neuron of a layer adds to the logit of each output on the direct path: how it is written."""
    w = model.weights
    return (w.W_out[layer] @ w.final_readout(w.W_U[:, outputs])).T


def ablation_effects(
    model: Model, prompts: Int[Tensor, "fact pos"], answers: Int[Tensor, "fact"], *, layer: int
) -> Float[Tensor, "fact neuron"]:
    """How much the log-probability of each fact's answer falls when one neuron at the last position is set to 0, for
    every neuron. In nats. One forward pass a neuron and one more; memory of one."""

    def answered(*edits: Edit) -> Tensor:
        logits = model.run(prompts, edits=edits, logits="last").logits[:, -1]
        return logits.log_softmax(-1).gather(1, answers[:, None])[:, 0]

    whole, site = answered(), Site("neurons", layer)
    n = model.weights.W_out[layer].shape[0]
    return torch.stack([whole - answered(zero(site, pos=-1, unit=unit)) for unit in range(n)], 1)
