"""Games of files held against the rules and against the results that the files state.

A game is complete if neither player can move at its end; one that stops earlier is unfinished, and its stated result
is compared with nothing, as the board does not tell it (resigned, lost on time). Parity is the rule that the players
take turns: wrong after every pass until the next.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.labs.othello.engine.games import NONE, Games, StartBoards, replay
from micrographia.labs.othello.records import wthor
from micrographia.labs.othello.records.reading import read_records
from micrographia.labs.othello.records.record import BOARD, USUAL, GameRecord, RecordProblem, StoredScore

SUFFIXES = {*wthor.SUFFIXES, ".ggf", ".pgn", ".txt"}
BATCH = 16_384
"""Games replayed at a time: 45 MB."""


class GameCounts(NamedTuple):
    """What was found in some games. A game with an illegal move is neither complete nor unfinished."""

    games: int = 0
    complete: int = 0
    unfinished: int = 0
    illegal: int = 0
    own_start: int = 0
    """Games from a board of their own."""
    with_pass: int = 0
    """Games in which a turn is skipped before a move."""
    plies: int = 0
    """Legal moves."""
    off_parity: int = 0
    """Moves whose mover is not the one that taking turns names."""
    turns_differ: int = 0
    """Games whose written turns or passes are not those of the rules."""
    compared: int = 0
    """Complete games with a stated score."""
    scores_differ: int = 0
    decided_otherwise: int = 0
    """Complete games whose score was not decided on the board, by the file's own word."""

    def plus(self, other: "GameCounts") -> "GameCounts":
        return GameCounts(*(a + b for a, b in zip(self, other)))

    def summary(self) -> dict[str, Any]:
        """The counts with their shares; a share of nothing is None."""
        return {
            **self._asdict(),
            "with_pass_share": self.with_pass / self.games if self.games else None,
            "off_parity_share": self.off_parity / self.plies if self.plies else None,
        }


class FileCheck(NamedTuple):
    """What was found in a file; `error` says why it could not be read at all."""

    path: Path
    format: str
    about: Sequence[str]
    counts: GameCounts
    skipped: int
    """Games that are in the file, or that it says it has, and that could not be read."""
    problems: Sequence[RecordProblem]
    error: str = ""

    @property
    def why_empty(self) -> str:
        """Why no game of the file was read."""
        first = self.problems[0].told() if self.problems else "there is none in it"
        return self.error or f"No game of {self.path} was read: {first}."

    def as_json(self) -> dict[str, Any]:
        summary = {**self.counts.summary(), "skipped": self.skipped, "error": self.error or None}
        problems = [problem._asdict() for problem in self.problems]
        return {"path": self.path, "format": self.format, "about": list(self.about), **summary, "problems": problems}


def check_files(paths: Sequence[Path], watch: Watch = silent) -> list[FileCheck]:
    """Read and check each file. A file that cannot be read does not keep the others from it."""
    found = []
    for i, path in enumerate(paths):
        watch(Progress("check games", i, len(paths), "file"))
        found.append(_check_file(path))
    watch(Progress("check games", len(paths), len(paths), "file"))
    return found


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files among these, and those in their folders whose names end as records of games do. Raises UserError for a
    folder without any."""
    found = []
    for path in paths:
        inside = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"No file in {path} ends in {', '.join(sorted(SUFFIXES))}. Give the files themselves.")
        found += inside
    return found


def _check_file(path: Path) -> FileCheck:
    try:
        read = read_records(path)
    except UserError as error:
        return FileCheck(path, "", (), GameCounts(), 0, (), str(error))
    counts, problems = check(read.records)
    skipped = read.n_lost + sum(problem.kind == "skipped" for problem in read.problems)
    return FileCheck(path, read.format, read.about, counts, skipped, [*read.problems, *problems])


def total(checks: Sequence[FileCheck]) -> dict[str, Any]:
    """The summary of all files together."""
    counts = GameCounts()
    for each in checks:
        counts = counts.plus(each.counts)
    return {**counts.summary(), "skipped": sum(each.skipped for each in checks)}


def check(records: Sequence[GameRecord]) -> tuple[GameCounts, list[RecordProblem]]:
    """Replay the games, and tell which of their moves, turns and scores are not those of the rules.

    Cost: about 20 microseconds a game; 3 kB for each of a batch of 16,384.
    """
    counts, problems = GameCounts(), []
    for first in range(0, len(records), BATCH):
        some, found = _check_batch(records[first : first + BATCH])
        counts = counts.plus(some)
        problems += found
    return counts, problems


def replayed(records: Sequence[GameRecord]) -> tuple[Games, dict[int, RecordProblem]]:
    """The games by the rules, each from its own board, and the first illegal move of those that have one."""
    moves = np.full((len(records), BOARD.most_moves), NONE, np.int8)
    for i, record in enumerate(records):
        row = record.moves[: BOARD.most_moves]
        moves[i, : len(row)] = row
    games, illegal = replay(BOARD, moves, start=_starts(records))
    found = {
        each.game: RecordProblem("illegal", records[each.game].place, *_told(each.told(BOARD))) for each in illegal
    }
    for i, record in enumerate(records):
        if len(record.moves) > BOARD.most_moves:
            text = f"it has {len(record.moves)} moves; no game has more than {BOARD.most_moves}"
            found.setdefault(i, RecordProblem("illegal", record.place, text))
    return games, found


def _told(sentence: str) -> tuple[str, str]:
    text, _, board = sentence.partition("\n")
    return text, board


def _starts(records: Sequence[GameRecord]) -> StartBoards | None:
    if all(record.start is None for record in records):
        return None
    boards = [record.start or USUAL for record in records]
    black, white = (np.array(discs, np.uint64) for discs in zip(*(board[:2] for board in boards)))
    first = np.array([board.black_moves for board in boards], np.bool_)
    return StartBoards(np.where(first, black, white), np.where(first, white, black), first)


def _check_batch(records: Sequence[GameRecord]) -> tuple[GameCounts, list[RecordProblem]]:
    games, illegal = replayed(records)
    finished = games.finished
    finished[list(illegal)] = False
    first = np.array([(record.start or USUAL).black_moves for record in records], np.bool_)
    played = games.moves >= 0
    by_turns = first[:, None] ^ (np.arange(BOARD.most_moves) % 2 == 1)
    odd = played & (games.black[:, :-1] != by_turns)
    skips = games.passed
    skips[:, 0] = odd[:, 0]
    turns = [problem for i in range(len(records)) if (problem := _turns(records[i], games, skips, i, i in illegal))]
    compared, decided, scores = _scores(records, games, finished)
    counts = GameCounts(
        games=len(records),
        complete=int(finished.sum()),
        unfinished=len(records) - int(finished.sum()) - len(illegal),
        illegal=len(illegal),
        own_start=sum(record.start is not None for record in records),
        with_pass=int(skips.any(1).sum()),
        plies=int(played.sum()),
        off_parity=int(odd.sum()),
        turns_differ=len(turns),
        compared=compared,
        scores_differ=len(scores),
        decided_otherwise=decided,
    )
    return counts, [*illegal.values(), *turns, *scores]


def _turns(record: GameRecord, games: Games, skips: np.ndarray, i: int, illegal: bool) -> RecordProblem | None:
    """The first of the record's turns that is not that of the rules; of an illegal game, before its illegal move."""
    length = int(games.length[i])
    for ply, black in enumerate(record.movers[:length]):
        if black != games.black[i, ply]:
            written, right = ("Black", "White") if black else ("White", "Black")
            text = f"move {ply + 1}, {BOARD.name(record.moves[ply])}, is written as {written}'s; it is {right}'s turn"
            return RecordProblem("turn", record.place, text, _drawn(games, i, ply))
    for ply in record.passes:
        if ply < length and not skips[i, ply]:
            text = f"a pass is written before move {ply + 1}, where the player could move"
            return RecordProblem("turn", record.place, text, _drawn(games, i, ply))
        if ply == length and not illegal and not games.finished[i] and not _skipped_at_end(record, games, i):
            text = f"a pass is written after move {ply}, where the player could move"
            return RecordProblem("turn", record.place, text, _drawn(games, i, ply))
    return None


def _skipped_at_end(record: GameRecord, games: Games, i: int) -> bool:
    """Whether the turn was skipped after the last move of an unfinished game."""
    length = int(games.length[i])
    if not length:
        return bool(games.black[i, 0] != (record.start or USUAL).black_moves)
    return bool(games.black[i, length] == games.black[i, length - 1])


def _drawn(games: Games, i: int, ply: int) -> str:
    own, other = int(games.own[i, ply]), int(games.other[i, ply])
    black, white = (own, other) if games.black[i, ply] else (other, own)
    return BOARD.drawn(black, white, BOARD.squares(int(games.legal[i, ply])))


def _scores(records: Sequence[GameRecord], games: Games, finished: np.ndarray) -> tuple[int, int, list[RecordProblem]]:
    """How many scores were compared, how many decided otherwise, and those that differ."""
    blacks, whites = (np.bitwise_count(side[:, 0]).astype(int) for side in games.colours(np.array([-1])))
    compared, decided, problems = 0, 0, []
    for i in np.flatnonzero(finished).tolist():
        score = records[i].score
        if score is None:
            continue
        if score.decided_by:
            decided += 1
            continue
        compared += 1
        right = dict.fromkeys(_differences(int(blacks[i]), int(whites[i]), score))
        if score.difference not in right:
            wanted = " or ".join(f"{each:+d}" for each in right)
            text = (
                f"the file states {score.difference:+g} for Black; the board has {blacks[i]} : {whites[i]}, which is "
                f"{wanted}"
            )
            problems.append(RecordProblem("score", records[i].place, text, _drawn(games, i, -1)))
    return compared, decided, problems


def _differences(black: int, white: int, score: StoredScore) -> Iterator[int]:
    """What the score may be: with the empty squares given to the winner, or without if the format leaves it open."""
    difference = black - white
    yield difference + int(np.sign(difference)) * (BOARD.n_squares - black - white)
    if not score.empties_to_winner:
        yield difference
