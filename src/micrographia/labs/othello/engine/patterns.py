"""The patterns that make a move legal: an empty square, discs of the other in a line from it, an own disc behind them.

A square is legal where one of its patterns or more is on the board. There are 56 on 4x4, 316 on 6x6 and 960 on 8x8,
without those of the four squares that are never empty. Where flanked discs are removed, a pattern is an own disc beside
an empty square. Axes: pattern square.
"""

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.rules import Bits, unpack

DIRECTIONS = tuple(step for step in itertools.product((-1, 0, 1), repeat=2) if any(step))


class Patterns(NamedTuple):
    """Every pattern of a board, and what each asks of the squares."""

    square: Int[ndarray, "pattern"]
    """The square that it makes legal."""
    needs: Float[ndarray, "pattern three_squares"]
    """1 for each square that has to be empty, each that has to be own, and each that has to be the other's, in turn."""


@lru_cache
def patterns_of(board: Board) -> Patterns:
    """In the order of their squares."""
    n, squares, needs = board.n_squares, list[int](), list[ndarray]()
    for square, (down, right) in itertools.product(board.playable, DIRECTIONS):
        row, column = divmod(square, board.size)
        line = [(row + k * down, column + k * right) for k in range(1, board.size)]
        inside = [r * board.size + c for r, c in line if 0 <= r < board.size and 0 <= c < board.size]
        for k in range(len(inside))[:1] if board.flanked == "removed" else range(1, len(inside)):
            need = np.zeros(3 * n, np.float32)
            need[[square, n + inside[k], *(2 * n + each for each in inside[:k])]] = 1
            squares.append(square)
            needs.append(need)
    return Patterns(np.array(squares), np.stack(needs))


def patterns_on(own: Bits, other: Bits, board: Board) -> Bool[ndarray, "*boards pattern"]:
    """Which patterns are there for the player with `own` discs. A product of (3 x squares, patterns) a board."""
    mine, theirs = unpack(own, board), unpack(other, board)
    needs = patterns_of(board).needs
    there = np.concatenate([~(mine | theirs), mine, theirs], -1).astype(np.float32)
    return there @ needs.T == needs.sum(1)


def any_pattern(there: Float[ndarray, "row pattern"], board: Board) -> Float[ndarray, "row playable"]:
    """Probability that a square has one of its patterns, of probabilities that are taken as independent."""
    square = patterns_of(board).square
    none = np.log1p(-there.clip(0, 1 - 1e-6))
    belongs = (square[:, None] == np.array(board.playable)).astype(none.dtype)
    return 1 - np.exp(none @ belongs)
