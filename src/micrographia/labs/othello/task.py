"""Games as a language model reads them: a token a move, and what is true of the board after each.

Tokens are those of Li et al. 2023 (arXiv 2210.13382): 0 pads, then the squares in order without the four of the
centre; there is no token for a pass or a beginning. The model reads all moves but the last and predicts the next; what
it predicts after move t is the board of ply t + 1, whose mover is the true one. Axes: game pos square.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from micrographia.core.tokens import Vocabulary
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.games import Games, as_if
from micrographia.labs.othello.engine.patterns import patterns_of, patterns_on
from micrographia.labs.othello.engine.rules import Bits, unpack
from micrographia.methods.probes.probe import ProbeTarget

PAD = 0
EMPTY, MINE, THEIRS = 0, 1, 2
"""Classes of a square. In the absolute frame "mine" is Black's."""


def vocabulary(board: Board) -> Vocabulary:
    """The words of a model of this board: pad, then the names of the squares."""
    return Vocabulary(("<pad>", *(board.name(square) for square in board.playable)), pad=PAD)


def tokens_of(games: Games) -> Int[Tensor, "game ply"]:
    """Every game as tokens, padded at its end."""
    board = games.board
    token = np.zeros(board.n_squares + 1, np.int64)
    token[list(board.playable)] = np.arange(1, len(board.playable) + 1)
    return torch.from_numpy(token[np.where(games.moves < 0, board.n_squares, games.moves)])


def squares_of(board: Board, tokens: NDArray[np.int64] | Tensor) -> NDArray[np.int8]:
    """The inverse: the squares of tokens, -1 for padding."""
    square = np.array([-1, *board.playable], np.int8)
    return square[np.asarray(tokens)]


class Predicted(NamedTuple):
    """What the model reads, and what is right about the next move: one position less than moves."""

    tokens: Int[Tensor, "game pos"]
    next: Int[Tensor, "game pos"]
    legal: Bool[Tensor, "game pos vocab"]
    """The tokens of the legal next moves."""
    there: Bool[Tensor, "game pos"]
    """Whether the game has a next move."""


def predicted(games: Games) -> Predicted:
    tokens = tokens_of(games)
    legal = unpack(games.legal[:, 1:-1], games.board)[..., list(games.board.playable)]
    padded = np.concatenate([np.zeros((*legal.shape[:-1], 1), np.bool_), legal], -1)
    return Predicted(tokens[:, :-1], tokens[:, 1:], torch.from_numpy(padded), tokens[:, 1:] > PAD)


Frame = Callable[[Games], NDArray[np.bool_]]


def _mover(games: Games) -> NDArray[np.bool_]:
    return np.ones_like(games.black[:, 1:-1])


def _parity(games: Games) -> NDArray[np.bool_]:
    plies = np.arange(1, games.moves.shape[1])
    return games.black[:, 1:-1] == (plies % 2 == 0)


def _absolute(games: Games) -> NDArray[np.bool_]:
    return games.black[:, 1:-1]


FRAMES: Mapping[str, Frame] = {"mover": _mover, "parity": _parity, "absolute": _absolute}
"""Whose discs are class 1, as: whether those are the ones of the player who moves next. By who truly moves next; by
whom the parity of the ply says, as all published code has it; Black's always."""
PARITIES = {"even": 0, "odd": 1}
"""The board in the absolute frame after an even or odd number of moves alone: the modes of published probes."""
UNFLIPPED = "unflipped"
"""The board in the mover's frame if no disc were ever flipped: who placed each. A control: it needs no rules."""
OTHER_RULES = "other rules"
"""The board in the mover's frame if the same moves had been played by other rules: with the ends of runs flipped alone,
or, where the games are of a variant, by those of Othello. A control: does the model keep the board of its own rules?"""
PATTERNS = "patterns"
"""Which of the patterns that make a square legal (`engine.patterns`) are on the board."""
OTHERS = ("flipped", "placed", "legal")
"""What is read besides the board, a truth value a square: the discs that the last move flipped, its square, and where
the next mover may go."""


def targets_of(board: Board, names: tuple[str, ...]) -> dict[str, ProbeTarget]:
    n_items = {name: len(patterns_of(board).square) if name == PATTERNS else board.n_squares for name in names}
    return {name: ProbeTarget(n, 2 if name in (PATTERNS, *OTHERS) else 3) for name, n in n_items.items()}


def labels_of(games: Games, names: tuple[str, ...]) -> dict[str, Int[Tensor, "game pos square"]]:
    """What is true after each move that another follows; -1 where none follows."""
    board, there = games.board, games.moves[:, 1:] >= 0
    own, other = unpack(games.own[:, 1:-1], board), unpack(games.other[:, 1:-1], board)
    found: dict[str, NDArray[np.int8]] = {}
    for name in names:
        if name in FRAMES:
            found[name] = _board(own, other, FRAMES[name](games))
        elif name in PARITIES:
            other_parity = np.arange(1, there.shape[1] + 1)[:, None] % 2 != PARITIES[name]
            found[name] = np.where(other_parity, np.int8(-1), _board(own, other, _absolute(games)))
        elif name == UNFLIPPED:
            mine = [unpack(each, board) for each in _unflipped(games)]
            found[name] = _board(*mine, _mover(games))
        elif name == OTHER_RULES:
            sides = as_if(games, "ends" if board.flanked == "flipped" else "flipped")
            found[name] = _board(*(unpack(each[:, 1:-1], board) for each in sides), _mover(games))
        elif name == PATTERNS:
            found[name] = patterns_on(games.own[:, 1:-1], games.other[:, 1:-1], board).view(np.int8)
        elif name == "placed":
            found[name] = (np.arange(board.n_squares) == games.moves[:, :-1, None]).astype(np.int8)
        else:
            sets = games.flips[:, :-1] if name == "flipped" else games.legal[:, 1:-1]
            found[name] = unpack(sets, board).view(np.int8)
    return {name: torch.from_numpy(np.where(there[..., None], each, np.int8(-1))) for name, each in found.items()}


def _unflipped(games: Games) -> tuple[Bits, Bits]:
    """The discs that the next mover placed, and those of the other, after every move but the last."""
    start, black = games.board.start, games.black[:, :-1]
    placed = np.where(games.moves >= 0, np.left_shift(np.uint64(1), np.maximum(games.moves, 0).astype(np.uint64)), 0)
    by = [np.bitwise_or.accumulate(np.where(black == own, placed, np.uint64(0)), 1)[:, :-1] for own in (True, False)]
    black_own, white_own = by[0] | np.uint64(start[0]), by[1] | np.uint64(start[1])
    white_own &= ~black_own  # a square can be taken again where discs are removed
    next_black = games.black[:, 1:-1]
    return np.where(next_black, black_own, white_own), np.where(next_black, white_own, black_own)


def _board(own: NDArray[np.bool_], other: NDArray[np.bool_], as_own: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Classes of the squares, with the mover's discs as the first of the two where `as_own`."""
    mine, theirs = own.view(np.int8), other.view(np.int8)
    return np.where(as_own[..., None], MINE * mine + THEIRS * theirs, THEIRS * mine + MINE * theirs)
