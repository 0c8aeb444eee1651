"""The rules of `rules` on tensors of any device: the same sets, bit for bit, as int64.

Torch has no unsigned shifts, so what a right shift brings in from the sign, square 63, is masked away. Each function
allocates; on an accelerator give it a million boards at a time. Axes: any, alike in all arguments.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from micrographia.core.errors import BadConfig
from micrographia.labs.othello.engine.board import Board


def legal_moves(own: Int[Tensor, "*games"], other: Int[Tensor, "*games"], board: Board) -> Int[Tensor, "*games"]:
    """Where the player with `own` discs may move."""
    found = torch.zeros_like(own)
    for shift, runs_in in _directions(other, board):
        found |= _shifted(_runs(own, runs_in, shift, board), shift)
    return found & ~(own | other) & _signed(board.full)


def flipped(
    own: Int[Tensor, "*games"], other: Int[Tensor, "*games"], move: Int[Tensor, "*games"], board: Board
) -> Int[Tensor, "*games"]:
    """The discs that each move flips. `move`: a set of one square, or of none."""
    found = torch.zeros_like(own)
    for shift, runs_in in _directions(other, board):
        found |= _runs(move, runs_in, shift, board) & _runs(own, runs_in, -shift, board)
    return found


def _directions(other: Tensor, board: Board) -> Iterator[tuple[int, Tensor]]:
    """Each shift, and the discs that a run in its direction may have."""
    if board.flanked != "flipped":
        raise BadConfig(
            f"Flanked discs are to be {board.flanked!r}. On tensors they are flipped alone. Use Rules instead."
        )
    for shift, where in board.lines:
        runs_in = other & _signed(where)
        yield from ((shift, runs_in), (-shift, runs_in))


def _runs(start: Tensor, runs_in: Tensor, shift: int, board: Board) -> Tensor:
    found = _shifted(start, shift) & runs_in
    found = found | _shifted(found, shift) & runs_in
    pairs = _shifted(runs_in, shift) & runs_in
    for _ in range(board.doublings):
        found = found | _shifted(found, 2 * shift) & pairs
    return found


def _shifted(x: Tensor, by: int) -> Tensor:
    return x << by if by > 0 else (x >> -by) & ((1 << (64 + by)) - 1)


def _signed(bits: int) -> int:
    """64 bits as a signed number."""
    return bits - (1 << 64) if bits >> 63 else bits
