#!/usr/bin/env bash
# rust-reversi 1.4.4: its bitboards are turned by half a turn against its own move numbers, and the start hides it.
#
# Guess: a board is two sets of bits and a move is a number from 0 (a1) to 63 (h8), so bit i is the square that move i
# takes; a check on the board of the start, discs and legal moves, bears that out.
# Seen: the square of move i is bit 63 - i, in get_board, set_board and get_legal_moves alike, while do_move,
# get_legal_moves_vec and get_board_line count from a1. The usual start looks the same after half a turn (black d5 and
# e4, white d4 and e5, legal moves d3 c4 f5 e6), so the first board that tells the two apart is the one after the first
# move: the disc played on d3 is bit 44, which by the numbers of the moves is e6.
# Who meets it: whoever takes the bits as labels (a probe for the square of move i), or gives set_board bits from another
# engine: all games stay legal and all counts of discs right, only the squares are others.
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "rust-reversi==1.4.4"
"$place/venv/bin/python" - <<'PY'
from importlib.metadata import version

from rust_reversi import Board, Turn

D3 = 19


def squares(bits: int) -> list[int]:
    return [i for i in range(64) if bits >> i & 1]


def turned(bits: int) -> list[int]:
    return [63 - i for i in squares(bits)][::-1]


def name(square: int) -> str:
    return "abcdefgh"[square % 8] + str(square // 8 + 1)


print("rust-reversi", version("rust-reversi"))
board = Board()
own, other, _ = board.get_board()
at_start = squares(own) == turned(own) == [28, 35] and squares(other) == turned(other) == [27, 36]
same_moves = squares(board.get_legal_moves()) == board.get_legal_moves_vec()
print(f"at the start bit i is square i: discs {at_start}, legal moves {same_moves}")

board.do_move(D3)
_, black, _ = board.get_board()  # White is to move, so Black's discs come second
line = [i for i, sign in enumerate(board.get_board_line()) if sign == "X"]
print(f"after {name(D3)}, Black's discs by their bits: {[name(i) for i in squares(black)]}; "
      f"by get_board_line: {[name(i) for i in line]}; by the bits turned: {[name(i) for i in turned(black)]}")
bits, moves = squares(board.get_legal_moves()), board.get_legal_moves_vec()
print(f"White's legal moves as bits: {[name(i) for i in bits]}; as numbers: {[name(i) for i in moves]}")

discs = 1 << D3 | 1 << 27 | 1 << 28 | 1 << 35, 1 << 36  # the same board in bits that count from a1
given = Board()
given.set_board(discs[1], discs[0], Turn.WHITE)
print(f"the same board given to set_board in bits from a1: legal moves {[name(i) for i in given.get_legal_moves_vec()]}")

as_described = (
    at_start and same_moves and squares(black) != turned(black) == line == [D3, 27, 28, 35]
    and bits != moves and turned(board.get_legal_moves()) == moves and given.get_legal_moves_vec() == bits
)
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
