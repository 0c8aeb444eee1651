"""Games: random legal ones, and given ones replayed. Moves, movers, boards, flips and legal sets in one pass.

There is no move for a pass: a player who cannot move is skipped, so the mover is not always who the parity of the ply
says (Li et al. 2023 write games so). Boards are those before each move, from the side of the player who moves. Axes:
game ply; after the end of a game moves are -1 and all sets are empty, but for `own` and `other` of the final board.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from micrographia.core.errors import UserError
from micrographia.labs.othello.engine.board import Board, Flanked
from micrographia.labs.othello.engine.rules import Bits, Rules, nth_square, played

CHUNK = 8_192
"""Games at a time: their boards and buffers stay in the cache."""
NONE = -1


class Games(NamedTuple):
    """Games of one board. Every field but `board` and `length` is (game, ply), with one ply more for the final board
    in `own`, `other`, `black` and `legal`."""

    board: Board
    moves: NDArray[np.int8]
    """The square that is taken; -1 after the end."""
    black: NDArray[np.bool_]
    """Whether Black moves; on a finished board, of the side that `own` is."""
    own: Bits
    other: Bits
    legal: Bits
    """Where the mover may move; none on a finished board."""
    flips: Bits
    """The discs that the move flips (or removes, where the board's rules do)."""
    length: NDArray[np.int64]
    """Moves played."""

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Whether neither player could move when the game stopped."""
        return np.take_along_axis(self.legal, self.length[:, None], 1)[:, 0] == 0

    @property
    def passed(self) -> NDArray[np.bool_]:
        """Whether a turn was skipped before this move: the mover is the one who moved before."""
        here = np.zeros(self.moves.shape, np.bool_)
        here[:, 1:] = (self.black[:, 1:-1] == self.black[:, :-2]) & (self.moves[:, 1:] >= 0)
        return here

    def colours(self, at: NDArray[np.intp] | slice = slice(None)) -> tuple[Bits, Bits]:
        """Black's discs and White's, of every board."""
        own, other, black = self.own[:, at], self.other[:, at], self.black[:, at]
        return np.where(black, own, other), np.where(black, other, own)

    def some(self, games: NDArray[np.intp] | slice) -> "Games":
        """Some of the games."""
        return Games(self.board, *(field[games] for field in self[1:]))


class IllegalMove(NamedTuple):
    """A move that the rules do not allow, in a game that was given."""

    game: int
    ply: int
    """From 0."""
    square: int
    drawn: str
    """The board before it, with the legal moves marked."""

    def told(self, board: Board) -> str:
        return f"move {self.ply + 1}, {board.name(self.square)}, is not legal on\n{self.drawn}"


def random_games(board: Board, n: int, generator: Generator) -> Games:
    """`n` games in which every move is drawn evenly from the legal ones. A pure function of the generator's state.

    Cost: on 8x8 about 270 passes over 8 bytes a ply and game; 2.6 kB a game are kept.
    """
    parts = []
    for first in range(0, n, CHUNK):
        size = min(CHUNK, n - first)
        draws = torch.randint(1 << 32, (board.most_moves, size), generator=generator).numpy().view(np.uint64)
        parts.append(_play(board, size, draws=draws)[0])
    return _joined(board, parts)


class StartBoards(NamedTuple):
    """Boards that games begin from instead of the usual one, each a value a game."""

    own: Bits
    """The discs of the player whose turn it is."""
    other: Bits
    black: NDArray[np.bool_]
    """Whether that is Black. A player who cannot move is skipped here too."""

    def some(self, games: slice) -> "StartBoards":
        """Those of some of the games."""
        return StartBoards(self.own[games], self.other[games], self.black[games])


def replay(
    board: Board, moves: NDArray[np.int8], *, start: StartBoards | None = None
) -> tuple[Games, list[IllegalMove]]:
    """Games given by their moves (game, ply), -1 after the last, played by the rules.

    A game stops before its first illegal move; which those are is told. Raises UserError for moves of another shape
    and for a `start` that does not fit the games or the board.
    """
    moves = np.asarray(moves)
    if moves.ndim != 2 or moves.shape[1] > board.most_moves:
        raise UserError(
            f"Games of {board.size}x{board.size} squares are rows of at most {board.most_moves} moves. Found an array "
            f"of shape {moves.shape}."
        )
    whole = np.full((len(moves), board.most_moves), NONE, np.int8)
    whole[:, : moves.shape[1]] = np.where((moves < 0) | (moves >= board.n_squares), NONE, moves)
    outside = _beyond(board, moves)
    if start is not None:
        _check_start(board, start, len(moves))
    parts, illegal = [], []
    for first in range(0, len(moves), CHUNK):
        chunk = slice(first, first + CHUNK)
        begun = None if start is None else start.some(chunk)
        games, odd = _play(board, len(whole[chunk]), given=whole[chunk], start=begun)
        parts.append(games)
        illegal += [each._replace(game=first + each.game) for each in odd]
    if outside:
        raise UserError(f"Game {outside[0]} has the square {outside[1]}, which this board does not have.")
    return _joined(board, parts), illegal


def as_if(games: Games, flanked: Flanked) -> tuple[Bits, Bits]:
    """What the same moves of the same players would make of the board by other rules, whether or not these allow them.

    The discs of the mover and of the other before each move (game, ply), as `own` and `other` of the games.
    """
    board = Board(games.board.size, flanked)
    own, other = np.empty_like(games.own), np.empty_like(games.other)
    mine, theirs = games.own[:, 0].copy(), games.other[:, 0].copy()
    rules = Rules(board, len(mine))
    for ply in range(own.shape[1]):
        if ply:
            turned = games.black[:, ply] != games.black[:, ply - 1]
            mine, theirs = np.where(turned, theirs, mine), np.where(turned, mine, theirs)
        own[:, ply], other[:, ply] = mine, theirs
        if ply < games.moves.shape[1]:
            square = games.moves[:, ply]
            move = np.left_shift((square >= 0).astype(np.uint64), np.maximum(square, 0).astype(np.uint64))
            rules.legal(mine, theirs)
            mine, theirs = played(board, mine, theirs & ~move, move, rules.flips(move))
    return own, other


def _beyond(board: Board, moves: NDArray[np.int8]) -> tuple[int, int] | None:
    odd = np.argwhere((moves >= board.n_squares) | (moves < NONE))
    return (int(odd[0, 0]), int(moves[tuple(odd[0])])) if len(odd) else None


def _check_start(board: Board, start: StartBoards, n: int) -> None:
    if any(field.shape != (n,) for field in start):
        shapes = ", ".join(str(field.shape) for field in start)
        raise UserError(f"{n} games need as many boards to start from. Found arrays of shapes {shapes}.")
    odd = np.flatnonzero((start.own & start.other) | ((start.own | start.other) & ~np.uint64(board.full)))
    if len(odd):
        raise UserError(f"Game {odd[0]} starts with two discs on a square, or with one beside the board.")


class _Table:
    """Where the games of a chunk are written down, a row a ply."""

    def __init__(self, board: Board, n: int) -> None:
        plies = board.most_moves
        self.moves = np.full((plies, n), NONE, np.int8)
        self.black = np.zeros((plies + 1, n), np.bool_)
        self.own, self.other, self.legal = np.zeros((3, plies + 1, n), np.uint64)
        self.flips = np.zeros((plies, n), np.uint64)
        self.length = np.zeros(n, np.int64)

    def games(self, board: Board) -> Games:
        fields = (self.moves, self.black, self.own, self.other, self.legal, self.flips)
        return Games(board, *(field.T for field in fields), self.length)


def _play(
    board: Board,
    n: int,
    *,
    draws: Bits | None = None,
    given: NDArray[np.int8] | None = None,
    start: StartBoards | None = None,
) -> tuple[Games, list[IllegalMove]]:
    table, rules, illegal = _Table(board, n), Rules(board, n), []
    if start is None:
        own, other = (np.full(n, discs, np.uint64) for discs in board.start)
        blacks = np.ones(n, np.bool_)
    else:
        own, other, blacks = start.own.copy(), start.other.copy(), start.black.copy()
    legal, move, flips = np.empty((3, n), np.uint64)
    for ply in range(board.most_moves + 1):
        rules.legal(own, other, out=legal)
        _skip(board, rules, own, other, blacks, legal)
        table.own[ply], table.other[ply], table.black[ply], table.legal[ply] = own, other, blacks, legal
        if ply == board.most_moves:
            break
        if draws is not None:
            square, plays = _drawn(legal, draws[ply])
        else:
            assert given is not None
            square, plays = _given(board, table, ply, given[:, ply], illegal)
        if not plays.any():  # what follows of the table is that final board
            table.own[ply:], table.other[ply:], table.black[ply:] = own, other, blacks
            table.legal[ply:] = legal
            break
        np.left_shift(np.uint64(1), square, out=move)
        move *= plays
        rules.flips(move, out=flips)
        table.flips[ply], table.moves[ply] = flips, np.where(plays, square.view(np.int64), NONE)
        table.length += plays
        _advance(board, own, other, blacks, move, flips, plays)
    return table.games(board), illegal


def _skip(board: Board, rules: Rules, own: Bits, other: Bits, blacks: NDArray[np.bool_], legal: Bits) -> None:
    """Hand the turn over where the mover cannot move and the other can."""
    stuck = np.flatnonzero(legal == 0)
    if not len(stuck):
        return
    theirs = Rules(board, len(stuck))
    options = theirs.legal(other[stuck], own[stuck])
    can = options != 0
    at = stuck[can]
    if len(at):
        theirs = Rules(board, len(at))
        own[at], other[at] = other[at], own[at]
        legal[at] = theirs.legal(own[at], other[at])
        blacks[at] = ~blacks[at]
        rules.put(at, theirs)


def _drawn(legal: Bits, draw: Bits) -> tuple[Bits, NDArray[np.bool_]]:
    """One of the legal squares, each as likely (to one part in 2**26), and whether there is any."""
    count = np.bitwise_count(legal)
    which = ((draw * count) >> np.uint64(32)).astype(np.uint8)
    return nth_square(legal, which).astype(np.uint64), count > 0


def _given(
    board: Board, table: _Table, ply: int, moves: NDArray[np.int8], illegal: list[IllegalMove]
) -> tuple[Bits, NDArray[np.bool_]]:
    """The given moves as far as the game went on till here; the illegal ones are told."""
    goes_on = (moves >= 0) & (table.length == ply)
    square = np.maximum(moves, 0).astype(np.uint64)
    allowed = (table.legal[ply] >> square & np.uint64(1)).astype(np.bool_)
    for game in np.flatnonzero(goes_on & ~allowed):
        sides = [int(table.own[ply, game]), int(table.other[ply, game])]
        black, white = sides if table.black[ply, game] else sides[::-1]
        drawn = board.drawn(black, white, board.squares(int(table.legal[ply, game])))
        illegal.append(IllegalMove(int(game), ply, int(moves[game]), drawn))
    return square, goes_on & allowed


def _advance(
    board: Board, own: Bits, other: Bits, blacks: NDArray[np.bool_], move: Bits, flips: Bits, plays: NDArray[np.bool_]
) -> None:
    """Take the move and hand the turn over, in place; boards on which nobody plays stay as they are."""
    if board.flanked != "removed":
        move |= flips
    own |= move
    other ^= flips
    if plays.all():
        np.logical_not(blacks, out=blacks)
        mine = own.copy()
        own[:], other[:] = other, mine
        return
    blacks ^= plays
    mine, theirs = np.where(plays, other, own), np.where(plays, own, other)
    own[:], other[:] = mine, theirs


def _joined(board: Board, parts: list[Games]) -> Games:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return _Table(board, 0).games(board)
    return Games(board, *(np.concatenate([part[i] for part in parts]) for i in range(1, len(Games._fields))))
