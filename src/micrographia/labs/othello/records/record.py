"""What every reader of game records gives: games as their files tell them, and what could not be read.

Nothing is replayed here: moves name squares of the 8x8 board, and may be illegal. Squares are those of
`engine.board`. Scores are differences, Black's discs less White's, whichever way the file writes them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from micrographia.core.errors import UserError
from micrographia.labs.othello.engine.board import Board

BOARD = Board(8)
SQUARES = {BOARD.name(square): square for square in range(BOARD.n_squares)}
FEWEST_DISCS = 4
"""Of a board to start from: a game then has at most 60 moves."""


class StartBoard(NamedTuple):
    """A board that a game begins from."""

    black: int
    """Black's discs, as a set of squares in bits."""
    white: int
    black_moves: bool


USUAL = StartBoard(*BOARD.start, True)


class StoredScore(NamedTuple):
    """The result that a file states."""

    difference: float
    """Black's discs less White's."""
    empties_to_winner: bool = False
    """Whether the format counts empty squares for the winner; else it may count them or not."""
    decided_by: str = ""
    """What decided the game instead of the board: "resigned", "time", "agreed"; empty where nothing did."""


class GameRecord(NamedTuple):
    """One game as its file tells it."""

    moves: tuple[int, ...]
    """Squares in order, without passes."""
    place: str
    """Where in the file: "game 3", "line 7"."""
    start: StartBoard | None = None
    """None for the usual board with Black to move."""
    black: str = ""
    white: str = ""
    event: str = ""
    score: StoredScore | None = None
    movers: tuple[bool, ...] = ()
    """Whether Black plays, of each move, where the file says so."""
    passes: tuple[int, ...] = ()
    """Before which moves, from 0, the file writes a pass; as many as there are moves for a pass at the end."""


class RecordProblem(NamedTuple):
    """Something that a user should know about a file."""

    kind: str
    """"file": about the whole; "skipped": a game that is not among the records; "illegal", "turn" and "score": a game
    that is, which the rules, the turns written beside it or its stored result contradict."""
    place: str
    text: str
    board: str = ""
    """The position, drawn, where there is one."""

    def told(self) -> str:
        drawn = f"\n{_lettered(self.board)}" if self.board else ""
        return f"{self.place}: {self.text}{drawn}" if self.place else f"{self.text}{drawn}"


class RecordFile(NamedTuple):
    """A file that was read."""

    format: str
    records: Sequence[GameRecord]
    problems: Sequence[RecordProblem]
    about: Sequence[str] = ()
    """What the file says of itself, in sentences."""
    n_lost: int = 0
    """Games that the file says it has and that were cut off."""


def _lettered(board: str) -> str:
    """A drawn board with the columns' letters and the rows' numbers.

    >>> print(_lettered("-OX-\\n-XO-"))
      a b c d
    1 - O X -
    2 - X O -
    """
    rows = board.split("\n")
    columns = " ".join("abcdefgh"[: len(rows[0])])
    return "\n".join([f"  {columns}", *(f"{i} {' '.join(row)}" for i, row in enumerate(rows, 1))])


def skipped(place: str, error: UserError) -> RecordProblem:
    return RecordProblem("skipped", place, str(error))
