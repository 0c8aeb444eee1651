"""`micrographia othello board`: boards in print, one object with --json, the page, and what cannot be asked."""

import json
import re

import pytest

from micrographia.core.config import with_fields
from micrographia.core.store import verify
from micrographia.faces.cli.main import main
from micrographia.labs.othello import studied
from micrographia.labs.othello.config import tiny
from micrographia.labs.othello.network import trained

GAME = "a2 a1 b1 c1"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("othello") / "run"
    config = with_fields(tiny(), steps=2, games=8, eval_every=2, checkpoint_every=2)
    trained(config, path, lab="othello", preset="custom")
    with pytest.MonkeyPatch.context() as patch:
        small = {"probe_games": 40, "probe_rows": 20, "test_games": 20, "tuning_cases": 5}
        patch.setattr(studied, "ON_THE_SPOT", small)
        assert main(["othello", "board", "--model", str(path)]) == 0
    return path


@pytest.fixture
def board(run, capsys):
    """What a command prints of the Run, whose probe is there by now."""

    def ask(*words):
        code = main(["othello", "board", "--model", str(run), *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return ask


def test_looking_at_a_run_changes_nothing_in_it(run, board):
    before = sorted(path.name for path in run.iterdir())
    assert "fit probes" in board()[2]
    assert sorted(path.name for path in run.iterdir()) == before
    assert verify(run) == []


def test_a_page_and_a_print_of_one_seed_have_the_same_game(board, tmp_path):
    printed, page = (
        board("--seed", "5", "--ply", "2", *more)[1] for more in ((), ("--html", str(tmp_path / "a.html")))
    )
    assert printed.split("Moves:")[1].split(".")[0] == page.split("Moves:")[1].split(".")[0]


def test_three_boards_stand_side_by_side(board):
    code, out, _ = board("--game", GAME, "--ply", "2")
    assert code == 0
    lines = out.splitlines()
    assert re.search(r"the board +probe, L\d\.resid_\w+ +the next move, %", lines[0])
    assert "Moves: a2 a1. Now black" in out
    first = next(line for line in lines if line.startswith("1 "))
    assert first.split()[1] == "○"
    assert sum(line.count(" a ") for line in lines[:3]) == 3


def test_one_object_with_json_and_a_flip(board):
    code, out, _ = board("--game", GAME, "--ply", "2", "--flip", "b2", "--layer", "1", "--json")
    found = json.loads(out)
    assert (code, found["size"], found["site"], found["mover"]) == (0, 4, "L1.resid_post", "black")
    assert found["board"][0][0] == "O"
    assert found["flip"]["square"] == "b2"
    assert {"layers", "scale", "predictions", "gained", "lost"} <= found["flip"].keys()
    assert found["page"] is None


def test_a_flip_is_told_in_print(board):
    code, out, _ = board("--game", GAME, "--ply", "2", "--flip", "b2")
    assert code == 0
    assert "the changed board" in out
    assert "with b2 flipped, %" in out
    assert "b2 was flipped in the model" in out


def test_the_page_is_written_with_its_script(board, tmp_path):
    page = tmp_path / "deep" / "board.html"
    code, out, _ = board("--html", str(page), "--seed", "3", "--ply", "5")
    assert code == 0
    assert out.rstrip().endswith(str(page))
    text = page.read_text()
    assert "micrographia.labs.othello:board.js" in text
    assert 'src="http' not in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--game", "a2 a1 a1"], "move 3, a1, is not legal on\nO"),
        (["--game", "f5 d6"], "Is the model of another board?"),
        (["--game", GAME, "--ply", "2", "--flip", "d4"], "Asked to flip d4 after 2 moves. It is empty there."),
        (["--game", GAME, "--flip", "h8"], "Asked for the square 'h8'"),
        (["--game", GAME, "--ply", "5"], "In this game the model reads 1 to 4"),
        (["--layer", "2"], "The model has 2 layers: give 0 to 1"),
    ],
)
def test_what_cannot_be_asked_is_told(board, words, told):
    code, out, err = board(*words)
    assert (code, out) == (1, "")
    assert told in err


def test_wrong_flags_are_wrong_usage(board):
    assert board("--ply", "0")[0] == 2
