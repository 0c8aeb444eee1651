"""The script of the board: what it makes of the arrays, against Python, and what its clicks and keys do."""

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from tiny_board import BOARD, CHOSEN, random_probe, tiny_model

from micrographia.core.runtime import generator
from micrographia.faces.notebook import frame_html, show
from micrographia.faces.report.page import render_figures
from micrographia.labs.othello.engine.games import random_games
from micrographia.labs.othello.stepping import ASSET, game_widget, position, step_through

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: the page's script was NOT checked")
STEP, SITE, DISC = 6, 2, 5


def carried(value):
    """Arrays as the page unpacks them."""
    if isinstance(value, np.ndarray):
        return {"values": value.ravel().tolist(), "shape": list(value.shape)}
    if isinstance(value, dict):
        return {key: carried(each) for key, each in value.items()}
    return [carried(each) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def steps():
    model = tiny_model()
    return step_through(model, random_probe(model), random_games(BOARD, 2, generator(3)), CHOSEN)


@pytest.fixture(scope="module")
def figure(steps):
    return game_widget(steps, CHOSEN, about={"step": STEP, "site": SITE})


@pytest.fixture(scope="module")
def page(steps, figure):
    first = steps[0]
    states = [
        {"game": 0, "step": step, "site": site, "flip": None if flip is None else int(flip)}
        for step in range(len(first.boards))
        for site in (0, 3)
        for flip in (None, *np.flatnonzero(first.boards[step]))
    ]
    empty = int(np.flatnonzero(first.boards[STEP] == 0)[0])
    question = {"data": carried(dict(figure.data)), "states": states, "disc": DISC, "empty": empty}
    with resources.as_file(resources.files("micrographia.labs.othello") / "board.js") as file:
        command = [NODE, Path(__file__).with_name("board_in_node.js"), file]
        done = subprocess.run(command, input=json.dumps(question), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "states": states}


@needs_node
def test_the_script_registers_under_the_asset_of_the_figure(page):
    assert page["registered"] == [ASSET]


@needs_node
def test_the_page_shows_at_every_step_what_python_tells(page, steps):
    name = BOARD.name
    for state, view in zip(page["states"], page["views"]):
        step, flip = state["step"], state["flip"]
        assert view["board"] == steps[0].boards[step].tolist()
        assert view["isRead"] == (1 <= step <= steps[0].read)
        if not view["isRead"]:
            assert view["flip"] is None
            continue
        told = position(steps[0], step, state["site"], flip)
        here = told["flip"] or told
        values = view["before"] if flip is None else view["after"]
        assert {name(i): p for i, p in enumerate(values) if p > 0} == here["predictions"]
        assert [name(i) for i in view["wrong"]] == here["wrong"]
        assert "".join("-XO"[colour] for colour in view["said"]) == "".join(here["probe"])
        assert "".join("-XO"[colour] for colour in view["truth"]) == "".join(here["board"])
        if flip is not None:
            assert [[name(i) for i in view[key]] for key in ("gained", "lost")] == [here["gained"], here["lost"]]


@needs_node
def test_the_words_say_who_played_what_is_legal_and_what_is_misread(page, steps):
    first = steps[0]
    for state, view in zip(page["states"], page["views"]):
        position_told, predicted, probe, flipped = view["words"]
        step = state["step"]
        if step == 0:
            assert "has read nothing yet" in position_told
            assert predicted == probe == flipped == ""
            continue
        mover = "black" if first.black[step - 1] else "white"
        assert position_told.startswith(f"Move {step}: {mover} plays {BOARD.name(int(first.moves[step - 1]))}")
        if not view["isRead"]:
            assert "predicts nothing here" in predicted
            continue
        n = len(view["wrong"])
        assert ("every square" in probe) if n == 0 else (f" {n} of 16 squares" in probe)
        assert bool(flipped) == (state["flip"] is not None)
        assert all(BOARD.name(i) in flipped for key in ("gained", "lost") for i in view.get(key, ()))


@needs_node
def test_a_click_flips_a_disc_and_another_takes_it_back(page):
    shown = {each["did"]: each for each in page["shown"]}
    assert shown["open"]["label"] == ["6 of 12", "after layer 0"]
    assert (shown["open"]["pressed"], shown["click"]["pressed"], shown["enter"]["pressed"]) == (-1, DISC, DISC)
    assert f"{BOARD.name(DISC)} is flipped inside the model" in shown["click"]["words"]
    assert shown["repaint"] == {**shown["click"], "did": "repaint"}
    assert shown["click again"] == {**shown["open"], "did": "click again"}
    assert shown["empty"] == {**shown["open"], "did": "empty"}


@needs_node
def test_arrow_keys_step_and_within_the_board_go_from_square_to_square(page):
    shown = {each["did"]: each for each in page["shown"]}
    assert page["prevented"]
    assert [shown[did]["label"][0] for did in ("right", "left", "in a slider")] == ["7 of 12", "6 of 12", "6 of 12"]
    assert page["down"] == 5 + BOARD.size
    assert page["beyond"] is None
    assert page["tabs"] == 1
    assert shown["site"]["label"][1] == "before layer 0"
    assert shown["start"]["label"][0] == "0 of 12"


@needs_node
def test_every_square_has_its_name_and_content_for_who_does_not_see_it(page, steps):
    start = steps[0].boards[0]
    words = ("empty", "black", "white")
    assert len(page["labels"]) == 16
    for i, label in enumerate(page["labels"]):
        assert label.startswith(f"{BOARD.name(i)}, {words[start[i]]}")
        assert "Flip" not in label  # nothing is read before the first move


def test_a_page_carries_the_script_and_the_data(figure):
    page = render_figures([figure])
    assert 'data-widget="game"' in page
    assert ASSET in page
    assert 'class="failed"' not in page


def test_a_notebook_shows_it_with_everything_inside(figure):
    html = show(figure)._repr_html_()
    assert "carried-library" in html
    assert "board.js" in html
    assert "height:1400px" in html
    assert "board.js" in frame_html(figure)
