"""Game records: files written here byte by byte are read back, damaged ones lose no other game, scores are checked."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.errors import UserError
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.games import random_games
from micrographia.labs.othello.records.check import check, check_files, files_of, replayed, total
from micrographia.labs.othello.records.reading import read_records
from micrographia.labs.othello.records.record import GameRecord, StartBoard, StoredScore

BOARD = Board(8)
WIPED = "e6f4e3f6g5d6e7f5c5"  # the shortest game: 13 black discs, no white one


class Played(NamedTuple):
    """A random game: squares, who plays each, before which moves a turn is skipped, and the discs at the end."""

    moves: list[int]
    blacks: list[bool]
    passes: list[int]
    black: int
    white: int

    @property
    def text(self) -> str:
        return "".join(map(BOARD.name, self.moves))

    @property
    def difference(self) -> int:
        empty = 64 - self.black - self.white
        return self.black - self.white + empty * ((self.black > self.white) - (self.black < self.white))


def games_played(n: int, seed: int = 0) -> list[Played]:
    games = random_games(BOARD, n, torch.Generator().manual_seed(seed))
    discs = [np.bitwise_count(side[:, 0]).tolist() for side in games.colours(np.array([-1]))]
    return [
        Played(
            games.moves[i, : games.length[i]].tolist(),
            games.black[i, : games.length[i]].tolist(),
            np.flatnonzero(games.passed[i]).tolist(),
            discs[0][i],
            discs[1][i],
        )
        for i in range(n)
    ]


PLAYED = games_played(60)
PASSING = next(game for game in PLAYED if len(game.passes) == 1 and not game.blacks[game.passes[0]])


def squares(text: str) -> list[int]:
    return [BOARD.square(text[i : i + 2]) for i in range(0, len(text), 2)]


def wthor_head(n: int, *, names: int = 0, size: int = 8, kind: int = 0) -> bytes:
    return bytes([20, 7, 5, 22]) + struct.pack("<IHH", n, names, 2006) + bytes([size, kind, 24, 0])


def wthor_game(moves: Sequence[int], score: int, *, black: int = 1, white: int = 2, tournament: int = 0) -> bytes:
    codes = bytes(10 * (square // 8 + 1) + square % 8 + 1 for square in moves)
    return struct.pack("<HHH", tournament, black, white) + bytes([score, 0]) + codes.ljust(60, b"\0")


def wthor(games: Sequence[Played], **head: int) -> bytes:
    rows = [wthor_game(game.moves, (game.difference + 64) // 2) for game in games]
    return wthor_head(len(games), **head) + b"".join(rows)


def names_file(names: Sequence[str], size: int) -> bytes:
    return wthor_head(0, names=len(names), size=0) + b"".join(
        name.encode("latin-1").ljust(size, b"\0") for name in names
    )


def ggf(game: Played, *, head: str = "TY[8]", result: str = "") -> str:
    turns, words = [(ply, ply in game.passes) for ply in range(len(game.moves))], []
    for ply, passed in turns:
        mover, other = ("B", "W") if game.blacks[ply] else ("W", "B")
        name = BOARD.name(game.moves[ply])
        words += [f"{other}[{'PA' if ply % 2 else 'pass//0.01'}]"] if passed else []
        words.append(f"{mover}[{(name, name.upper() + '/1.00/2', name + '//0.5', name.upper() + '/3')[ply % 4]}]")
    score = result or f"{game.difference:+.3f}"
    return f"(;GM[Othello]PC[here]PB[one]PW[two]{head}RE[{score}]{''.join(words)};)"


@pytest.fixture
def write(tmp_path):
    def written(name: str, content: bytes | str):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def moves_of(path) -> list[list[int]]:
    return [list(record.moves) for record in read_records(path).records]


def kinds(problems) -> list[str]:
    return [problem.kind for problem in problems]


# WTHOR


@pytest.mark.parametrize("size", [8, 0])
def test_games_and_scores_of_wthor_are_those_that_were_written(write, size):
    path = write("WTH_2006.wtb", wthor(PLAYED, size=size))
    read = read_records(path)
    assert (read.format, list(read.problems)) == ("WTHOR", [])
    assert [list(record.moves) for record in read.records] == [game.moves for game in PLAYED]
    assert [record.score for record in read.records] == [StoredScore(game.difference, True) for game in PLAYED]
    assert read.about == ["games of 2006, file made on 2007-05-22"]
    counts, problems = check(read.records)
    assert not problems
    assert (counts.games, counts.complete, counts.compared, counts.scores_differ) == (60, 60, 60, 0)
    assert counts.with_pass == sum(bool(game.passes) for game in PLAYED)
    off = sum(black != (ply % 2 == 0) for game in PLAYED for ply, black in enumerate(game.blacks))
    assert (counts.plies, counts.off_parity) == (sum(len(game.moves) for game in PLAYED), off)
    assert off


def test_the_move_byte_is_the_row_in_tens_and_the_column(write):
    data = wthor_head(1) + bytes(6) + bytes([64, 0]) + bytes([65, 46, 35, 66, 57, 64, 75, 56, 53]).ljust(60, b"\0")
    (record,) = read_records(write("one.wtb", data)).records
    assert list(record.moves) == squares(WIPED)


def test_empty_squares_go_to_the_winner_in_wthor_alone(write):
    moves = tuple(squares(WIPED))
    for score, right in [(64, True), (13, False)]:
        counts, problems = check(read_records(write("one.wtb", wthor_head(1) + wthor_game(moves, score))).records)
        assert (counts.complete, counts.scores_differ) == (1, int(not right))
    assert "states -38 for Black; the board has 13 : 0, which is +64" in problems[0].text
    for difference, right in [(64, True), (13, True), (12, False)]:
        counts, _ = check([GameRecord(moves, "here", score=StoredScore(difference))])
        assert counts.scores_differ == int(not right)


def test_a_draw_with_empty_squares_is_32_in_wthor():
    drawn = next(game for game in games_played(400, seed=1) if game.black == game.white)
    counts, _ = check([GameRecord(tuple(drawn.moves), "", score=StoredScore(2 * 32 - 64, True))])
    assert (counts.compared, counts.scores_differ) == (1, 0)


def test_a_game_that_stops_early_is_unfinished_and_its_score_compared_with_nothing(write):
    game = PLAYED[0]
    path = write("one.wtb", wthor_head(2) + wthor_game(game.moves[:50], 12) + wthor_game([], 0))
    counts, problems = check(read_records(path).records)
    assert (counts.complete, counts.unfinished, counts.compared, problems) == (0, 2, 0, [])


def test_names_are_read_where_they_lie_beside(write):
    path = write("WTH_2006.wtb", wthor_head(1) + wthor_game(squares(WIPED), 64, black=0, white=7, tournament=1))
    (record,) = read_records(path).records
    assert (record.black, record.white, record.event) == ("player 0", "player 7", "tournament 1")
    write("WTHOR.JOU", names_file(["Ève Durand", "Bo"], 20))
    write("wthor.trn", names_file(["Open", "Final"], 26))
    (record,) = read_records(path).records
    assert (record.black, record.white, record.event) == ("Ève Durand", "player 7", "Final")
    write("WTHOR.JOU", names_file(["Eve", "Bo"], 20)[:-1])
    read = read_records(path)
    assert read.records[0].black == "player 0"
    assert "no whole file of names" in read.problems[0].text


@pytest.mark.parametrize("cut", [1, 68, 70])
def test_of_a_truncated_file_the_whole_games_are_kept(write, cut):
    read = read_records(write("cut.wtb", wthor(PLAYED[:5])[:-cut]))
    assert [list(record.moves) for record in read.records] == [game.moves for game in PLAYED[: len(read.records)]]
    assert len(read.records) == 5 - -(-cut // 68)
    assert "the head states 5 games, but the file is cut" in read.problems[0].text
    assert read.n_lost == 5 - len(read.records)


def test_bytes_after_the_last_game_are_told(write):
    read = read_records(write("long.wtb", wthor(PLAYED[:2]) + b"more"))
    assert (len(read.records), read.problems[0].kind) == (2, "file")
    assert "4 bytes after the last" in read.problems[0].text


@pytest.mark.parametrize("byte", [9, 10, 19, 90, 91, 255])
def test_a_byte_that_is_no_square_loses_its_game_alone(write, byte):
    data = bytearray(wthor(PLAYED[:3]))
    data[16 + 68 + 8 + 4] = byte
    read = read_records(write("odd.wtb", bytes(data)))
    assert [list(record.moves) for record in read.records] == [PLAYED[0].moves, PLAYED[2].moves]
    assert (read.problems[0].kind, read.problems[0].place) == ("skipped", "game 2")
    assert f"byte {byte} of move 5" in read.problems[0].text


def test_a_move_after_the_end_is_told(write):
    data = bytearray(wthor(PLAYED[:2]))
    data[16 + 8 + 30] = 0
    read = read_records(write("gap.wtb", bytes(data)))
    assert len(read.records) == 1
    assert "after the zero" in read.problems[0].text


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("WTHOR.JOU", names_file(["a", "b"], 20), "2 names (players), not of games"),
        ("WTHOR.TRN", names_file(["a", "b"], 26), "2 names (tournaments), not of games"),
        ("x.wtd", wthor_head(1, size=10) + bytes(104), "games on 10x10 squares"),
        ("x.wtb", wthor_head(1, size=10) + bytes(104), "games on 10x10 squares"),
        ("x.bin", wthor_head(1, size=10) + bytes(104), "games on 10x10 squares"),
        ("x.pzz", wthor_head(1, kind=1) + bytes(68), "solitaires"),
        ("x.wtb", wthor_head(1, size=77) + bytes(68), "byte 12, the size of the board, is 77"),
        ("x.wtb", wthor_head(1)[:10], "has 10 bytes"),
        ("x.bin", bytes(range(256)), "neither text nor a WTHOR file"),
        ("x.gz", b"\x1f\x8b\x08\0\0", "packed"),
        ("x.wtb", b"", "is empty"),
        ("x.txt", "It was a dark night.\nThe end.", "No line is a game"),
    ],
)
def test_what_is_no_file_of_games_is_named(write, name, data, told):
    with pytest.raises(UserError) as raised:
        read_records(write(name, data))
    assert told in str(raised.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_records(tmp_path / "none.wtb")
    with pytest.raises(UserError, match="is a folder"):
        read_records(tmp_path)


def test_a_wthor_file_of_another_name_is_known_by_its_head(write):
    assert moves_of(write("games.dat", wthor(PLAYED[:3]))) == [game.moves for game in PLAYED[:3]]


# GGF


def test_games_of_ggf_are_those_that_were_written_with_their_passes(write):
    read = read_records(write("games.ggf", "\n".join(f"1 {ggf(game)}" for game in PLAYED)))
    assert (read.format, list(read.problems)) == ("GGF", [])
    for record, game in zip(read.records, PLAYED, strict=True):
        assert list(record.moves) == game.moves
        assert list(record.movers) == game.blacks
        assert list(record.passes) == game.passes
        assert record.score == StoredScore(game.difference)
        assert (record.black, record.white, record.event) == ("one", "two", "here")
    counts, problems = check(read.records)
    assert not problems
    assert (counts.complete, counts.compared) == (60, 60)


def start_of(game: Played, ply: int) -> tuple[StartBoard, str]:
    games, _ = replayed([GameRecord(tuple(game.moves[:ply]), "")])
    black, white = (int(side[0, 0]) for side in games.colours(np.array([ply])))
    cells = "".join("*" if black >> i & 1 else "O" if white >> i & 1 else "-" for i in range(64))
    mover = bool(games.black[0, ply])
    rows = " ".join(cells[i : i + 8] for i in range(0, 64, 8))
    return StartBoard(black, white, mover), f"BO[8 {rows} {'*' if mover else 'O'}]"


@pytest.mark.parametrize("ply", [14, 15])
def test_a_game_from_a_random_board_is_played_from_it(write, ply):
    start, board = start_of(PASSING, ply)
    passes = [each - ply for each in PASSING.passes]
    rest = PASSING._replace(moves=PASSING.moves[ply:], blacks=PASSING.blacks[ply:], passes=passes)
    text = f"2 {ggf(rest, head=f'TY[s8r{ply + 4}]{board}')} {ggf(rest, head=f'TY[8r9]{board}')}"
    read = read_records(write("start.ggf", text))
    assert [record.start for record in read.records] == [start, start]
    assert kinds(read.problems) == ["file"]
    assert "states 9 discs" in read.problems[0].text
    counts, problems = check([*read.records, GameRecord(tuple(PLAYED[0].moves), "")])
    assert not problems
    assert (counts.complete, counts.own_start, counts.compared) == (3, 2, 2)


def test_the_usual_board_with_white_to_move_is_a_start_of_its_own(write):
    usual = "8 -------- -------- -------- ---O*--- ---*O--- -------- -------- --------"
    text = f"(;TY[8]BO[{usual} *]B[f5];) (;TY[8]BO[{usual} O]W[f4];) (;TY[8]BO[{usual} O]W[f5];)"
    read = read_records(write("x.ggf", text))
    assert [record.start is None for record in read.records] == [True, False, False]
    counts, problems = check(read.records)
    assert (counts.illegal, kinds(problems), problems[0].place) == (1, ["illegal"], "game 3, line 1")
    assert counts.off_parity == 0


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("TY[8k]", "komi"),
        ("TY[s8kr18]", "komi"),
        ("TY[8]KM[+3.5]", "komi"),
        ("TY[8a]", "anti"),
        ("TY[10]", "10x10"),
        ("TY[s6r12]", "6x6"),
        ("TY[8z]", "unknown letter 'z'"),
        ("TY[?]", "is unknown"),
        ("TY[8r18]", "the board is missing"),
        ("TY[8]BO[8 -- *]", "not 64 of"),
        ("TY[8]BO[10 -- *]", "of size '10'"),
        (f"TY[8]BO[8 {'-' * 61}*O* *]", "fewer than 4 discs"),
        ("GM[Chess]", "game of Chess"),
        ("B[x9]", "turn 1 is 'x9'"),
        ("B[/0.1/2]", "turn 1 is ''"),
    ],
)
def test_games_of_other_kinds_are_told_and_left_out(write, head, told):
    read = read_records(write("x.ggf", f"{ggf(PLAYED[0])}\n{ggf(PLAYED[1], head=head)}\n{ggf(PLAYED[2])}"))
    assert [list(record.moves) for record in read.records] == [PLAYED[0].moves, PLAYED[2].moves]
    assert [(each.kind, each.place) for each in read.problems] == [("skipped", "game 2, line 2")]
    assert told in read.problems[0].text


def test_a_cut_game_and_counts_and_words_between_games_are_told(write):
    whole = ggf(PLAYED[0])
    read = read_records(write("x.ggf", f"2 {whole}{whole[:50]}\n3 {whole}\nhello {whole}\n{whole} bye"))
    assert len(read.records) == 4
    assert sorted(kinds(read.problems)) == ["file", "file", "file", "file", "skipped"]
    told = " ".join(problem.told() for problem in read.problems)
    assert all(text in told for text in ("line 1: 2 games are announced", "3 games are", "'hello'", "'bye'", "is cut"))


def test_a_result_that_the_board_does_not_decide_is_compared_with_nothing(write):
    games = [ggf(PLAYED[0], result=result) for result in ("+63.000:r", "-64:t", "+0.0:s", "+63.00", "?")]
    counts, problems = check(read_records(write("x.ggf", "\n".join(games))).records)
    assert (counts.decided_otherwise, counts.compared) == (3, 1)
    assert [(each.kind, each.place) for each in problems] == [("score", "game 4, line 4")]


def test_turns_that_the_rules_do_not_give_are_told(write):
    (at,) = PASSING.passes
    blacks = [not black if ply == at else black for ply, black in enumerate(PASSING.blacks)]
    wrong = [ggf(PASSING._replace(blacks=blacks)), ggf(PASSING._replace(passes=[at, 3])), ggf(PASSING)]
    counts, problems = check(read_records(write("x.ggf", "\n".join(wrong))).records)
    assert (counts.turns_differ, counts.complete, kinds(problems)) == (2, 3, ["turn", "turn"])
    assert f"move {at + 1}, " in problems[0].text
    assert "a pass is written before move 4" in problems[1].text


# text


@pytest.mark.parametrize(
    "line",
    [
        "f5d6c3", "F5D6C3", "f5 d6 c3", "F5-D6-C3", "f5, d6, c3", "1. f5 2. d6 3. c3", "1.f5 d6 2.c3", "1) f5 2) d6 c3",
        "  f5 {best} d6! c3?  # why", "f5d6 c3 ; so", "f5 d6 c3 // so",
    ],
)  # fmt: skip
def test_a_line_of_moves_in_any_manner(write, line):
    read = read_records(write("x.txt", f"# games\n\n{line}\n{WIPED}\n"))
    assert [(list(each.moves), each.place) for each in read.records] == [
        (squares("f5d6c3"), "line 3"), (squares(WIPED), "line 4")
    ]  # fmt: skip
    assert not read.problems


def test_passes_and_results_in_lines(write):
    (at,) = PASSING.passes
    names = [BOARD.name(square) for square in PASSING.moves]
    names.insert(at, "--")
    text = f"{' '.join(names)} {PASSING.black}-{PASSING.white}\n{' '.join(names).replace('--', 'PASS')} 1-0\n"
    read = read_records(write("x.txt", text))
    assert [record.passes for record in read.records] == [(at,), (at,)]
    assert [record.score for record in read.records] == [StoredScore(PASSING.black - PASSING.white), None]
    counts, problems = check(read.records)
    assert (counts.complete, counts.compared, problems) == (2, 1, [])


@pytest.mark.parametrize(("written", "lead"), [(" +12", 12), (" -3", -3), ("+64 ", 64), (" ++", None), (" +1-0", None)])
def test_a_signed_number_behind_the_moves_is_blacks_lead(write, written, lead):
    (record,) = read_records(write("x.txt", f"f5d6c3{written}\n")).records
    assert (len(record.moves), record.score and record.score.difference) == (3, lead)


@pytest.mark.parametrize("odd", ["f5 i9", "f5d6x", "f55", "f5 d6 hello", "f5 {open"])
def test_a_line_that_is_no_game_is_told_and_the_others_are_read(write, odd):
    read = read_records(write("x.txt", f"{WIPED}\n{odd}\n{WIPED}"))
    assert [each.place for each in read.records] == ["line 1", "line 3"]
    assert [(each.kind, each.place) for each in read.problems] == [("skipped", "line 2")]


TAGGED = """\
[Event "Final; day 2"]
[Black "A {x} \\"b\\""]
[White "C"]
[Result "13-0"]

1. e6 f4 {a comment; with
[12:30] two lines} 2. e3 f6 (2... f5 3. d3 (3. c4)) ; more
3. g5 d6 4. e7 f5 5. c5 13-0

[Event "Cut"]
[Black "A"

1. f5 d6 2. x9

[Event "Board"]
[FEN "x"]

1. f5

[Black "D"]
1. f5 2. d6 *
"""


def test_tagged_games_with_comments_and_variations(write):
    read = read_records(write("x.pgn", TAGGED))
    assert read.format == "tagged"
    assert [list(record.moves) for record in read.records] == [squares(WIPED), squares("f5d6")]
    first, last = read.records
    assert (first.event, first.white, first.score) == ("Final; day 2", "C", StoredScore(13))
    assert (last.black, last.place) == ("D", "game 4, line 20")
    assert kinds(read.problems) == ["file", "skipped", "skipped"]
    assert "'x9' after 2 moves" in read.problems[1].text
    assert "(FEN)" in read.problems[2].text
    assert check(read.records)[0].scores_differ == 0


def test_a_name_that_is_not_of_what_the_file_holds_is_told(write):
    for name, content in [("x.wtb", WIPED), ("x.ggf", WIPED), ("x.wtb", ggf(PLAYED[0])), ("x.ggf", wthor(PLAYED[:1]))]:
        read = read_records(write(name, content))
        assert len(read.records) == 1
        assert f"ends in {name[1:]}, but it holds {read.format}" in read.problems[0].text


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "latin-1"])
def test_text_of_other_codings_and_line_ends_is_read(write, coding):
    text = f'[Black "Ève"]\r\n{WIPED}\r\n'
    (record,) = read_records(write("x.pgn", text.encode(coding))).records
    assert (record.black, list(record.moves)) == ("Ève", squares(WIPED))


# checks


def test_an_illegal_move_is_told_with_its_board_and_the_other_games_go_on():
    good = GameRecord(tuple(PLAYED[0].moves), "line 1")
    bad = GameRecord((*PLAYED[1].moves[:4], 0, *PLAYED[1].moves[4:]), "line 2")
    counts, problems = check([good, bad, good])
    assert (counts.games, counts.complete, counts.illegal, counts.unfinished) == (3, 2, 1, 0)
    assert (problems[0].kind, problems[0].place) == ("illegal", "line 2")
    assert "move 5, a1, is not legal" in problems[0].text
    assert len(problems[0].board.splitlines()) == 8


def test_a_move_after_the_end_and_too_many_moves_are_illegal():
    full = next(game for game in PLAYED if len(game.moves) == 60)
    records = [GameRecord((*squares(WIPED), 0), "a"), GameRecord((*full.moves, 0), "b")]
    counts, problems = check(records)
    assert (counts.illegal, counts.complete) == (2, 0)
    assert "move 10, a1" in problems[0].text
    assert "61 moves" in problems[1].text


def test_a_pass_at_the_end_must_be_forced():
    open_end = tuple(PLAYED[0].moves[:20])
    (at,) = PASSING.passes
    records = [
        GameRecord(tuple(squares(WIPED)), "over", passes=(9, 9)),
        GameRecord(tuple(PASSING.moves[:at]), "forced", passes=(at,)),
        GameRecord(open_end, "free", passes=(20,)),
        GameRecord((), "nothing", passes=(0,)),
    ]
    assert [problem.place for problem in check(records)[1]] == ["free", "nothing"]


def test_the_parts_of_many_games_add_up():
    records = [GameRecord(tuple(game.moves), "", score=StoredScore(1)) for game in PLAYED]
    whole, problems = check(records)
    parts = check(records[:20])[0].plus(check(records[20:])[0])
    assert whole == parts
    assert len(problems) == whole.scores_differ > 50
    assert check([])[0].summary()["with_pass_share"] is None


def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_it(write, tmp_path):
    checks = check_files([tmp_path / "none", write("x.txt", f"{WIPED}\nhello")])
    assert "No such file" in checks[0].error
    assert (checks[1].counts.games, checks[1].skipped) == (1, 1)
    assert (total(checks)["games"], total(checks)["skipped"]) == (1, 1)


def test_a_folder_stands_for_the_records_in_it(write, tmp_path):
    names = [write("b.wtb", wthor(PLAYED[:1])[:-1]), write("a.txt", WIPED)]
    write("notes.md", "no games")
    assert files_of([tmp_path, names[0]]) == [names[1], names[0], names[0]]
    assert total(check_files(files_of([tmp_path])))["skipped"] == 1, "the game that was cut off"
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"No file in .* ends in"):
        files_of([tmp_path / "none"])


WHOLE = {"x.wtb": wthor(PLAYED[:3]), "x.ggf": f"2 {ggf(PLAYED[0])}{ggf(PASSING)}".encode(), "x.pgn": TAGGED.encode()}


@given(st.data())
def test_damage_never_ends_in_anything_but_games_or_words(tmp_path_factory, data):
    name = data.draw(st.sampled_from(sorted(WHOLE)))
    content = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    (checked,) = check_files([path])
    assert checked.error or checked.counts.games + checked.skipped or checked.problems or name == "x.wtb"
    assert checked.counts.games == checked.counts.complete + checked.counts.unfinished + checked.counts.illegal
