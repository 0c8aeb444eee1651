"""The rules of Othello square by square, as slow and as plain as can be: what the engine is held against."""

from collections.abc import Iterator

AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]


class NaiveGame:
    """Black is 1, White -1, empty 0."""

    def __init__(self, size: int) -> None:
        half = size // 2
        self.size, self.mover = size, 1
        self.discs = {(half - 1, half - 1): -1, (half, half): -1, (half - 1, half): 1, (half, half - 1): 1}

    def flips(self, square: int, mover: int) -> set[int]:
        row, column = divmod(square, self.size)
        if (row, column) in self.discs:
            return set()
        return {place for step in AROUND for place in self._run(row, column, step, mover)}

    def _run(self, row: int, column: int, step: tuple[int, int], mover: int) -> Iterator[int]:
        run = []
        while True:
            row, column = row + step[0], column + step[1]
            found = self.discs.get((row, column), 0)
            if found != -mover:
                return iter(run if found == mover else [])
            run.append(row * self.size + column)

    def legal(self, mover: int) -> set[int]:
        return {square for square in range(self.size**2) if self.flips(square, mover)}

    def skip(self) -> bool:
        """Hand the turn over where the mover is stuck and the other is not; whether that was so."""
        if self.legal(self.mover) or not self.legal(-self.mover):
            return False
        self.mover = -self.mover
        return True

    def play(self, square: int) -> None:
        for place in [*self.flips(square, self.mover), square]:
            self.discs[divmod(place, self.size)] = self.mover
        self.mover = -self.mover

    def bits(self, colour: int) -> int:
        return sum(1 << (row * self.size + column) for (row, column), disc in self.discs.items() if disc == colour)
