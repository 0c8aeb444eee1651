"""WTHOR files (.wtb): the yearly bases of tournament games of the Fédération Française d'Othello.

Little-endian: a head of 16 bytes, then 68 bytes a game. A move byte is 10 x row + column, both from 1; zeros fill the
rest; passes are not written. The score is Black's discs, with empty squares given to the winner. The depth and the
theoretical score of a game are not read. Names stand in files of their own, .JOU (players) and .TRN (tournaments),
which are read where they lie beside the games. Source: the FFO's description of the format.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from micrographia.core.errors import UserError
from micrographia.labs.othello.records.record import BOARD, GameRecord, RecordFile, RecordProblem, StoredScore

HEAD = np.dtype(
    [("date", "u1", 4), ("games", "<u4"), ("names", "<u2"), ("year", "<u2"), ("size", "u1"), ("kind", "u1"),
     ("depth", "u1"), ("reserve", "u1")]
)  # fmt: skip
GAME = np.dtype(
    [("tournament", "<u2"), ("black", "<u2"), ("white", "<u2"), ("score", "u1"), ("best", "u1"), ("moves", "u1", 60)]
)
SUFFIXES = {".wtb", ".wtd", ".pzz", ".jou", ".trn"}
NAMES = {".jou": ("players", 20), ".trn": ("tournaments", 26)}
"""Of a file of names: what is named, and the bytes of each."""
SIZES_OF_8 = (0, 8)
"""What the head says of an 8x8 board; old files say nothing."""


def is_wthor(data: bytes) -> bool:
    """Whether these bytes have the head of a WTHOR file and the length that it states."""
    if len(data) < HEAD.itemsize:
        return False
    head = _head(data)
    _, _, month, day = head["date"]
    sizes = [GAME.itemsize * int(head["games"]), 104 * int(head["games"])]
    sizes += [n * int(head["names"]) for _, n in NAMES.values()]
    dated = 1 <= month <= 12 and 1 <= day <= 31
    return bool(dated and head["size"] in (0, 8, 10) and len(data) - HEAD.itemsize in sizes)


def read_wthor(path: Path, data: bytes) -> RecordFile:
    """The games of a .wtb file. A game that names no squares is told and left out; of a truncated file the whole
    games are kept. Raises UserError for what is no file of 8x8 games."""
    if len(data) < HEAD.itemsize:
        raise UserError(f"{path} has {len(data)} bytes; the head of a WTHOR file alone has {HEAD.itemsize}.")
    head = _head(data)
    _refuse_other_kinds(path, data, head)
    problems, n = _length(data, int(head["games"]))
    games = np.frombuffer(data, GAME, n, HEAD.itemsize)
    players = _names(path, ".jou", problems)
    tournaments = _names(path, ".trn", problems)
    squares, faults = _squares(games["moves"])
    problems += [RecordProblem("skipped", f"game {i + 1}", fault) for i, fault in faults.items()]
    black, white, event = (games[field].tolist() for field in ("black", "white", "tournament"))
    score, length = games["score"].tolist(), (squares >= 0).sum(1).tolist()
    records = [
        GameRecord(
            tuple(row[: length[i]]),
            f"game {i + 1}",
            black=players(black[i]),
            white=players(white[i]),
            event=tournaments(event[i]),
            score=StoredScore(2 * score[i] - BOARD.n_squares, empties_to_winner=True),
        )
        for i, row in enumerate(squares.tolist())
        if i not in faults
    ]
    century, year, month, day = head["date"].tolist()
    about = [f"games of {int(head['year'])}, file made on {century:02}{year:02}-{month:02}-{day:02}"]
    return RecordFile("WTHOR", records, problems, about, n_lost=max(int(head["games"]) - n, 0))


def _head(data: bytes) -> np.void:
    return np.frombuffer(data, HEAD, 1)[0]


def _refuse_other_kinds(path: Path, data: bytes, head: np.void) -> None:
    n_names = int(head["names"])
    if not head["games"] and n_names:
        sizes = {HEAD.itemsize + n_names * size: what for what, size in NAMES.values()}
        what = sizes.get(len(data), "players or tournaments")
        raise UserError(
            f"{path} is a WTHOR file of {n_names} names ({what}), not of games. Give the .wtb file; the names are read "
            "by themselves where they lie beside it."
        )
    if head["kind"] == 1 or path.suffix.lower() == ".pzz":
        raise UserError(f"{path} holds solitaires (endgame puzzles), not games. Give a .wtb file of games.")
    if head["size"] == 10:
        raise UserError(f"{path} holds games on 10x10 squares (.wtd). Games on 8x8 squares, .wtb files, are read.")
    if head["size"] not in SIZES_OF_8 or head["kind"]:
        raise UserError(
            f"{path} is no WTHOR file of games: byte 12, the size of the board, is {head['size']} and byte 13, the "
            f"kind, is {head['kind']}. A file of games on 8x8 squares has 8 (or 0) and 0."
        )


def _length(data: bytes, stated: int) -> tuple[list[RecordProblem], int]:
    """What is wrong with the length of the file, and how many whole games there are."""
    whole, rest = divmod(len(data) - HEAD.itemsize, GAME.itemsize)
    if whole < stated:
        cut = f" and {rest} bytes of another" if rest else ""
        text = f"the head states {stated:,} games, but the file is cut: it holds {whole:,}{cut}"
        return [RecordProblem("file", "", text)], whole
    if more := len(data) - HEAD.itemsize - stated * GAME.itemsize:
        text = f"the head states {stated:,} games; {more:,} bytes after the last of them are not read"
        return [RecordProblem("file", "", text)], stated
    return [], stated


def _squares(moves: NDArray[np.uint8]) -> tuple[NDArray[np.int8], dict[int, str]]:
    """Squares (game, ply), -1 after the last move, and what is wrong in the games whose bytes are no squares."""
    row, column = moves // 10 - 1, moves % 10 - 1  # below 1 they wrap round
    good = (row < BOARD.size) & (column < BOARD.size)
    ended = moves == 0
    faults = {}
    for i in np.flatnonzero((~good & ~ended).any(1)).tolist():
        ply = int(np.flatnonzero(~good[i] & ~ended[i])[0])
        faults[i] = f"byte {moves[i, ply]} of move {ply + 1} is no square (10 x row + column, each from 1 to 8)"
    for i in np.flatnonzero((ended[:, :-1] & ~ended[:, 1:]).any(1)).tolist():
        faults.setdefault(i, "a move stands after the zero that ends the moves")
    squares = np.where(good & ~ended, row.astype(np.int8) * BOARD.size + column.astype(np.int8), -1)
    return squares.astype(np.int8), faults


def _names(path: Path, suffix: str, problems: list[RecordProblem]) -> Callable[[int], str]:
    """Number to name, from the file of names beside the games; "player 7" where there is none or it has no such."""
    what, size = NAMES[suffix]
    names: Sequence[str] = ()
    beside = sorted(each for each in _siblings(path) if each.suffix.lower() == suffix)
    chosen = [each for each in beside if each.stem.lower() == "wthor"] or beside
    if len(chosen) == 1:
        names = _read_names(chosen[0], size, problems)
    elif chosen:
        text = f"several files of {what} lie beside the games ({', '.join(each.name for each in chosen)}): none is read"
        problems.append(RecordProblem("file", "", text))
    return lambda number: names[number] if number < len(names) else f"{what[:-1]} {number}"


def _siblings(path: Path) -> Sequence[Path]:
    try:
        return list(path.absolute().parent.iterdir())
    except OSError:  # a folder that may be passed through but not listed
        return ()


def _read_names(path: Path, size: int, problems: list[RecordProblem]) -> Sequence[str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        problems.append(RecordProblem("file", "", f"{path.name} could not be read: {error.strerror}"))
        return ()
    n = int(_head(data)["names"]) if len(data) >= HEAD.itemsize else -1
    if n < 0 or len(data) < HEAD.itemsize + n * size:
        problems.append(RecordProblem("file", "", f"{path.name} is no whole file of names: none is read"))
        return ()
    cells = (data[at : at + size] for at in range(HEAD.itemsize, HEAD.itemsize + n * size, size))
    return [cell.partition(b"\0")[0].decode("latin-1").strip() for cell in cells]
