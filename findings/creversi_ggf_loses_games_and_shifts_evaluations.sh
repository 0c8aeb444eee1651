#!/usr/bin/env bash
# creversi-python 0.1.0: its GGF reader leaves out synchro games, and shifts evaluations past a pass.
#
# Guess: GgfParser gives every game of a file, and evaluations[g][i] is what the program said of moves[g][i].
# Seen: a game whose type is not TY[8] is not among them, such as TY[s8], one of two games with colours exchanged, from
# the usual board; nothing tells that it is missing. A move without a slash adds to moves alone; passes are often written
# so, B[PA]. Each later evaluation then stands one place too early, and the list is shorter by one. In a game without
# passes all is right, so that a first look finds nothing.
# Why: a tag that the reader does not know drops the game, and TY[8] is known as a whole, not TY[...]; where a move has
# no slash nothing is appended, where the evaluation is empty (d3//0.01) NaN is.
# Who meets it: whoever trains on such pairs, or counts games.
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "creversi-python==0.1.0"
"$place/venv/bin/python" - <<'PY'
import random
import warnings
from importlib.metadata import version

import creversi

warnings.simplefilter("error")


def played(seed: int) -> list[int]:
    """A random legal game, passes (64) included."""
    board, moves, chance = creversi.Board(), [], random.Random(seed)
    while not board.is_game_over():
        moves.append(chance.choice(list(board.legal_moves)))
        board.move(moves[-1])
    return moves


def ggf(moves: list[int], kind: str = "8") -> str:
    """Move i is evaluated as i; a pass has no evaluation."""
    turns = [
        f"{'BW'[i % 2]}[{'PA' if move == creversi.PASS else f'{creversi.move_to_str(move)}/{i}.00/0.1'}]"
        for i, move in enumerate(moves)
    ]
    start = "8 -------- -------- -------- ---O*--- ---*O--- -------- -------- -------- *"
    return f"(;GM[Othello]PC[x]PB[a]PW[b]TY[{kind}]RE[+0.000]BO[{start}]{''.join(turns)};)"


def read(text: str) -> creversi.GgfParser:
    parser = creversi.GgfParser()
    parser.parse_str(text)
    return parser


games = [played(seed) for seed in range(100)]
plain = next(game for game in games if creversi.PASS not in game)
passing = next(game for game in games if creversi.PASS in game[20:-5])
print("creversi-python", version("creversi-python"))

found = read(ggf(plain))
right = found.moves == [plain] and found.evaluations == [[float(i) for i in range(len(plain))]]
print(f"a game of type 8 without a pass is read as written: {right}")

kinds = ["8", "s8", "8"]
found_games = read("\n".join(ggf(plain, kind) for kind in kinds)).game_num()
print(f"of games of the types {', '.join(kinds)} it gives {found_games}")

found = read(ggf(passing))
at = passing.index(creversi.PASS)
pairs = list(zip(found.moves[0], found.evaluations[0]))
shifted = [i for i, (_, value) in enumerate(pairs) if value != i]
print(f"a game with its first pass at turn {at}: {len(found.moves[0])} moves, {len(found.evaluations[0])} evaluations; "
      f"move {at + 1} was evaluated as {at + 1}, and is paired with {pairs[at + 1][1]:g}; {len(shifted)} pairs are wrong")

as_described = (
    right and found_games == 2 and found.moves[0] == passing
    and len(found.evaluations[0]) == sum(move != creversi.PASS for move in passing) and shifted and shifted[0] == at
)
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
