"""Heads and neurons: who attends to whose moves, and which neurons are a legality or a state of a square.

Heads of trained models split into "mine" and "theirs": they attend to the moves of one player (Nanda, Lee and
Wattenberg 2023, section 5; Hazineh et al. 2023 counted them). Neurons that fire where one square is legal are reported
with F1 above .99 ("bag of heuristics", 2024). Nulls: the untrained model, and labels of other games. Axes: layer head
neuron property.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.network import unseen_games
from micrographia.labs.othello.task import PAD, labels_of, tokens_of

LOOKED_AT = 40  # number of the sample
GAMES = 300
OWN = 0.65
"""A head is "mine" or "theirs" where so much of its attention to earlier moves is on one player's."""


class SidedHeads(NamedTuple):
    """Attention to the moves of the player who moves next, of the other, to the first move, and to the last."""

    mine: Float[Tensor, "layer head"]
    theirs: Float[Tensor, "layer head"]
    first: Float[Tensor, "layer head"]
    last: Float[Tensor, "layer head"]

    @property
    def share(self) -> Float[Tensor, "layer head"]:
        """Of the attention to earlier moves, what is on those of the player who moves next."""
        return self.mine / (self.mine + self.theirs).clamp(min=1e-9)

    def counts(self) -> dict[str, int]:
        """How many heads are of each kind."""
        kinds = {"mine": self.share > OWN, "theirs": self.share < 1 - OWN}
        kinds |= {"first": self.first > OWN, "last": self.last > OWN}
        return {name: int(which.sum()) for name, which in kinds.items()}

    def most_sided(self) -> float:
        """The share of heads that take a side, in the layer that has most of them."""
        return float(((self.share > OWN) | (self.share < 1 - OWN)).double().mean(1).max())


def heads_of(config: Config, model: Model, n: int = GAMES) -> SidedHeads:
    """Mean attention over positions with six moves before them. One run over `n` games.

    The last move is left out of mine and theirs, and so is the first. Uniform attention would give each half.
    """
    games = unseen_games(config, n, LOOKED_AT)
    tokens = tokens_of(games)
    sites = [Site("pattern", layer) for layer in range(model.shape.n_layers)]
    cache = model.run(tokens[:, :-1], keep=sites, logits="last").cache
    black = torch.from_numpy(games.black[:, :-1].copy())
    there = tokens[:, 1:] > PAD
    n_pos = there.shape[1]
    there[:, :6] = False
    mover_next = black[:, 1:]
    mine = black[:, None, :n_pos] == mover_next[:, :, None]  # game query key
    key, query = torch.arange(n_pos)[None, :], torch.arange(n_pos)[:, None]
    between = (key > 0) & (key < query)
    found = []
    for site in sites:
        pattern = cache[site]
        parts = [pattern * (mine & between)[:, None], pattern * (~mine & between)[:, None]]
        parts += [pattern[..., :1], pattern * (key == query)]
        found.append(torch.stack([part.sum(-1).transpose(1, 2)[there].mean(0) for part in parts]))
    mine_, theirs, first, last = torch.stack(found, 1)
    return SidedHeads(mine_, theirs, first, last)


class NeuronMatch(NamedTuple):
    """The best neuron of a property."""

    name: str
    layer: int
    neuron: int
    f1: float


class Neurons(NamedTuple):
    """The best neuron of every property, on games other than those that chose it."""

    best: list[NeuronMatch]
    shuffled: float
    """The mean F1 when labels are those of another game at the same ply."""

    def mean(self) -> float:
        return sum(each.f1 for each in self.best) / len(self.best)

    def rows(self, n: int = 12) -> list[dict[str, Any]]:
        return [each._asdict() for each in sorted(self.best, key=lambda each: -each.f1)[:n]]


def neurons_of(config: Config, model: Model, target: str = "legal", n: int = GAMES) -> Neurons:
    """For each square, the neuron whose firing tells best whether it is legal (or, `target` "flipped", just flipped).

    A neuron fires above the threshold, of nine shares of its largest value, that has the best F1 on half of the games;
    its F1 is of the other half. Two runs over `n` games; 2 x neurons x squares FLOPs a position and threshold.
    """
    x, y, other, names, half = _firing(config, model, target, n)
    chosen = _best(x[:half], y[:half])
    f1 = _f1(x[half:] > chosen.level, y[half:])
    at = torch.arange(len(names))
    values = f1[chosen.neuron, at]
    by_chance = _best(x[:half], other[:half])
    shuffled = _f1(x[half:] > by_chance.level, other[half:])[by_chance.neuron, at]
    width = model.shape.d_mlp
    best = [
        NeuronMatch(name, int(i) // width, int(i) % width, float(v))
        for name, i, v in zip(names, chosen.neuron, values, strict=True)
    ]
    return Neurons(best, float(shuffled.mean()))


def _firing(config: Config, model: Model, target: str, n: int) -> tuple[Tensor, Tensor, Tensor, list[str], int]:
    """Activations, labels, those of another game at the same ply, names, and the rows of half of the games."""
    games, board = unseen_games(config, n, LOOKED_AT + 1), config.board
    tokens = tokens_of(games)
    there = tokens[:, 1:] > PAD
    sites = [Site("neurons", layer) for layer in range(model.shape.n_layers)]
    cache = model.run(tokens[:, :-1], keep=sites, logits="last").cache
    x = torch.cat([cache[site][there] for site in sites], -1)
    labels = labels_of(games, (target,))[target] == 1
    y, other = labels[there], labels.roll(1, 0)[there]
    often = y.double().mean(0) > 0.01
    names = [board.name(square) for square in often.nonzero()[:, 0].tolist()]
    return x, y[:, often], other[:, often], names, int(there[: n // 2].sum())


class _Chosen(NamedTuple):
    neuron: Tensor
    level: Tensor
    """Of each neuron: the threshold of the property that it is the best of, or its last one."""


def _best(x: Tensor, y: Tensor) -> _Chosen:
    largest = x.amax(0).clamp(min=1e-6)
    f1 = torch.stack([_f1(x > share / 10 * largest, y) for share in range(1, 10)])  # threshold neuron property
    top = f1.amax(0).argmax(0)
    level = largest * 0.5
    for prop, neuron in enumerate(top.tolist()):
        level[neuron] = largest[neuron] * (int(f1[:, neuron, prop].argmax()) + 1) / 10
    return _Chosen(top, level)


def _f1(fires: Tensor, y: Tensor) -> Float[Tensor, "neuron property"]:
    fires, y = fires.float(), y.float()
    return 2 * (fires.T @ y) / (fires.sum(0)[:, None] + y.sum(0)).clamp(min=1)
