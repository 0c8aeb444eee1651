"""Legal moves and flipped discs of many boards at once, in numpy.

A `Rules` holds the buffers for n boards: nothing is allocated in between, and with a few thousand boards all of it
stays in the processor's cache. A run of the other's discs is followed along each of the eight directions by steps of
one, one and then two squares (parallel prefix); the runs that `legal` finds behind own discs are used again by
`flips`. `torch_rules` has the same on any device of torch. Axes: game; direction (first those by left shifts).
"""

import numpy as np
from numpy.typing import NDArray

from micrographia.labs.othello.engine.board import Board

Bits = NDArray[np.uint64]


class Rules:
    """The rules for `n` boards at once.

    Cost of `legal` with `flips`: on 8x8 about 230 passes over n 64-bit numbers.
    """

    def __init__(self, board: Board, n: int) -> None:
        self.board = board
        self._runs = np.empty((8, n), np.uint64)  # of the other's discs, from an own disc on
        self._pairs = np.empty((8, n), np.uint64)  # other's discs whose neighbour behind is the other's too
        self._own, self._other, self._inner, self._a, self._b, self._all = np.empty((6, n), np.uint64)
        self._full, self._shifts = np.uint64(board.full), [np.uint64(shift) for shift, _ in board.lines]

    def legal(self, own: Bits, other: Bits, out: Bits | None = None) -> Bits:
        """Where the player with `own` discs may move: empty squares from which at least one disc is flipped."""
        found = np.empty_like(own) if out is None else out
        np.copyto(self._own, own)
        np.copyto(self._other, other)
        np.bitwise_and(other, np.uint64(self.board.inner_columns), out=self._inner)
        found.fill(0)
        for i, shift in enumerate(self._shifts):
            runs_in = self._in_line(i)
            pairs, back = self._pairs[i], self._pairs[4 + i]
            np.left_shift(runs_in, shift, out=pairs)
            np.bitwise_and(pairs, runs_in, out=pairs)
            np.right_shift(pairs, shift, out=back)
            for walk, k in ((np.left_shift, i), (np.right_shift, 4 + i)):
                runs = self._fill(own, k, walk, shift, runs_in, self._runs[k])
                walk(runs, shift, out=self._a)
                np.bitwise_or(found, self._a, out=found)
        if self.board.flanked == "removed":
            found[:] = self._beside(own)
        np.bitwise_or(own, other, out=self._a)
        np.invert(self._a, out=self._a)
        np.bitwise_and(self._a, self._full, out=self._a)
        return np.bitwise_and(found, self._a, out=found)

    def flips(self, move: Bits, out: Bits | None = None) -> Bits:
        """The discs that each move flips (or removes), on the boards of the last `legal`. `move`: one square each, or
        none."""
        found = np.empty_like(move) if out is None else out
        found.fill(0)
        for i, shift in enumerate(self._shifts):
            for walk, k, behind in ((np.left_shift, i, 4 + i), (np.right_shift, 4 + i, i)):
                runs = self._fill(move, k, walk, shift, self._in_line(i), self._b)
                np.bitwise_and(runs, self._runs[behind], out=runs)  # those that an own disc ends
                if self.board.flanked == "ends":
                    back = np.right_shift if walk is np.left_shift else np.left_shift
                    runs &= walk(move, shift) | back(self._own, shift)
                np.bitwise_or(found, runs, out=found)
        return found

    def put(self, at: NDArray[np.intp], others: "Rules") -> None:
        """Take over what `others` knows of its boards, as the boards `at` of this one."""
        self._runs[:, at], self._pairs[:, at] = others._runs, others._pairs
        self._own[at], self._other[at], self._inner[at] = others._own, others._other, others._inner

    def _beside(self, own: Bits) -> Bits:
        """The squares next to own discs, and those themselves."""
        first, size = np.uint64(self.board.first_column), np.uint64(self.board.size)
        one, last = np.uint64(1), first << (size - np.uint64(1))
        row = own | (own & ~last) << one | (own & ~first) >> one
        return row | row << size | row >> size

    def _in_line(self, i: int) -> Bits:
        return self._other if self.board.lines[i][1] == self.board.full else self._inner

    def _fill(self, start: Bits, k: int, walk: np.ufunc, shift: np.uint64, runs_in: Bits, out: Bits) -> Bits:
        """The runs of the other's discs that begin beside `start`, in one direction."""
        step, pairs, twice = self._a, self._pairs[k], np.uint64(2 * int(shift))
        walk(start, shift, out=step)
        np.bitwise_and(step, runs_in, out=out)
        walk(out, shift, out=step)
        np.bitwise_and(step, runs_in, out=step)
        np.bitwise_or(out, step, out=out)
        for _ in range(self.board.doublings):
            walk(out, twice, out=step)
            np.bitwise_and(step, pairs, out=step)
            np.bitwise_or(out, step, out=out)
        return out


def played(board: Board, own: Bits, other: Bits, move: Bits, flips: Bits) -> tuple[Bits, Bits]:
    """The discs of the mover and of the other after moves with these flips."""
    return own | move | (flips if board.flanked != "removed" else np.uint64(0)), other & ~flips


def nth_square(bits: Bits, n: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The n-th square of each set, from 0, in order: by halves down to eight squares, then a table."""
    rest, n, found = bits.copy(), n.copy(), np.zeros(len(bits), np.uint8)
    for width in (32, 16, 8):
        below = np.bitwise_count(rest & np.uint64((1 << width) - 1))
        upper = (n >= below).view(np.uint8)
        n -= below * upper
        upper *= np.uint8(width)
        rest >>= upper.astype(np.uint64)
        found += upper
    rest &= np.uint64(0xFF)
    return found + _NTH.take((rest.astype(np.intp) << 3) + n)


def _nth_table() -> NDArray[np.uint8]:
    """(byte, n) -> place of the n-th bit of the byte; 0 where it has none."""
    table = np.zeros((256, 8), np.uint8)
    for byte in range(256):
        places = [i for i in range(8) if byte >> i & 1]
        table[byte, : len(places)] = places
    return table.reshape(-1)


_NTH = _nth_table()


def unpack(bits: Bits, board: Board) -> NDArray[np.bool_]:
    """Sets as truth values: a last axis of squares."""
    each = np.ascontiguousarray(bits)[..., None].view(np.uint8)
    return np.unpackbits(each, axis=-1, bitorder="little")[..., : board.n_squares].view(np.bool_)
