"""Cases of an intervention: a history, a square whose disc is to change, and what would then be legal.

As in Li et al. 2023 (arXiv 2210.13382), section 4.2: the board B after the history becomes B' by one disc of the other
colour, and the model should predict what is legal on B'. Cases in which B and B' have the same legal moves show nothing
and are left out. A published benchmark is read with `read_cases`. Axes: case pos vocab.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Generator, Tensor

from micrographia.core.errors import UserError
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.games import NONE, Games, random_games, replay
from micrographia.labs.othello.engine.rules import Bits, Rules, unpack
from micrographia.labs.othello.task import EMPTY, MINE, THEIRS, tokens_of

SHORTEST = 5
"""Moves of the shortest history, as in the published benchmark."""


class Cases(NamedTuple):
    """Histories of any length, padded at their end, which no causal model sees."""

    board: Board
    tokens: Int[Tensor, "case pos"]
    last: Int[Tensor, "case"]
    """The position of the last move of the history."""
    square: Int[Tensor, "case"]
    old: Int[Tensor, "case"]
    """What stands there, for the player who moves next: MINE or THEIRS."""
    new: Int[Tensor, "case"]
    """What should stand there: the other of the two, or EMPTY."""
    black: Bool[Tensor, "case"]
    """Whether Black moves next."""
    before: Bool[Tensor, "case vocab"]
    """The tokens of the legal moves on B."""
    after: Bool[Tensor, "case vocab"]
    """On B'."""
    own: Bits
    other: Bits
    """B' of the player who moves next."""
    also: Int[Tensor, "case further"]
    """Further squares whose discs change their colour together with the first."""

    @property
    def discs(self) -> Bits:
        """All squares that differ between B and B'."""
        squares = torch.cat([self.square[:, None], self.also], 1).numpy().astype(np.uint64)
        return np.bitwise_or.reduce(np.left_shift(np.uint64(1), squares), 1)

    def one_by_one(self) -> list["Cases"]:
        """The same cases told by one of their squares at a time, so that its direction can be taken."""
        found: list[Cases] = [self]
        for square in self.also.T:
            mine = torch.from_numpy(self.own >> square.numpy().astype(np.uint64) & np.uint64(1)) == 1  # on B'
            old, new = torch.where(mine, THEIRS, MINE), torch.where(mine, MINE, THEIRS)
            found.append(self._replace(square=square, old=old, new=new))
        return found

    def some(self, at: NDArray[np.intp] | slice) -> "Cases":
        return Cases(self.board, *(field[at] for field in self[1:]))


def every_disc(games: Games, ply: NDArray[np.int64]) -> Cases:
    """A case for each disc on the board of each game before its move `ply`, also of those that change nothing."""
    at = np.arange(len(ply))
    game, square = np.nonzero(unpack(games.own[at, ply] | games.other[at, ply], games.board))
    return _cases(games.some(game), ply[game], square[:, None], keep_all=True)


def random_cases(board: Board, n: int, generator: Generator, *, squares: int = 1, just_flipped: bool = False) -> Cases:
    """`n` cases from random games: a ply from the sixth to three quarters of a full game, and discs on its board, or,
    with `just_flipped`, one that the last move flipped.

    Raises UserError where so many were not found, which does not happen on boards of six squares and more.
    """
    found: list[Cases] = []
    longest = max(SHORTEST + 1, 3 * board.most_moves // 4)
    for _ in range(20):
        games = random_games(board, 2 * n, generator)
        ply = torch.randint(SHORTEST, longest, (2 * n,), generator=generator).numpy()
        draw = torch.rand(2 * n, board.n_squares, generator=generator, dtype=torch.float64).numpy()
        at = np.arange(2 * n)
        plays = games.length > ply
        among = games.flips[at, ply - 1] if just_flipped else games.own[at, ply] | games.other[at, ply]
        discs = unpack(among, board)
        plays &= discs.sum(-1) >= squares
        square = np.where(discs, draw, -1).argsort(-1)[:, : -squares - 1 : -1]
        found.append(_cases(games.some(plays), ply[plays], square[plays]))
        if sum(len(each.last) for each in found) >= n:
            return _joined(found).some(slice(n))
    raise UserError(f"{n} cases on a board of {board.size} squares were asked for. Found too few. Ask for fewer.")


def read_cases(path: Path, board: Board) -> Cases:
    """The cases of a JSON file: a list of objects with `history` (squares), `pos_int` and `ori_color`.

    The field names are those of the benchmark published with Li et al. 2023. `ori_color` is 0 for White and 2 for
    Black, or -1 and 1; it is held against the board. Raises UserError for other content, and for illegal histories.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Asked for cases in {path}, which cannot be read: {error}. Give a JSON file.") from error
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and row.keys() >= FIELDS for row in rows):
        fields = ", ".join(sorted(FIELDS))
        raise UserError(f"Asked for cases in {path}. It should hold a list of objects with {fields}.")
    cases = cases_of(board, rows, str(path))
    over = np.flatnonzero(~(cases.after.any(-1) & cases.before.any(-1)).numpy())
    if len(over):
        raise UserError(
            f"Asked for cases in {path}. In case {over[0]} nobody has a legal move before or after its square is "
            "changed: nothing is to be predicted. Leave it out."
        )
    return cases


FIELDS = {"history", "pos_int", "ori_color"}
COLOURS = ((0, 2), (-1, 1))
"""What White and Black are called: as classes of a probe, or as signs."""


def cases_of(board: Board, rows: Sequence[Mapping[str, Any]], told: str = "these cases") -> Cases:
    """Cases of histories as squares, a square, and the colour that its disc had."""
    _check_rows(board, rows, told)
    moves = np.full((len(rows), board.most_moves), NONE, np.int8)
    for i, row in enumerate(rows):
        moves[i, : len(row["history"])] = [int(each) for each in row["history"]]
    games, illegal = replay(board, moves)
    if illegal:
        raise UserError(f"Asked for {told}. In case {illegal[0].game}, {illegal[0].told(board)}")
    square, ply = np.array([int(row["pos_int"]) for row in rows]), games.length
    said = np.array([int(row["ori_color"]) for row in rows])
    disc, at = square.astype(np.uint64), np.arange(len(rows))
    black, white = (side[at, ply] >> disc & np.uint64(1) for side in games.colours())
    wrong = [np.flatnonzero(_differs(said, black == 1, white == 1, *names)) for names in COLOURS]
    if all(map(len, wrong)):
        first = min(wrong, key=len)[0]
        is_there = "black" if black[first] else "white" if white[first] else "empty"
        raise UserError(
            f"Asked for {told}. Case {first} says that {board.name(int(square[first]))} has the colour {said[first]}; "
            f"after its history it is {is_there}. White is 0 and Black 2, or -1 and 1. Is the board turned?"
        )
    return _cases(games, ply, square[:, None], keep_all=True)


def _check_rows(board: Board, rows: Sequence[Mapping[str, Any]], told: str) -> None:
    """Raise UserError for a row that is no case: squares that there are not, no history, other kinds of values."""
    if not rows:
        raise UserError(f"Asked for {told}. There is no case in it. Give one or more.")
    for i, row in enumerate(rows):
        history, square, colour = (row[name] for name in ("history", "pos_int", "ori_color"))
        whole = isinstance(history, list) and all(_is_square(each, board) for each in history)
        if not whole or not 0 < len(history) < board.most_moves:
            raise UserError(
                f"Asked for {told}. The history of case {i} should be a list of 1 to {board.most_moves - 1} squares, "
                f"whole numbers from 0 to {board.n_squares - 1}. Found {str(history)[:60]}."
            )
        if not _is_square(square, board) or colour not in (-1, 0, 1, 2):
            raise UserError(
                f"Asked for {told}. Case {i} should have a square from 0 to {board.n_squares - 1} as pos_int and a "
                f"colour (0 or 2, -1 or 1) as ori_color. Found {square!r} and {colour!r}."
            )


def _is_square(value: object, board: Board) -> bool:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool) and 0 <= value < board.n_squares


def _differs(
    said: NDArray[np.int64], black: NDArray[np.bool_], white: NDArray[np.bool_], white_is: int, black_is: int
) -> NDArray[np.bool_]:
    """Where a square is not of the colour that is said."""
    return ~np.where(black, said == black_is, white & (said == white_is))


def _cases(games: Games, ply: NDArray[np.int64], square: NDArray[np.int64], keep_all: bool = False) -> Cases:
    """A case a game, `square` (case, number) changing together, less those that show nothing."""
    board, at = games.board, np.arange(len(ply))
    own, other, before = games.own[at, ply], games.other[at, ply], games.legal[at, ply]
    disc = np.left_shift(np.uint64(1), square.astype(np.uint64))
    mine, discs = (own & disc[:, 0]) != 0, np.bitwise_or.reduce(disc, 1)
    own, other = own ^ discs, other ^ discs
    after = Rules(board, len(at)).legal(own, other)
    tells = np.flatnonzero((after != 0) & (after != before)) if not keep_all else at
    tokens = tokens_of(games)
    tokens[torch.arange(tokens.shape[1]) >= torch.from_numpy(ply)[:, None]] = 0
    cases = Cases(
        board,
        tokens[:, :-1],
        torch.from_numpy(ply) - 1,
        torch.from_numpy(square[:, 0].copy()),
        torch.from_numpy(np.where(mine, MINE, THEIRS)),
        torch.from_numpy(np.where(mine, THEIRS, MINE)),
        torch.from_numpy(games.black[at, ply]),
        _as_tokens(before, board),
        _as_tokens(after, board),
        own,
        other,
        torch.from_numpy(square[:, 1:].copy()),
    )
    return cases.some(tells)


def erased(cases: Cases) -> Cases:
    """The same cases with the disc taken away instead, less those that then show nothing."""
    board, disc = cases.board, cases.discs
    own, other = cases.own & ~disc, cases.other & ~disc
    after = _as_tokens(Rules(board, len(own)).legal(own, other), board)
    empty = cases._replace(own=own, other=other, after=after, new=torch.full_like(cases.new, EMPTY))
    tells = after.any(-1) & (after != cases.before).any(-1)
    return empty.some(np.flatnonzero(tells.numpy()))


def _as_tokens(sets: Bits, board: Board) -> Bool[Tensor, "case vocab"]:
    inside = unpack(sets, board)[:, list(board.playable)]
    return torch.from_numpy(np.concatenate([np.zeros((len(inside), 1), np.bool_), inside], -1))


def _joined(found: list[Cases]) -> Cases:
    fields = zip(*(each[1:] for each in found), strict=True)
    joined = (torch.cat(f) if isinstance(f[0], Tensor) else np.concatenate(f) for f in fields)  # pyright: ignore[reportArgumentType] (of one kind)
    return Cases(found[0].board, *joined)
