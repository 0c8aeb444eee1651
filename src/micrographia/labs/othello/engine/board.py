"""A board of even size 4 to 8 as bits: squares, their names, the start, and the lines along which discs are flipped.

Bit i is square i, in rows from the top left: i = size x row + column. Names are those of the game's records, column
letter and row number: square 0 is a1, on 8x8 square 63 is h8. Black moves first, as in Li et al. 2023 (arXiv
2210.13382), whose squares have the same numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from micrographia.core.errors import BadConfig, UserError

SIZES = (4, 6, 8)
Flanked = Literal["flipped", "ends", "removed"]
"""What becomes of the discs that a move flanks. "flipped": Othello. Variants of MetaOthello (2026, arXiv 2602.23164):
"ends", of each run only the first and the last disc are flipped; "removed", they leave the board, play begins from four
discs further apart and goes to any empty square beside an own disc, and a full game is cut off after as many moves."""


@dataclass(frozen=True)
class Board:
    """The geometry of `size` x `size` squares, and the rules by which they are played.

    >>> Board(8).name(37), Board(8).square("f5"), Board(6).n_squares
    ('f5', 37, 36)
    """

    size: int = 8
    flanked: Flanked = "flipped"

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise BadConfig(
                f"A board of size {self.size!r} was asked for. Boards of 4, 6 and 8 squares a side are known."
            )

    @property
    def n_squares(self) -> int:
        return self.size**2

    @property
    def most_moves(self) -> int:
        """Moves of a full game: every square but the four of the start. Where discs are removed, of the longest."""
        return self.n_squares - 4

    @cached_property
    def full(self) -> int:
        """All squares."""
        return (1 << self.n_squares) - 1

    @cached_property
    def start(self) -> tuple[int, int]:
        """Black's discs and White's: White has the upper left and the lower right of the centre."""
        a, b, c, d = self.centre
        if self.flanked == "removed":  # one square further out, along the diagonals; Black has those that White had
            up, down = self.size + 1, self.size - 1
            a, b, c, d = b - down, a - up, d + up, c + down
        return (1 << b) | (1 << c), (1 << a) | (1 << d)

    @cached_property
    def centre(self) -> tuple[int, int, int, int]:
        """The four squares that are filled at the start, which no move can take."""
        corner = (self.size + 1) * (self.size // 2 - 1)
        return corner, corner + 1, corner + self.size, corner + self.size + 1

    @cached_property
    def playable(self) -> tuple[int, ...]:
        """The squares that a move can take, in order: not those that nobody ever leaves."""
        if self.flanked == "removed":
            return tuple(range(self.n_squares))
        return tuple(square for square in range(self.n_squares) if square not in self.centre)

    @cached_property
    def inner_columns(self) -> int:
        """All squares but those of the first and the last column: a run of discs to be flipped along a row or a
        diagonal lies in them, so that shifting it by one never goes round the edge."""
        row = (1 << self.size) - 2 - (1 << (self.size - 1))
        return sum(row << (self.size * i) for i in range(self.size))

    @cached_property
    def lines(self) -> tuple[tuple[int, int], ...]:
        """(shift, squares in which a run may lie) of the four lines; each is walked by shifting left, then right."""
        inner = self.inner_columns
        return (1, inner), (self.size, self.full), (self.size - 1, inner), (self.size + 1, inner)

    @cached_property
    def first_column(self) -> int:
        return sum(1 << (self.size * i) for i in range(self.size))

    @property
    def doublings(self) -> int:
        """Steps of two squares that reach the longest run, size - 2 discs, after two steps of one."""
        return (self.size - 4) // 2

    def name(self, square: int) -> str:
        return f"{chr(ord('a') + square % self.size)}{square // self.size + 1}"

    def square(self, name: str) -> int:
        """The square of this name, in letters of either case. Raises UserError."""
        text = name.strip().lower()
        column, row = ord(text[:1] or " ") - ord("a"), text[1:]
        if row.isascii() and row.isdigit() and 0 <= column < self.size and 1 <= int(row) <= self.size:
            return self.size * (int(row) - 1) + column
        last = self.name(self.n_squares - 1)
        raise UserError(f"Asked for the square {name!r}. The squares of this board are a1 to {last}.")

    def squares(self, bits: int) -> Iterator[int]:
        """The squares of a set, in order."""
        return (square for square in range(self.n_squares) if bits >> square & 1)

    def drawn(self, black: int, white: int, marked: Iterable[int] = ()) -> str:
        """The board in text: X black, O white, + marked, - empty; a line a row.

        >>> print(Board(4).drawn(*Board(4).start))
        ----
        -OX-
        -XO-
        ----
        """
        marks = set(marked)
        signs = [
            "X" if black >> i & 1 else "O" if white >> i & 1 else "+" if i in marks else "-"
            for i in range(self.n_squares)
        ]
        return "\n".join("".join(signs[i : i + self.size]) for i in range(0, self.n_squares, self.size))
