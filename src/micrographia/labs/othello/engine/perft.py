"""Perft: how many lines of play there are of each length, a check of the rules against published counts.

A pass is counted as a ply of its own where it occurs, and a finished game is not carried on, as in the field's tables.
"""

import numpy as np

from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.rules import Bits, Rules, played


def perft(board: Board, depth: int) -> list[int]:
    """Lines of 1 to `depth` plies from the start. Boards that several lines reach are gone on with once."""
    own, other = (np.array([bits], np.uint64) for bits in board.start)
    passed, lines = np.zeros(1, np.uint64), np.ones(1, np.int64)
    found = []
    for _ in range(depth):
        own, other, passed, lines = _next(board, own, other, passed, lines)
        found.append(int(lines.sum()))
    return found


def _next(board: Board, own: Bits, other: Bits, passed: Bits, lines: np.ndarray) -> tuple[Bits, Bits, Bits, np.ndarray]:
    """Every board one ply on, from the side of whose turn it is, whether that was a pass, and the lines to it."""
    rules = Rules(board, len(own))
    legal = rules.legal(own, other)
    owns, others, passes, counts = [], [], [], []
    stuck = (legal == 0) & (passed == 0)
    again = np.zeros(len(own), np.bool_)
    if stuck.any():
        again[stuck] = Rules(board, int(stuck.sum())).legal(other[stuck], own[stuck]) != 0
    owns.append(other[again])
    others.append(own[again])
    passes.append(np.ones(int(again.sum()), np.uint64))
    counts.append(lines[again])
    for square in board.playable:
        move = legal & np.uint64(1 << square)
        flips = rules.flips(move)
        at = move != 0
        mine, theirs = played(board, own, other, move, flips)
        owns.append(theirs[at])
        others.append(mine[at])
        passes.append(np.zeros(int(at.sum()), np.uint64))
        counts.append(lines[at])
    each = np.stack([np.concatenate(owns), np.concatenate(others), np.concatenate(passes)], 1)
    return (*_merged(each, np.concatenate(counts)),)


def _merged(boards: np.ndarray, lines: np.ndarray) -> tuple[Bits, Bits, Bits, np.ndarray]:
    """Each board once, with the lines to it added up."""
    order = np.lexsort(boards.T)
    boards, lines = boards[order], lines[order]
    first = np.ones(len(boards), np.bool_)
    first[1:] = (boards[1:] != boards[:-1]).any(1)
    own, other, passed = np.ascontiguousarray(boards[first].T)
    return own, other, passed, np.add.reduceat(lines, np.flatnonzero(first)) if len(lines) else lines
