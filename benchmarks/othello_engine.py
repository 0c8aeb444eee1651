"""Random games of Othello on 8x8, with the legal set of every position: ours beside packages and a plain loop.

Ours plays 4,096 games at once in numpy. The packages play a game at a time by their own legal moves and their own
random choice, and keep the set of legal moves of every position too (rust-reversi as 64 bits, creversi as a list of
squares). The plain loop walks rays square by square in Python, as the code published with Li et al. 2023 does. All use
one thread. Nothing is timed unless the mean number of legal moves agrees.

Usage: uv run python benchmarks/othello_engine.py [--peers-python PATH]
"""

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from paired import Contender, Match
from peer import peer
from recording import Record, arguments, parse

from micrographia.core.runtime import generator, settings
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.games import random_games

BOARD, AT_ONCE = Board(8), 4_096
RAYS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
MEAN_LEGAL, AGREE = 8.54, 0.15
TARGETS = {"plain loop": 150.0, "rust-reversi": 30.0, "creversi": 30.0}


def ours() -> Callable[[int], float]:
    drawn_by = generator(0)

    def run(n: int) -> float:
        games = random_games(BOARD, n, drawn_by)
        return float(np.bitwise_count(games.legal[:, :-1])[games.moves >= 0].mean())

    return run


def flips(board: list[int], square: int, mover: int) -> list[int]:
    """The discs that a move flips, ray by ray."""
    if board[square]:
        return []
    found = []
    row, column = divmod(square, 8)
    for down, right in RAYS:
        r, c, run = row + down, column + right, []
        while 0 <= r < 8 and 0 <= c < 8 and board[8 * r + c] == -mover:
            run.append(8 * r + c)
            r, c = r + down, c + right
        if run and 0 <= r < 8 and 0 <= c < 8 and board[8 * r + c] == mover:
            found += run
    return found


def plain(n: int) -> float:
    """Games square by square; the mean number of legal moves."""
    draw, counts = random.Random(0), []
    for _ in range(n):
        board, mover, passed = [0] * 64, 1, False
        board[27] = board[36] = -1
        board[28] = board[35] = 1
        while True:
            legal = [square for square in range(64) if flips(board, square, mover)]
            if not legal and passed:
                break
            passed = not legal
            if legal:
                counts.append(len(legal))
                square = draw.choice(legal)
                for place in [*flips(board, square, mover), square]:
                    board[place] = mover
            mover = -mover
    return sum(counts) / len(counts)


def check(name: str, mean: float, n: int) -> None:
    """`n` games have their mean this near."""
    if abs(mean - MEAN_LEGAL) > max(AGREE, 3 / n**0.5):
        raise SystemExit(
            f"{name} has {mean:.2f} legal moves a position, where {MEAN_LEGAL} are known. Nothing was timed."
        )


def measure(chosen: Any, record: Record) -> None:
    play, at_once = ours(), 256 if chosen.smoke else AT_ONCE
    check("micrographia", play(at_once), at_once)
    here = Contender("micrographia", play, whole=at_once, chunk=at_once if chosen.smoke else 8 * at_once)
    check("the plain loop", plain(few := 4 if chosen.smoke else 30), few)
    loop = Contender("plain loop", plain, whole=1, chunk=2 if chosen.smoke else 20)
    matches = [Match(here, loop, "game", TARGETS["plain loop"])]
    with ExitStack() as stack:
        if chosen.peers_python is None:
            print("The packages were left out: name the Python of an environment that has them.")
        else:
            other = stack.enter_context(peer(chosen.peers_python, "othello_worker.py", {}, {}))
            record.put(peers=other.ready)
            for name in ("rust-reversi", "creversi"):
                check(name, float(other.ask(name, 300)[0]), 300)
                theirs = Contender(name, lambda n, name=name: other.ask(name, n), whole=1, chunk=500)
                matches.append(Match(here, theirs, "game", TARGETS[name]))
        record.compare(matches)
    record.finish(games_at_once=at_once)


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=15, threads=1)
    parser.add_argument("--peers-python", type=Path, help="Python with rust-reversi 1.4.4 and creversi-python 0.1.0")
    chosen = parse(parser)
    with settings(chosen.threads):
        measure(chosen, Record("othello_engine", chosen))


if __name__ == "__main__":
    main()
