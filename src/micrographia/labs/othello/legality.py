"""Whether predictions go by the board, or by the patterns that decide which moves are legal.

An OR of the 960 flanking patterns of 8x8 makes legal moves without a board (nothello, 2026). So patterns are read by
linear probes of their own: off the activations where the board is read best, and off the moves without a network. Where
the OR of these and the rules on the read board disagree about a square, which of the two do predictions follow? Null:
what they do at that square, at that ply, in games in which the two agree. Axes: row (a position) square.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from micrographia.core.events import Watch
from micrographia.core.intervals import Interval, clustered_ratio
from micrographia.core.model import Model
from micrographia.core.runtime import generator
from micrographia.labs.othello.behaviour import read_legal
from micrographia.labs.othello.config import Config
from micrographia.labs.othello.engine.patterns import any_pattern
from micrographia.labs.othello.history import history_probe
from micrographia.labs.othello.network import unseen_games
from micrographia.labs.othello.reading import probe_board, reader
from micrographia.labs.othello.task import PATTERNS, Predicted, predicted, tokens_of
from micrographia.methods.probes.probe import SiteProbes

COMPARED_ON, GAMES = 90, 500  # number of the sample, and its games
PATTERN_GAMES = 50_000
"""Games of the probe of the moves, or as many as of model and probe together where those are fewer."""
ACTIVATIONS, MOVES = "activations", "moves"


Squares = Bool[ndarray, "row square"]


class Position(NamedTuple):
    """Of every position: what is true, what the model says, and where it is from."""

    legal: Squares
    ranked: Squares
    """Whether the model has the square among its N likeliest, N moves being legal."""
    probability: Float[ndarray, "row square"]
    game: Int[ndarray, "row"]
    ply: Int[ndarray, "row"]


def position(logits: Float[Tensor, "game pos vocab"], right: Predicted) -> Position:
    legal, logits = right.legal[right.there], logits[right.there]
    probability = logits.softmax(-1)[:, 1:]
    legal, logits = legal[:, 1:].numpy(), logits[:, 1:].numpy()
    return Position(legal, _likeliest(logits, legal), probability.numpy(), *right.there.nonzero().T.numpy())


def _likeliest(scores: Float[ndarray, "row square"], legal: Squares) -> Squares:
    """The N squares of the highest scores, N moves being legal: no threshold is to be chosen."""
    return (-scores).argsort(-1, kind="stable").argsort(-1) < legal.sum(-1, keepdims=True)


class BoardOrPatterns(NamedTuple):
    """How far legality by patterns and by the read board differ, and which of the two the model follows."""

    first_choice: float
    """How often the likeliest square by the patterns is legal."""
    differs: float
    """Positions in which the two disagree about a square or more."""
    follows_board: float
    """Of the squares in question, how many the model ranks as the board says."""
    null: float
    """What would be so if it did there what it does where the two agree."""
    board_right: float
    """What would be so if it always were right there."""
    beyond: Interval
    """How much more often it follows the board than that, over games: errors shared with it less with patterns."""
    with_board: float
    """Of the squares about which the board is wrong and the patterns are right, where the model errs with the board."""
    with_patterns: float
    """And the reverse."""
    kinds: tuple[Mapping[str, Any], ...]
    """Squares that the board alone calls legal, and those that the patterns alone do."""


class Legality(NamedTuple):
    """Of patterns off the activations and off the moves; `chance`: a first choice at random among empty squares."""

    found: Mapping[str, BoardOrPatterns]
    chance: float

    def rows(self) -> list[dict[str, Any]]:
        return [{"patterns": name, **kind} for name, each in self.found.items() for kind in each.kinds]


def legality(config: Config, model: Model, board: SiteProbes, place: int, n_games: int, watch: Watch) -> Legality:
    """Fit probes of the patterns at one site and on the moves of `n_games`, and hold both against the read board.

    Cost: a run over `probe_games`, two over 500 others, and a linear probe of the moves of up to 50,000 games.
    """
    read = reader(model, place)
    own = probe_board(config, read, (PATTERNS,), watch=watch, task="probes of patterns").probes[PATTERNS]
    moves = history_probe(
        config, PATTERNS, None, min(n_games, PATTERN_GAMES), watch=watch, task="patterns off the moves"
    )
    games = unseen_games(config, GAMES, COMPARED_ON)
    tokens, right = tokens_of(games)[:, :-1], predicted(games)
    x = read(tokens)[:, right.there]
    at = position(model.run(tokens).logits, right)
    by_board = read_legal(config, board.at(place), x)[:, 1:].numpy()
    with torch.no_grad():
        said = {ACTIVATIONS: own.logits(x)[0], MOVES: moves.logits(tokens)[right.there]}
    found = {}
    for name, logits in said.items():
        there = logits.softmax(-1)[..., 1].numpy()
        square = any_pattern(there, config.board)
        found[name] = compared(at, by_board, _likeliest(square, at.legal), square.argmax(-1))
    empty = (~(right.tokens[:, :, None] == torch.arange(right.legal.shape[-1])).cumsum(1).bool())[right.there][:, 1:]
    return Legality(found, float((at.legal.sum(-1) / empty.sum(-1).numpy()).mean()))


def compared(at: Position, by_board: Squares, by_patterns: Squares, choice: Int[ndarray, "row"]) -> BoardOrPatterns:
    """Two ways of telling what is legal, beside what the model does where they disagree."""
    odd = by_board != by_patterns
    usual = _usual(at, ~odd)
    known = odd & np.isfinite(usual)
    game = np.broadcast_to(at.game[:, None], odd.shape)[known]
    follows, right = at.ranked == by_board, at.legal == by_board
    more = follows[known].astype(np.float64) - right[known]
    beyond = clustered_ratio(more, np.ones_like(more), game, generator=generator(0))
    return BoardOrPatterns(
        float(at.legal[np.arange(len(choice)), choice].mean()),
        float(odd.any(-1).mean()),
        _mean(follows[known]),
        _mean(np.where(by_board, usual, 1 - usual)[known]),
        _mean(right[known]),
        beyond,
        *(_mean((at.ranked == said)[known & (said != at.legal)]) for said in (by_board, by_patterns)),
        tuple(_kind(at, usual, known & (by_board == board), board) for board in (True, False)),
    )


def _usual(at: Position, agreed: Squares) -> Float[ndarray, "row square"]:
    """How often a square is among the likeliest at this ply, over the games in which the two agree about it."""
    found = np.full(agreed.shape, np.nan)
    for ply in np.unique(at.ply):
        here = at.ply == ply
        n = agreed[here].sum(0)
        found[here] = np.divide((agreed & at.ranked)[here].sum(0), n, out=np.full(len(n), np.nan), where=n > 0)
    return found


def _kind(at: Position, usual: ndarray, which: Squares, board: bool) -> Mapping[str, Any]:
    """What is so and what the model does at these squares; `null` is `ranked` where the two agree."""
    found = {"legal": at.legal[which], "ranked": at.ranked[which], "null": usual[which]}
    found |= {"ranked_legal": at.ranked[which & at.legal], "ranked_illegal": at.ranked[which & ~at.legal]}
    found["probability"] = (at.probability * at.legal.sum(-1, keepdims=True))[which]  # in units of 1 / N
    return {"by_board": board, "n": int(which.sum()), **{name: _mean(each) for name, each in found.items()}}


def _mean(values: ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
