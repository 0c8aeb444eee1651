"""`micrographia othello games`: the tables, the first problems, one object with --json, and the exit codes."""

import json

import pytest

from micrographia.faces.cli.main import main

WIPED = "e6f4e3f6g5d6e7f5c5"


@pytest.fixture
def games(tmp_path):
    path = tmp_path / "games.txt"
    path.write_text(f"{WIPED} 13-0\nf5 f6 a1\nf5 d6 hello\n{WIPED} 12-1\nf5 d6 bye\nf5\n")
    return path


def test_the_summary_and_the_first_problems_of_each_kind_are_printed(games, capsys):
    assert main(["othello", "games", str(games), "--show", "1"]) == 0
    told = capsys.readouterr().out
    rows = {line.strip().rsplit("  ", 1)[0].strip(): line.split()[-1] for line in told.splitlines() if line.strip()}
    assert (rows["games"], rows["complete"], rows["with an illegal move"], rows["not read"]) == ("4", "2", "1", "2")
    assert (rows["scores compared"], rows["scores that differ"]) == ("2", "1")
    assert "line 3: 'hello' after 2 moves is no move\nand 1 more of this kind" in told
    assert "line 2: move 3, a1, is not legal on\n  a b c d e f g h\n1 - - - - - - - -\n" in told
    assert "line 4: the file states +11 for Black" in told
    assert "bye" not in told


def test_several_files_are_told_apart_and_one_that_is_not_there_is_no_failure(games, tmp_path, capsys):
    assert main(["othello", "games", str(games), str(games), str(tmp_path / "none.wtb")]) == 0
    told = capsys.readouterr().out
    assert told.count("games.txt   lines") == 2
    assert f"Asked for the games in {tmp_path / 'none.wtb'}" in told


def test_one_object_with_json(games, capsys):
    assert main(["othello", "games", str(games), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"]["games"] == 4
    assert found["total"]["with_pass_share"] == 0
    (file,) = found["files"]
    assert (file["format"], file["path"], file["error"]) == ("lines", str(games), None)
    assert [problem["kind"] for problem in file["problems"]] == ["skipped", "skipped", "illegal", "score"]


def test_code_1_only_if_no_game_was_read(tmp_path, capsys):
    komi = tmp_path / "komi.ggf"
    komi.write_text("(;GM[Othello]TY[8k]B[f5];)")
    assert main(["othello", "games", str(komi), str(tmp_path / "none"), "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "komi" in said.err
    assert "No such file" in said.err


def test_wrong_flags_are_wrong_usage(games, capsys):
    assert main(["othello", "games"]) == 2
    assert main(["othello", "games", str(games), "--show", "-1"]) == 2
    assert main(["othello"]) == 2
    assert "othello games" in capsys.readouterr().err
