"""Games in plain text: a game a line, or in the manner of PGN, with [Tag "value"] lines before numbered moves.

`f5d6c3`, `f5 d6`, `F5-D6`, `1. f5 2. d6` and `1. f5 d6 2. c3` are all read. A pass may be written: pass, pa, ps or --.
Comments are {...} and what follows # % ; or //; in tagged games variations in ( ) are left out too. A result such as
33-31 is taken as Black's discs and White's, one such as +12 behind the moves as Black's lead. A game with a word that
is none of these is told and left out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from micrographia.core.errors import UserError
from micrographia.labs.othello.records.record import (
    SQUARES,
    GameRecord,
    RecordFile,
    RecordProblem,
    StoredScore,
    skipped,
)

PLAIN = re.compile(r"(?:[a-h][1-8])+")
TAG = re.compile(r'\s*\[\s*(\w+)\s+"((?:[^"\\]|\\.)*)"\s*\]\s*')
DAMAGED_TAG = re.compile(r"\s*\[\s*[A-Za-z]")
COMMENT = re.compile(r"\{[^{}]*\}|(?:[#%;]|//)[^\n]*")
VARIATION = re.compile(r"\([^()]*\)")
DISCS = re.compile(r"(?P<black>[0-9]{1,2})\s?[-:]\s?(?P<white>[0-9]{1,2})(?![\d.])")
WORD = re.compile(
    rf"(?P<passed>(?:pass|pa|ps|--)(?![\w-]))|(?P<score>{DISCS.pattern})|(?P<number>\d+\s?[.)]+)"
    r"|(?P<lead>[+-]\d{1,2}\s*$)|(?P<move>[a-h][1-8](?!\d))|(?P<nothing>(?:[\s,|!?*]|\+(?!\d{1,2}\s*$))+|-(?!-)|\$\d+|1/2-1/2)"
)
FEWEST = 4
"""Discs in a result; a smaller sum, such as 1-0, names the winner alone and is not read as a score."""


class _Body(NamedTuple):
    moves: tuple[int, ...]
    passes: tuple[int, ...]
    score: StoredScore | None


def is_tagged(text: str) -> bool:
    """Whether there is a line [Tag "value"]."""
    return any(TAG.fullmatch(line) for line in text.splitlines())


def read_lines(text: str) -> RecordFile:
    """A game a line. Raises UserError where no line is a game."""
    records, problems = [], []
    for number, line in enumerate(text.splitlines(), 1):
        place = f"line {number}"
        try:
            body = _body(COMMENT.sub(" ", line))
        except UserError as error:
            problems.append(skipped(place, error))
            continue
        if body.moves or body.passes:
            records.append(GameRecord(body.moves, place, score=body.score, passes=body.passes))
    if problems and not records:
        raise UserError(
            f"No line is a game of Othello; the first that is none: {problems[0].told()}. Read are lines of moves such "
            "as f5d6c3, games with [Tag] lines, GGF and WTHOR files."
        )
    return RecordFile("lines", records, problems)


def read_tagged(text: str) -> RecordFile:
    """Games with tags before their moves."""
    records, problems = [], []
    for number, section in enumerate(_sections(text.splitlines()), 1):
        place = f"game {number}, line {section.line}"
        problems += [
            RecordProblem("file", place, f"the tag {tag[:40]!r} is damaged and not read") for tag in section.odd
        ]
        try:
            records.append(_tagged(section, place))
        except UserError as error:
            problems.append(skipped(place, error))
    return RecordFile("tagged", records, problems)


class _Section(NamedTuple):
    """One game: its first line, from 1, its tags, those that are damaged, and the lines of its moves."""

    line: int
    tags: Mapping[str, str]
    odd: Sequence[str]
    lines: Sequence[str]


def _sections(lines: Sequence[str]) -> Iterator[_Section]:
    """A tag behind moves begins a game."""
    first, tags, odd, body = 1, {}, [], []
    for number, line in enumerate(lines, 1):
        tag, damaged = TAG.fullmatch(line), DAMAGED_TAG.match(line)
        if damaged and body:
            yield _Section(first, tags, odd, body)
            tags, odd, body = {}, [], []
        if not (tags or odd or body):
            first = number
        if tag:
            tags[tag[1].upper()] = tag[2].strip()
        elif damaged:
            odd.append(line.strip())
        elif line.strip():
            body.append(line)
    if tags or odd or body:
        yield _Section(first, tags, odd, body)


def _tagged(section: _Section, place: str) -> GameRecord:
    tags = section.tags
    if "FEN" in tags:
        raise UserError("it starts from a board of its own, in a notation that is not read (FEN)")
    whole = COMMENT.sub(" ", "\n".join(section.lines))
    while VARIATION.search(whole):
        whole = VARIATION.sub(" ", whole)
    body = _body(whole)
    result = DISCS.fullmatch(tags.get("RESULT", ""))
    score = _score(result) if result else body.score
    black, white, event = (tags.get(tag, "") for tag in ("BLACK", "WHITE", "EVENT"))
    return GameRecord(body.moves, place, None, black, white, event, score, passes=body.passes)


def _body(text: str) -> _Body:
    """The moves of one game. Raises UserError at a word that is no part of one."""
    text = text.strip().lower()
    if PLAIN.fullmatch(text):
        return _Body(tuple(SQUARES[text[i : i + 2]] for i in range(0, len(text), 2)), (), None)
    moves, passes, score, at = [], [], None, 0
    while at < len(text):
        word = WORD.match(text, at)
        if word is None:
            odd = text[at:].split()[0][:20]
            raise UserError(f"{odd!r} after {len(moves)} moves is no move")
        if word["move"]:
            moves.append(SQUARES[word["move"]])
        elif word["passed"]:
            passes.append(len(moves))
        elif word["score"]:
            score = _score(word)
        elif word["lead"]:
            score = StoredScore(int(word["lead"]))
        at = word.end()
    return _Body(tuple(moves), tuple(passes), score)


def _score(match: re.Match[str]) -> StoredScore | None:
    black, white = int(match["black"]), int(match["white"])
    return StoredScore(black - white) if black + white >= FEWEST else None
