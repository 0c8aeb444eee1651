"""GGF: the text of the Generic Game Server, a game as `(;TAG[value] ... ;)`, several to a line, moves as tags B and W.

A line may begin with the number of its games. A move is square/evaluation/seconds, where all but the square may be
empty or missing; passes are written, `pass` or `PA`; letters have either case. Games that are no plain Othello on 8x8
squares (komi, anti, other sizes) are told and left out. Source: the documentation of the Generic Game Server.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from micrographia.core.errors import UserError
from micrographia.labs.othello.records.record import (
    BOARD,
    FEWEST_DISCS,
    SQUARES,
    USUAL,
    GameRecord,
    RecordFile,
    RecordProblem,
    StartBoard,
    StoredScore,
    skipped,
)

VALUE = r"(?:[^\](]|\((?!;))*"  # without (; so that a game that is cut within a value does not swallow the next one
GAME = re.compile(rf"\(;((?:\s*[A-Za-z]+\s*\[{VALUE}\])*)\s*;\)")
TAG = re.compile(r"([A-Za-z]+)\s*\[([^\]]*)\]")
TYPE = re.compile(r"s?(?P<size>\d+)(?P<more>(?:r\d{1,3}|[a-z])*)")
COUNT = re.compile(r"[0-9]{1,6}")
RESULT = re.compile(r"(?P<difference>[+-]?\d+(?:\.\d*)?)(?::(?P<how>\w+))?")
DECIDED = {"r": "resigned", "t": "time", "s": "agreed", "l": "left"}
PASSES = {"pass", "pa"}


def is_ggf(text: str) -> bool:
    """Whether the text holds the beginning of a game with its first tag."""
    return re.search(r"\(;\s*[A-Za-z]+\s*\[", text) is not None


def read_ggf(text: str) -> RecordFile:
    """Every whole game of the text; those that cannot be read or are of another kind are told."""
    records, problems, spans = [], [], []
    at, number = text.find("(;"), 0
    line = _Lines(text)
    while at >= 0:
        number += 1
        place = f"game {number}, line {line.of(at)}"
        game = GAME.match(text, at)
        if game is None:
            end = at + 2
            problems.append(RecordProblem("skipped", place, "the game is cut or damaged: no whole (; tags ;)"))
        else:
            end = game.end()
            spans.append((at, end))
            try:
                records.append(_record(game[1], place, problems))
            except UserError as error:
                problems.append(skipped(place, error))
        at = text.find("(;", end)
    return RecordFile("GGF", records, [*problems, *_between(text, spans, line)])


class _Lines:
    """The number of the line of an offset, for offsets that only grow."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._line = text, 0, 1

    def of(self, at: int) -> int:
        if at < self._at:
            self._at, self._line = 0, 1
        self._line += self._text.count("\n", self._at, at)
        self._at = at
        return self._line


class _Turn(NamedTuple):
    black: bool
    move: str


def _record(tags: str, place: str, problems: list[RecordProblem]) -> GameRecord:
    head, turns = {}, []
    for name, value in TAG.findall(tags):
        if name.upper() in ("B", "W"):
            turns.append(_Turn(name.upper() == "B", value.partition("/")[0].strip().lower()))
        else:
            head[name.upper()] = value.strip()
    start = _start(head, place, problems)
    moves, movers, passes = [], [], []
    for i, turn in enumerate(turns):
        if turn.move in PASSES:
            passes.append(len(moves))
        else:
            moves.append(_square(turn.move, i))
            movers.append(turn.black)
    black, white, event = (head.get(tag, "") for tag in ("PB", "PW", "PC"))
    return GameRecord(tuple(moves), place, start, black, white, event, _score(head), tuple(movers), tuple(passes))


def _square(move: str, i: int) -> int:
    if move not in SQUARES:
        raise UserError(f"turn {i + 1} is {move!r}, which is neither a square nor a pass")
    return SQUARES[move]


def _start(head: Mapping[str, str], place: str, problems: list[RecordProblem]) -> StartBoard | None:
    """The board in BO. Raises UserError for a game of another kind."""
    if head.get("GM", "Othello").lower() not in ("othello", "reversi"):
        raise UserError(f"it is a game of {head['GM']}, not of Othello")
    discs = _discs(head)
    if "BO" not in head:
        if discs:
            raise UserError(f"its type {head['TY']} has a random board, but the board is missing (BO)")
        return None
    start = _board(head["BO"])
    n = (start.black | start.white).bit_count()
    if discs and n != discs:
        text = f"its type {head['TY']} states {discs} discs at the start, its board has {n}: read from its board"
        problems.append(RecordProblem("file", place, text))
    return None if start == USUAL else start


def _discs(head: Mapping[str, str]) -> int:
    """The discs of a random board by the type of the game, 0 for the usual one. Raises UserError for other games."""
    kind = head.get("TY", "8").lower()
    match = TYPE.fullmatch(kind)
    if match is None:
        raise UserError(f"its type {kind!r} is unknown")
    if match["size"] != str(BOARD.size):
        raise UserError(f"it is played on {match['size']}x{match['size']} squares (type {kind}); 8x8 are read")
    flags = dict(re.findall(r"([a-z])(\d*)", match["more"]))
    if "k" in flags or float(_number(head.get("KM", "")) or 0):
        raise UserError(f"it is played with komi (type {kind}), which its result counts")
    if "a" in flags:
        raise UserError(f"it is anti-Othello (type {kind}): the fewer discs win")
    if unknown := sorted(set(flags) - {"r"}):
        raise UserError(f"its type {kind!r} has the unknown letter {unknown[0]!r}")
    return int(flags.get("r") or 0)


def _number(text: str) -> str:
    match = re.fullmatch(r"[+-]?\d+(?:\.\d*)?", text)
    return match[0] if match else ""


def _board(text: str) -> StartBoard:
    size, *rows = text.split() or [""]
    if size != str(BOARD.size):
        raise UserError(f"its board (BO) is of size {size!r}; boards of 8 are read")
    signs = "".join(rows).upper()
    cells, mover = signs[:-1], signs[-1:]
    if len(cells) != BOARD.n_squares or set(cells) - set("*O-") or mover not in ("*", "O"):
        raise UserError("its board (BO) is not 64 of * O - and the side to move")
    black, white = (sum(1 << i for i, sign in enumerate(cells) if sign == side) for side in "*O")
    if (black | white).bit_count() < FEWEST_DISCS:
        raise UserError(f"its board (BO) has fewer than {FEWEST_DISCS} discs")
    return StartBoard(black, white, mover == "*")


def _score(head: Mapping[str, str]) -> StoredScore | None:
    match = RESULT.fullmatch(head.get("RE", ""))
    if match is None:
        return None
    how = (match["how"] or "").lower()
    return StoredScore(float(match["difference"]), decided_by=DECIDED.get(how, how))


def _between(text: str, spans: Sequence[tuple[int, int]], line: _Lines) -> Iterator[RecordProblem]:
    """What stands outside of games and is no count, and counts that the games behind them do not bear out."""
    ends = [0, *(end for _, end in spans)]
    words = [text[end:begin].strip() for end, (begin, _) in zip(ends, spans)]
    told = [i for i, word in enumerate(words) if word]
    for i, following in zip(told, [*told[1:], len(spans)]):
        begin = spans[i][0]
        before = words[i].rpartition("\n")[2] if "(;" in words[i] else words[i]
        if "(;" in before:  # a damaged game, told already
            continue
        if COUNT.fullmatch(before) is None:
            yield RecordProblem("file", f"line {line.of(begin)}", f"before a game, not read: {before[:40]!r}")
            continue
        row_end = text.find("\n", begin)
        in_row = sum(row_end < 0 or at < row_end for at, _ in spans[i : min(following, i + int(before) + 1)])
        if not in_row <= int(before) <= following - i:
            text_ = f"{before} games are announced; {following - i} whole ones follow"
            yield RecordProblem("file", f"line {line.of(begin)}", text_)
    rest = text[ends[-1] :].strip()
    if spans and rest and "(;" not in rest:
        yield RecordProblem("file", "", f"after the last game, not read: {rest[:40]!r}")
