"""Random games by packages of PyPI, for `othello_engine.py`: `rust-reversi N` or `creversi N`, answered by the mean
number of legal moves."""

import random
import sys
from importlib.metadata import version

import creversi
import rust_reversi


def by_rust_reversi(n: int) -> float:
    counts = []
    for _ in range(n):
        board = rust_reversi.Board()
        while not board.is_game_over():
            if board.is_pass():
                board.do_pass()
                continue
            counts.append(bin(board.get_legal_moves()).count("1"))
            board.do_move(board.get_random_move())
    return sum(counts) / len(counts)


def by_creversi(n: int) -> float:
    draw, counts = random.Random(0), []
    for _ in range(n):
        board = creversi.Board()
        while not board.is_game_over():
            legal = list(board.legal_moves)
            if legal == [creversi.PASS]:
                board.move_pass()
                continue
            counts.append(len(legal))
            board.move(draw.choice(legal))
    return sum(counts) / len(counts)


RUN = {"rust-reversi": by_rust_reversi, "creversi": by_creversi}


def main() -> None:
    print("ready", *(f"{name}=={version(name)}" for name in ("rust-reversi", "creversi-python")), flush=True)
    for line in sys.stdin:
        name, n = line.split()
        print("done", RUN[name](int(n)), flush=True)


if __name__ == "__main__":
    main()
