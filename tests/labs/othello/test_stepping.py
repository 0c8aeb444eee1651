"""What the page shows of a game, against runs of the model one by one; and the files of probes."""

import json

import numpy as np
import pytest
import torch
from tiny_board import BOARD, CHOSEN, random_probe, tiny_model

from micrographia.core.errors import BadConfig, BadShape, Corrupt, RunNotFound, UnknownModel, UserError
from micrographia.core.runtime import generator
from micrographia.core.store import write_bytes, write_tensors
from micrographia.faces.report.packing import packed
from micrographia.labs.othello.cases import cases_of
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.games import random_games
from micrographia.labs.othello.engine.rules import Rules, unpack
from micrographia.labs.othello.flips import WAYS, edits_of, logits_at_last
from micrographia.labs.othello.intervene import Chosen
from micrographia.labs.othello.reading import sites_of
from micrographia.labs.othello.stepping import game_widget, given_game, position, step_through
from micrographia.labs.othello.studied import board_of, probe_bytes, read_probe, studied
from micrographia.labs.othello.task import labels_of, tokens_of


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def probe(model):
    return random_probe(model)


@pytest.fixture(scope="module")
def games():
    return random_games(BOARD, 6, generator(3))


@pytest.fixture(scope="module")
def steps(model, probe, games):
    return step_through(model, probe, games, CHOSEN)


def test_boards_movers_and_legal_moves_are_those_of_the_engine(steps, games):
    black, white = games.colours()
    for i, each in enumerate(steps):
        n = int(games.length[i])
        assert each.boards.shape == (n + 1, 16)
        assert (each.boards == 1 * unpack(black[i, : n + 1], BOARD) + 2 * unpack(white[i, : n + 1], BOARD)).all()
        assert (each.black == games.black[i, : n + 1]).all()
        assert each.read == min(n, 11)


def test_the_probe_is_read_in_the_colours_of_the_true_mover(model, probe, steps, games):
    """A probe that says mine is right exactly where the label of the mover's frame is mine, also after a pass."""
    labels = labels_of(games, ("mover",))["mover"]
    sites = sites_of(model)
    assert any(games.passed[i].any() for i in range(6))
    for i, each in enumerate(steps):
        cache = model.run(tokens_of(games)[i : i + 1, : each.read], keep=sites).cache
        said = probe.logits(torch.stack([cache[site][0] for site in sites])).argmax(-1)
        known = labels[i, : each.read] >= 0
        right = (said == labels[i, : each.read]) & known
        assert (right.transpose(0, 1).numpy() == (~each.wrong & known[:, None].numpy())).all()


def test_predictions_are_the_probabilities_of_the_model(model, steps, games):
    logits = model.run(tokens_of(games)[:1, : steps[0].read]).logits[0]
    p = logits.softmax(-1)[:, 1:].numpy()
    assert np.abs(steps[0].predicted[:, list(BOARD.playable)] / 10_000 - p).max() <= 0.5e-4 + 1e-6
    assert (steps[0].predicted[:, list(BOARD.centre)] == 0).all()


def test_every_disc_of_every_board_has_its_flip_and_no_empty_square(steps):
    for each in steps:
        row = each.flips.row
        assert ((row >= 0) == (each.boards[1 : each.read + 1] > 0)).all()
        assert sorted(row[row >= 0]) == list(range(len(each.flips.predicted)))


@pytest.mark.parametrize("chosen", [CHOSEN, Chosen((0, 1), 2.0)])
def test_a_flip_is_what_one_intervention_alone_gives(model, probe, games, chosen):
    (steps,) = step_through(model, probe, games.some(slice(1)), chosen)
    moved = 0
    for step, square in ((3, 5), (7, 10), (steps.read, 6)):
        old = steps.boards[step, square]
        row = {"history": steps.moves[:step].tolist(), "pos_int": square, "ori_color": 2 if old == 1 else 0}
        case = cases_of(BOARD, [row])
        edits = edits_of(WAYS["add"], probe, case, chosen.layers, chosen.scale, generator(0))
        p = logits_at_last(model, case, edits).softmax(-1)[0, 1:].numpy()
        found = steps.flips.row[step - 1, square]
        assert np.abs(steps.flips.predicted[found][list(BOARD.playable)] / 10_000 - p).max() < 1.5e-4
        changed = steps.boards[step].copy()
        changed[square] = 3 - changed[square]
        own = np.packbits(changed == (1 if steps.black[step] else 2), bitorder="little").view(np.uint16)
        other = np.packbits(changed == (2 if steps.black[step] else 1), bitorder="little").view(np.uint16)
        legal = Rules(BOARD, 1).legal(own.astype(np.uint64), other.astype(np.uint64))
        assert (unpack(legal, BOARD)[0] == steps.flips.legal[found]).all()
        moved += int(np.abs(steps.flips.predicted[found] - steps.predicted[step - 1]).max())
    assert moved > 20


def test_a_flip_makes_the_probe_read_the_other_colour_at_the_edited_layer(model, probe, games):
    """Far enough along its direction, at least against the old colour; earlier layers read what they read."""
    (steps,) = step_through(model, probe, games.some(slice(1)), Chosen((1,), 1e4))
    for step, square in zip(*np.nonzero(steps.flips.row >= 0)):
        row = steps.flips.row[step, square]
        assert steps.flips.said[row, -1, square] != steps.boards[step + 1, square]
        assert (steps.flips.said[row, :3] == steps.said[step, :3]).all()


def test_a_position_is_told_in_names(steps):
    told = position(steps[0], 4, 2, int(BOARD.square("b2")))
    json.dumps(told)
    assert told["moves"] == [BOARD.name(int(move)) for move in steps[0].moves[:4]]
    assert len(told["board"]) == len(told["probe"]) == 4
    rows = "".join(told["board"]), "".join(told["flip"]["board"])
    assert [BOARD.name(i) for i in range(16) if rows[0][i] != rows[1][i]] == ["b2"]
    assert set(told["flip"]["gained"]) == set(told["flip"]["legal"]) - set(told["legal"])
    wrong = [i for i in range(16) if told["probe"][i // 4][i % 4] != told["board"][i // 4][i % 4]]
    assert told["wrong"] == [BOARD.name(i) for i in wrong]
    assert told["legal_mass"] == pytest.approx(sum(told["predictions"].get(name, 0) for name in told["legal"]))


def test_an_empty_square_cannot_be_flipped_and_a_step_must_be_read(steps):
    empty = int(np.flatnonzero(steps[0].boards[1] == 0)[0])
    with pytest.raises(UserError, match=rf"{BOARD.name(empty)} after 1 moves. It is empty there. Discs are on .*b2"):
        position(steps[0], 1, 0, empty)
    with pytest.raises(UserError, match=f"after 12 moves. In this game the model reads 1 to {steps[0].read}"):
        position(steps[0], 12, 0)


def test_games_are_read_from_text_and_what_is_none_is_told():
    board = Board(8)
    for text in ("f5 d6 c3", "f5d6c3", "F5, d6 c3"):
        assert given_game(board, text).moves[0, :3].tolist() == [board.square(name) for name in ("f5", "d6", "c3")]
    with pytest.raises(UserError, match=r"move 2, a1, is not legal on\n--------\n"):
        given_game(board, "f5 a1")
    with pytest.raises(UserError, match=r"Move 1 .*'f5'.*a1 to d4.*another board"):
        given_game(BOARD, "f5 d6")
    with pytest.raises(UserError, match=r"13 moves.*at most 12"):
        given_game(BOARD, "a1 " * 13)


def test_a_game_without_moves_is_refused(model, probe):
    with pytest.raises(UserError, match="without moves"):
        step_through(model, probe, given_game(BOARD, ""), CHOSEN)


def test_the_data_of_a_page_stay_small():
    board = Board(6)
    model = tiny_model(6)
    steps = step_through(model, random_probe(model, board), random_games(board, 1, generator(0)), CHOSEN)
    assert len(packed(dict(game_widget(steps, CHOSEN).data))) < 200_000


def test_the_figure_opens_where_it_is_asked_to(steps):
    figure = game_widget(steps, CHOSEN, about={"step": 3, "flip": 5})
    assert figure.data["opening"] == {"game": 0, "step": 3, "site": figure.data["opening"]["site"], "flip": 5}
    assert figure.data["sites"][:3] == ["before layer 0", "after the attention of layer 0", "after layer 0"]
    assert (figure.name, figure.group) == ("game", "A game, step by step")
    wrong = [sum(int(each.wrong[:, i].sum()) for each in steps) for i in range(4)]
    assert wrong[figure.data["opening"]["site"]] == min(wrong)


def test_a_probe_survives_its_file(model, probe, tmp_path):
    path = tmp_path / "probes.safetensors"
    write_bytes(path, probe_bytes(probe, CHOSEN))
    found, chosen = read_probe(path, model, BOARD)
    x = torch.randn(len(sites_of(model)), 5, model.shape.d_model, generator=generator(1))
    assert torch.equal(found.logits(x), probe.logits(x))
    assert chosen == CHOSEN
    write_bytes(path, probe_bytes(probe))
    assert read_probe(path, model, BOARD)[1] is None


def test_a_probe_of_another_model_or_a_damaged_one_is_told(model, probe, tmp_path):
    path = tmp_path / "probes.safetensors"
    write_bytes(path, probe_bytes(random_probe(tiny_model(6), Board(6))))
    with pytest.raises(BadShape, match=r"Wanted .*\(4, 32, 16, 3\).* Found .*\(4, 32, 36, 3\)"):
        read_probe(path, model, BOARD)
    write_bytes(path, probe_bytes(probe, Chosen((5,), 1.0)))
    with pytest.raises(BadShape, match="The model has 2 layers"):
        read_probe(path, model, BOARD)
    write_bytes(path, probe_bytes(probe)[:100])
    with pytest.raises(Corrupt):
        read_probe(path, model, BOARD)


def test_a_model_of_no_board_and_one_that_reads_too_little_are_told():
    with pytest.raises(BadConfig, match=r"reads 6"):
        board_of(_other(n_ctx=6), "mine")
    with pytest.raises(BadConfig, match=r"'mine'\. It has 40 tokens.*13 \(4x4\), 33 \(6x6\), 61 \(8x8\)"):
        board_of(_other(d_vocab=40), "mine")


def _other(**changed):
    import dataclasses

    from micrographia.core.small.transformer import Transformer
    from micrographia.core.small.weights import init_weights

    arch = dataclasses.replace(tiny_model().arch, **changed)
    return Transformer(arch, init_weights(arch, generator(0)), None)


@pytest.mark.parametrize("size", [4, 6])
def test_a_file_of_weights_is_read_on_whichever_board_it_fits_with_the_probe_beside_it(size, tmp_path):
    model, board = tiny_model(size), Board(size)
    path = tmp_path / "weights.safetensors"
    write_tensors(path, dict(model.state))
    write_bytes(tmp_path / "weights.probes.safetensors", probe_bytes(random_probe(model, board), CHOSEN))
    found = studied(str(path))
    assert (found.board, found.chosen) == (board, CHOSEN)
    tokens = tokens_of(random_games(board, 2, generator(0)))[:, :-1]
    torch.testing.assert_close(found.model.run(tokens).logits, model.run(tokens).logits)


def test_a_file_of_another_kind_of_model_is_told(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_tensors(path, dict(_other(d_vocab=40, d_vocab_out=40).state))
    with pytest.raises(BadConfig, match="Its tokens are those of no known board"):
        studied(str(path))


def test_a_model_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UnknownModel, match="no such file"):
        studied(str(tmp_path / "none.safetensors"))
    with pytest.raises(RunNotFound):
        studied(str(tmp_path / "none"))
