"""The parts of the lab against what is known: perfect predictions, hand-written files, a model of the rules."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from micrographia.core.config import with_fields
from micrographia.core.edits import add
from micrographia.core.errors import BadConfig, BadShape, PickleRefused, UserError
from micrographia.core.events import silent
from micrographia.core.model import Output
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.labs.othello import published_probes
from micrographia.labs.othello.behaviour import own_board, rolled_out, transpositions
from micrographia.labs.othello.cases import SHORTEST, cases_of, erased, every_disc, random_cases, read_cases
from micrographia.labs.othello.config import Config, paper, preset_of, quick, tiny
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.games import replay
from micrographia.labs.othello.engine.rules import unpack
from micrographia.labs.othello.flips import WAYS, edits_of, flip_scores, logits_at_last
from micrographia.labs.othello.network import batch, scores_of, unseen_games
from micrographia.labs.othello.parts import heads_of, neurons_of
from micrographia.labs.othello.published import model_of, of_mingpt, read_probes
from micrographia.labs.othello.published_probes import judge_probes
from micrographia.labs.othello.reading import probe_board, reader, sites_of
from micrographia.labs.othello.run import run
from micrographia.labs.othello.saliency import Saliency
from micrographia.labs.othello.task import (
    EMPTY,
    MINE,
    PARITIES,
    THEIRS,
    labels_of,
    predicted,
    squares_of,
    targets_of,
    tokens_of,
)

TINY = with_fields(tiny(), probe_games=200, test_games=100, tuning_cases=10, cases=30)


def games_of(size=6, n=40):
    return unseen_games(with_fields(Config(), size=size), n)


def arch_of(size, **more):
    n = Board(size).most_moves + 1
    sizes = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 32, **more}
    return Architecture(
        d_vocab=n, d_vocab_out=n, n_ctx=size**2 - 5, act="gelu", norm="layernorm", attn_bias=True, **sizes
    )


def model_with_random_weights(size=4):
    arch = arch_of(size)
    return Transformer(arch, init_weights(arch, torch.Generator().manual_seed(0)))


class Rulebook:
    """A model that knows the rules: it replays the moves, and gives every legal one the same logit."""

    def __init__(self, size):
        self.board = Board(size)

    def run(self, tokens, *, edits=(), **_):
        games, _ = replay(self.board, squares_of(self.board, tokens))
        logits = torch.full((*tokens.shape, self.board.most_moves + 1), -20.0)
        legal = predicted(games).legal
        logits[:, :, :][legal] = 0.0
        return Output(logits, {})


class TestWhatIsTrueOfABoard:
    def test_tokens_are_the_published_ones(self):
        board = Board(8)
        assert squares_of(board, torch.tensor([0, 1, 27, 28, 33, 34, 60])).tolist() == [-1, 0, 26, 29, 34, 37, 63]
        games = games_of(8, 5)
        assert (squares_of(board, tokens_of(games)) == games.moves).all()

    def test_frames_differ_where_a_turn_was_skipped_and_nowhere_else(self):
        games = games_of(4, 200)
        labels = labels_of(games, ("mover", "parity", "absolute"))
        black = torch.from_numpy(games.black[:, 1:-1].copy())
        there = torch.from_numpy(games.moves[:, 1:] >= 0)
        turned = torch.tensor([EMPTY, THEIRS, MINE])
        absolute, mover = labels["absolute"].long(), labels["mover"].long()
        as_mover = torch.where(black[..., None], absolute, turned[absolute.clamp(min=0)])
        assert (as_mover[there] == mover[there]).all()
        plies = torch.arange(1, games.moves.shape[1])
        wrong = (black != (plies % 2 == 0)) & there
        assert ((labels["parity"] != labels["mover"]).any(-1) == wrong)[there].all()
        assert 0.05 < wrong.sum() / there.sum() < 0.2

    def test_parities_share_the_absolute_board_out(self):
        labels = labels_of(games_of(), ("absolute", *PARITIES))
        both = torch.maximum(labels["even"], labels["odd"])
        assert (both == labels["absolute"]).all()
        assert (torch.minimum(labels["even"], labels["odd"]) == -1).all()
        assert (labels["even"][:, 1::2] >= 0).any()  # after two moves
        assert (labels["even"][:, 0::2] == -1).all()

    def test_unflipped_discs_are_of_who_placed_them(self):
        games = games_of()
        labels = labels_of(games, ("unflipped", "mover"))
        square, ply = int(games.moves[0, 2]), 6
        placed_by_next = games.black[0, 2] == games.black[0, ply + 1]
        assert labels["unflipped"][0, ply, square] == (MINE if placed_by_next else THEIRS)
        there = labels["mover"] >= 0
        assert ((labels["unflipped"] == EMPTY) == (labels["mover"] == EMPTY))[there].all()
        assert 0.5 < (labels["unflipped"] == labels["mover"])[there].double().mean() < 0.9

    def test_what_the_last_move_did(self):
        games = games_of()
        labels = labels_of(games, ("flipped", "placed", "legal"))
        assert (labels["placed"][0, 3].argmax() == games.moves[0, 3]).all()
        assert labels["flipped"][0, 3].sum() == np.bitwise_count(games.flips[0, 3])
        assert labels["legal"][0, 3].sum() == np.bitwise_count(games.legal[0, 4])
        assert [each.n_classes for each in targets_of(games.board, ("mover", "legal")).values()] == [3, 2]


class TestHowWellAModelPlays:
    def test_the_rules_themselves_are_at_the_floor(self):
        games = games_of()
        judged = predicted(games)
        found = scores_of(Rulebook(6).run(judged.tokens).logits, judged)
        assert found.excess_nats == pytest.approx(0, abs=1e-5)
        assert (found.legal_rate, found.full_sets) == (1, 1)
        assert found.floor_nats == pytest.approx(1.536, abs=0.1)

    def test_even_predictions_are_as_far_above_it_as_the_number_of_tokens_says(self):
        judged = predicted(games_of())
        found = scores_of(torch.zeros(*judged.tokens.shape, 33), judged)
        assert found.excess_nats == pytest.approx(np.log(33) - found.floor_nats, abs=1e-6)
        assert found.full_sets == 0

    def test_games_of_a_batch_are_a_function_of_seed_and_step(self):
        assert (batch(TINY, 3).tokens == batch(TINY, 3).tokens).all()
        assert (batch(TINY, 3).tokens != batch(TINY, 4).tokens).any()
        assert batch(with_fields(TINY, targets="moves"), 3).likely is None


class TestCases:
    def test_the_flipped_board_has_other_legal_moves(self):
        cases = random_cases(Board(6), 50, torch.Generator().manual_seed(0))
        assert (cases.before != cases.after).any(-1).all()
        assert cases.after.any(-1).all()
        assert (cases.old + cases.new == MINE + THEIRS).all()
        assert (cases.last >= SHORTEST - 1).all()

    def test_a_case_is_what_the_rules_say_of_its_history(self):
        cases = random_cases(Board(6), 20, torch.Generator().manual_seed(1))
        rulebook = logits_at_last(Rulebook(6), cases)
        assert (flip_scores(rulebook, cases._replace(after=cases.before)).error == 0).all()
        null = flip_scores(rulebook, cases)
        assert null.error.mean() > 0.5
        assert (null.error % 2 == 0).all()
        assert (null.lost_out_of_top[~null.lost_out_of_top.isnan()] < 1).any()

    def test_predictions_for_the_changed_board_have_no_error(self):
        cases = random_cases(Board(6), 20, torch.Generator().manual_seed(1))
        found = flip_scores(torch.where(cases.after, 0.0, -20.0), cases)
        assert found.error.sum() == 0
        assert found.divergence.abs().max() < 1e-5
        assert found.gained_in_top.nanmean() == 1
        assert found.lost_out_of_top.nanmean() == 1

    def test_erased_squares_are_empty(self):
        cases = erased(random_cases(Board(6), 50, torch.Generator().manual_seed(0)))
        disc = np.left_shift(np.uint64(1), cases.square.numpy().astype(np.uint64))
        assert not ((cases.own | cases.other) & disc).any()
        assert (cases.new == EMPTY).all()

    def test_a_published_case_is_read_and_a_wrong_one_told(self, tmp_path):
        history = [19, 18, 17]  # d3 c3 b3: c4, taken by the second move, is black again or not, by the rules
        games, _ = replay(Board(8), np.array([history], np.int8))
        black, _ = (int(each[0, 3]) for each in games.colours())
        square = next(Board(8).squares(black))
        row = {"history": history, "pos_int": square, "ori_color": 2.0}
        (tmp_path / "cases.json").write_text(json.dumps([row]))
        cases = read_cases(tmp_path / "cases.json", Board(8))
        assert (int(cases.square), int(cases.last)) == (square, 2)
        assert len(cases_of(Board(8), [{**row, "ori_color": 1}]).last) == 1  # as signs
        with pytest.raises(UserError, match="it is black"):
            cases_of(Board(8), [{**row, "ori_color": 0}])
        with pytest.raises(UserError, match="is not legal"):
            cases_of(Board(8), [{**row, "history": [0]}])
        (tmp_path / "other.json").write_text('{"a": 1}')
        with pytest.raises(UserError, match="history"):
            read_cases(tmp_path / "other.json", Board(8))


class TestInterventions:
    def test_adding_moves_what_the_probe_reads_and_only_at_the_last_position(self):
        model, board = model_with_random_weights(), Board(4)
        probes = probe_board(TINY, reader(model), ("mover",)).probes
        cases = random_cases(board, 5, torch.Generator().manual_seed(0))
        edits = edits_of(WAYS["add"], probes["mover"], cases, (1,), 50.0, torch.Generator())
        site = sites_of(model)[-1]
        x = model.run(cases.tokens, keep=site, edits=edits).cache[site]
        at = torch.arange(5)
        said = probes["mover"].at(3).logits(x[at, cases.last][None])[0].argmax(-1)[at, cases.square]
        assert (said == cases.new).all()
        untouched = model.run(cases.tokens, keep=site).cache[site]
        assert (x[at, cases.last] != untouched[at, cases.last]).any(-1).all()
        x[at, cases.last] = untouched[at, cases.last]
        assert (x == untouched).all()

    def test_reflecting_at_once_the_distance_turns_the_margin(self):
        model = model_with_random_weights()
        probes = probe_board(TINY, reader(model), ("mover",)).probes
        cases = random_cases(Board(4), 8, torch.Generator().manual_seed(0))
        site, at = sites_of(model)[2], torch.arange(8)

        def margins(edits):
            x = model.run(cases.tokens, keep=site, edits=edits).cache[site][at, cases.last]
            logits = probes["mover"].at(2).logits(x[None])[0][at, cases.square]
            return logits[at, cases.new] - logits[at, cases.old]

        before = margins([])
        after = margins(edits_of(WAYS["reflect"], probes["mover"], cases, (0,), 1.0, torch.Generator()))
        torch.testing.assert_close(after, before.abs(), atol=1e-4, rtol=1e-4)

    def test_the_rules_never_leave_the_board_and_know_no_order(self):
        cases = own_board(random_cases(Board(6), 20, torch.Generator().manual_seed(0)))
        assert rolled_out(Rulebook(6), cases, plies=6) == 0
        found = transpositions(with_fields(Config(), size=6), Rulebook(6), n=50)
        assert found.n > 10
        assert found.first_choice_differs == 0
        assert 0.3 < found.control < 1

    def test_a_model_of_noise_leaves_it_soon(self):
        cases = own_board(random_cases(Board(4), 20, torch.Generator().manual_seed(0)))
        assert rolled_out(model_with_random_weights(), cases, plies=5) > 0.5


class TestParts:
    def test_an_even_head_takes_no_side(self):
        arch = arch_of(6)
        weights = {
            name: torch.zeros_like(w) if name.endswith(("W_Q", "W_K")) else w
            for name, w in init_weights(arch, torch.Generator().manual_seed(0)).items()
        }
        heads = heads_of(with_fields(Config(), size=6), Transformer(arch, weights), n=20)
        assert heads.most_sided() == 0
        assert heads.share.min() > 0.4

    def test_a_planted_neuron_is_found(self):
        config = with_fields(Config(), size=6)
        arch = arch_of(6)
        weights = init_weights(arch, torch.Generator().manual_seed(0))
        model = Transformer(arch, weights)
        found = neurons_of(config, model, "placed", n=40)
        assert found.mean() > found.shuffled - 0.05
        assert len(found.best) == 32


class TestPublishedFiles:
    @staticmethod
    def as_mingpt(model):
        """The weights of a model of ours in minGPT's names and axes."""
        arch, w = model.arch, model.state
        flat = {"query": "Q", "key": "K", "value": "V"}
        named = {
            "tok_emb.weight": w["embed.W_E"],
            "pos_emb": w["pos_embed.W_pos"][None],
            "ln_f.weight": w["ln_final.w"],
            "ln_f.bias": w["ln_final.b"],
            "head.weight": w["unembed.W_U"].T,
        }
        for i in range(arch.n_layers):
            b = f"blocks.{i}."
            for name, x in flat.items():
                named[f"{b}attn.{name}.weight"] = w[f"{b}attn.W_{x}"].transpose(1, 2).flatten(0, 1)
                named[f"{b}attn.{name}.bias"] = w[f"{b}attn.b_{x}"].flatten()
            named[f"{b}attn.proj.weight"] = w[f"{b}attn.W_O"].flatten(0, 1).T
            named[f"{b}attn.proj.bias"] = w[f"{b}attn.b_O"]
            named[f"{b}attn.mask"] = torch.ones(1, 1, 4, 4)
            for j, part in ((0, "in"), (2, "out")):
                named[f"{b}mlp.{j}.weight"], named[f"{b}mlp.{j}.bias"] = w[f"{b}mlp.W_{part}"].T, w[f"{b}mlp.b_{part}"]
            for ln in ("ln1", "ln2"):
                named[f"{b}{ln}.weight"], named[f"{b}{ln}.bias"] = w[f"{b}{ln}.w"], w[f"{b}{ln}.b"]
        return {name: x.contiguous() for name, x in named.items()}

    def test_mingpt_weights_give_the_same_logits(self, tmp_path):
        model = model_with_random_weights()
        arch, weights = of_mingpt(self.as_mingpt(model), 2)
        tokens = torch.randint(1, 13, (3, 8))
        assert torch.equal(Transformer(arch, weights).run(tokens).logits, model.run(tokens).logits)
        save_file(self.as_mingpt(model), tmp_path / "gpt.safetensors")
        config = with_fields(TINY, model=str(tmp_path / "gpt.safetensors"))
        assert torch.equal(model_of(config, silent).run(tokens).logits, model.run(tokens).logits)

    def test_transformer_lens_weights_are_read(self, tmp_path):
        model = model_with_random_weights()
        save_file(dict(model.state), tmp_path / "lens.safetensors")
        tokens = torch.randint(1, 13, (3, 8))
        found = model_of(with_fields(TINY, model=str(tmp_path / "lens.safetensors")), silent)
        torch.testing.assert_close(found.run(tokens).logits, model.run(tokens).logits)

    def test_another_board_and_a_pickle_are_refused(self, tmp_path):
        model = model_with_random_weights()
        save_file(dict(model.state), tmp_path / "lens.safetensors")
        with pytest.raises(BadConfig, match="--size"):
            model_of(with_fields(TINY, size=6, model=str(tmp_path / "lens.safetensors")), silent)
        torch.save(dict(model.state), tmp_path / "lens.pth")
        with pytest.raises(PickleRefused):
            model_of(with_fields(TINY, model=str(tmp_path / "lens.pth")), silent)
        allowed = with_fields(TINY, model=str(tmp_path / "lens.pth"), allow_pickle=True)
        assert model_of(allowed, silent).arch.n_layers == 2

    def test_probes_of_another_width_are_told(self, tmp_path):
        torch.save(torch.zeros(3, 16, 4, 4, 3), tmp_path / "probe.pth")
        with pytest.raises(PickleRefused):
            read_probes(tmp_path / "probe.pth", TINY, 16)
        allowed = with_fields(TINY, allow_pickle=True)
        assert read_probes(tmp_path / "probe.pth", allowed, 16).shape == (3, 16, 16, 3)
        with pytest.raises(BadShape, match="modes, 8, 4, 4, 3"):
            read_probes(tmp_path / "probe.pth", allowed, 8)


@pytest.fixture(scope="module")
def done(run_once):
    return run_once(run, with_fields(TINY, steps=20, dictionary_steps=20))


class TestTheWhole:
    def test_a_run_has_every_measure_and_every_claim(self, done):
        assert done.status == "finished"
        assert {each.verdict for each in done.claims} == {"not run"}
        missing = {each.claim.id for each in done.claims if each.measured is None}
        assert not {each for each in missing if not each.endswith("-follows")}  # it errs on its own board as much
        assert {figure.group for figure in done.figures} >= {"What probes read", "Flipped squares", "Training"}
        assert (done.path / "probes.safetensors").is_file()

    def test_every_figure_names_claims_that_there_are(self, done):
        known = {each.claim.id for each in done.claims}
        assert not {claim for figure in done.figures for claim in figure.claims} - known

    def test_presets_are_known_by_their_choices(self):
        assert [preset_of(make()) for make in (paper, quick, tiny)] == ["paper", "quick", "tiny"]
        assert preset_of(with_fields(quick(), model="shipped", seed=3)) == "quick"
        with pytest.raises(BadConfig, match="size must be 4, 6 or 8"):
            with_fields(quick(), size=5)


def test_a_move_can_be_written_in_words():
    model = model_with_random_weights(6)
    assert add("L0.resid_post", torch.zeros(16)).site in model.sites


def test_a_published_probe_is_told_by_what_it_reads(monkeypatch):
    """Activations that are the mover's board itself, at the third site, and a probe whose classes stand otherwise."""
    config = with_fields(TINY, test_games=20)
    model, board = model_with_random_weights(), Board(4)
    site, order = 2, [2, 0, 1]  # theirs, empty, mine

    def read(tokens):
        whole = torch.nn.functional.pad(tokens, (0, 1))
        games, _ = replay(board, squares_of(board, whole))
        own, other = (unpack(np.ascontiguousarray(each[:, 1:]), board) for each in (games.own, games.other))
        one_hot = np.stack([~(own | other), own, other], -1).astype(np.float32)[:, : tokens.shape[1]]
        x = torch.zeros(4, *tokens.shape, 48)
        x[site] = torch.from_numpy(one_hot.reshape(*tokens.shape, 48))
        return x

    monkeypatch.setattr(published_probes, "reader", lambda model: read)
    weight = torch.eye(48).view(48, 16, 3)[..., order]
    found = judge_probes(config, model, weight[None])
    assert found.modes == [published_probes.PublishedProbe("mode 0", "mover", (2, 0, 1), site, 1.0, 1.0)]
    assert (found.colour, found.empty) == (None, None)


def test_even_and_odd_modes_are_joined_and_compared():
    model = model_with_random_weights()
    fitted = probe_board(TINY, reader(model), ("even", "odd")).probes
    modes = torch.stack([fitted[name].directions[2] for name in ("even", "odd")])
    found = judge_probes(TINY, model, modes)
    assert found.modes[-1].mode in ("mode 1", published_probes.BOTH)
    if found.colour is not None:
        assert -1 <= found.colour <= 1


def test_the_shipped_model_plays_by_the_rules():
    model = model_of(with_fields(quick(), model="shipped"), silent)
    judged = predicted(unseen_games(quick(), 30, sample=70))
    found = scores_of(model.run(judged.tokens).logits, judged)
    assert found.legal_rate > 0.98
    assert found.excess_nats < 0.12
    assert model.to_str_tokens(model.to_tokens("b3 b4 b5")[0])[-1].strip() == "b5"
    with pytest.raises(BadConfig, match="board of 6x6"):
        model_of(with_fields(quick(), model="shipped", size=8), silent)


class TestWhatAMoveDependsOn:
    def test_a_disc_matters_where_its_flip_makes_the_move_illegal(self):
        games = games_of(6, 10)
        ply = np.full(10, 12)
        cases = every_disc(games, ply)
        assert len(cases.last) == np.bitwise_count(games.own[:, 12] | games.other[:, 12]).sum()
        logits = logits_at_last(Rulebook(6), cases)
        assert ((logits > -1) == cases.before).all()
        assert (cases.after != cases.before).any()

    def test_the_area_is_one_where_saliency_is_what_matters(self):
        cases = every_disc(games_of(6, 5), np.full(5, 12))
        matters = torch.arange(len(cases.last)) % 3 == 0
        assert Saliency(cases, cases.square, matters.double(), matters).area() == 1
        assert Saliency(cases, cases.square, -matters.double(), matters).area() == 0
        assert Saliency(cases, cases.square, torch.zeros(len(matters)), matters).area() == 0.5

    def test_discs_that_were_just_flipped(self):
        cases = random_cases(Board(6), 30, torch.Generator().manual_seed(2), just_flipped=True)
        games, _ = replay(Board(6), squares_of(Board(6), torch.nn.functional.pad(cases.tokens, (0, 1))))
        at = np.arange(30)
        flips = games.flips[at, cases.last.numpy()]
        assert (flips >> cases.square.numpy().astype(np.uint64) & np.uint64(1)).all()
        assert (cases.old == THEIRS).all()  # the last mover's, who is the other now
