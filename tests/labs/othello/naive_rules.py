"""The rules square by square, as slow and as plain as can be, with their variants: what the engine is held against."""

from collections.abc import Iterator

AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]


class NaiveGame:
    """Black is 1, White -1, empty 0."""

    def __init__(self, size: int, flanked: str = "flipped") -> None:
        half = size // 2
        self.size, self.mover, self.flanked = size, 1, flanked
        near, far = (half - 1, half) if flanked != "removed" else (half - 2, half + 1)
        main = 1 if flanked == "removed" else -1
        self.discs = {(near, near): main, (far, far): main, (near, far): -main, (far, near): -main}

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
                flanked = run if found == mover else []
                return iter(flanked[:1] + flanked[-1:] if self.flanked == "ends" else flanked)
            run.append(row * self.size + column)

    def legal(self, mover: int) -> set[int]:
        if self.flanked == "removed":
            own = [place for place, disc in self.discs.items() if disc == mover]
            beside = {(row + i, column + j) for row, column in own for i, j in AROUND} - self.discs.keys()
            return {row * self.size + column for row, column in beside if {row, column} <= set(range(self.size))}
        return {square for square in range(self.size**2) if self.flips(square, mover)}

    def skip(self) -> bool:
        """Hand the turn over where the mover is stuck and the other is not; whether that was so."""
        if self.legal(self.mover) or not self.legal(-self.mover):
            return False
        self.mover = -self.mover
        return True

    def play(self, square: int) -> None:
        for place in self.flips(square, self.mover):
            if self.flanked == "removed":
                del self.discs[divmod(place, self.size)]
            else:
                self.discs[divmod(place, self.size)] = self.mover
        self.discs[divmod(square, self.size)] = self.mover
        self.mover = -self.mover

    def bits(self, colour: int) -> int:
        return sum(1 << (row * self.size + column) for (row, column), disc in self.discs.items() if disc == colour)
