"""Several squares at once, the board of other rules, and board against patterns, on what is known."""

import numpy as np
import pytest
import torch
from tiny_board import random_probe, tiny_model

from micrographia.core.claims import median_interval
from micrographia.core.config import with_fields
from micrographia.core.errors import BadConfig
from micrographia.core.events import silent
from micrographia.labs.othello.cases import random_cases
from micrographia.labs.othello.config import Config, tiny
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.engine.games import random_games, replay
from micrographia.labs.othello.engine.rules import Rules, unpack
from micrographia.labs.othello.flips import RANDOM, WAYS, edits_of, flip_scores
from micrographia.labs.othello.intervene import ON_ITS_OWN, UNTOUCHED, FlipResult, closed
from micrographia.labs.othello.legality import Position, compared, legality
from micrographia.labs.othello.published import model_of
from micrographia.labs.othello.reading import JUDGED_ON, labelled, over_games, reader, sites_of, where_rules_differ
from micrographia.labs.othello.run import run
from micrographia.labs.othello.studied import studied
from micrographia.labs.othello.task import MINE, OTHER_RULES, PATTERNS, THEIRS, labels_of, squares_of, targets_of
from micrographia.methods.probes.probe import ProbeLayer, Probes, ProbeTarget, SiteProbes
from micrographia.methods.probes.score import score_probes

SMALL = with_fields(tiny(), probe_games=40, test_games=20, steps=2, n_latents=0, cases=20, tuning_cases=10)


def drawn(squares, n=40):
    return random_cases(Board(6), n, torch.Generator().manual_seed(3), squares=squares)


class TestSeveralSquares:
    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_so_many_discs_and_no_other_change_their_colour(self, n):
        cases = drawn(n)
        assert (np.bitwise_count(cases.discs) == n).all()
        before = cases.own ^ cases.discs, cases.other ^ cases.discs
        assert ((before[0] & before[1]) == 0).all()
        assert ((before[0] | before[1]) == (cases.own | cases.other)).all()
        legal = unpack(Rules(Board(6), len(cases.own)).legal(*before), Board(6))[:, list(Board(6).playable)]
        assert (torch.from_numpy(legal) == cases.before[:, 1:]).all()

    def test_each_square_is_told_with_what_stands_there(self):
        cases = drawn(3)
        told = cases.one_by_one()
        assert len({tuple(each.square.tolist()) for each in told}) == 3
        for each in told:
            disc = np.left_shift(np.uint64(1), each.square.numpy().astype(np.uint64))
            mine_now = torch.from_numpy((cases.own & disc) != 0)
            assert (each.new == torch.where(mine_now, MINE, THEIRS)).all()
            assert (each.old + each.new == MINE + THEIRS).all()

    def test_the_first_of_several_is_that_of_one(self):
        one, three = drawn(1), drawn(3)
        same = [i for i in range(40) if (three.tokens == one.tokens[i]).all(1).any()]
        assert len(same) > 10
        at = [int((three.tokens == one.tokens[i]).all(1).nonzero()[0]) for i in same]
        assert (three.square[at] == one.square[same]).all()

    def test_the_directions_are_added(self):
        model = tiny_model(6)
        probe, site = random_probe(model, Board(6)), sites_of(model)[-1]
        cases = drawn(2, 6)

        def moved(cases):
            edits = edits_of(WAYS["add"], probe, cases, (1,), 3.0, torch.Generator())
            return model.run(cases.tokens, keep=site, edits=edits).cache[site]

        untouched = model.run(cases.tokens, keep=site).cache[site]
        alone = [each._replace(also=each.also[:, :0]) for each in cases.one_by_one()]
        torch.testing.assert_close(moved(cases) - untouched, sum(moved(each) - untouched for each in alone))


class TestTheShareTakenAway:
    def results(self, n=40):
        cases = drawn(1, n)
        perfect, untouched = torch.where(cases.after, 0.0, -20.0), torch.where(cases.before, 0.0, -20.0)
        null = FlipResult(UNTOUCHED, flip_scores(untouched, cases))
        own = FlipResult(ON_ITS_OWN, flip_scores(untouched, cases._replace(after=cases.before)))
        half = torch.where((torch.arange(n) % 2 == 0)[:, None], perfect, untouched)
        ways = {"all": perfect, "none": untouched, "half": half, f"none, {RANDOM}": untouched}
        return [null, own, *(FlipResult(name, flip_scores(x, cases)) for name, x in ways.items())]

    def test_all_none_and_half(self):
        found = {name: closed(self.results(), name) for name in ("all", "none", "half", f"none, {RANDOM}")}
        assert found["all"][:3] == (1, 1, 1)
        assert found["none"][:3] == found[f"none, {RANDOM}"][:3] == (0, 0, 0)
        assert 0.3 < found["half"].low < found["half"].estimate < found["half"].high < 0.8

    def test_what_has_no_value_has_no_ends(self):
        results = self.results()
        own = next(each for each in results if each.name == ON_ITS_OWN)
        assert closed([own._replace(name=UNTOUCHED), *results[1:]], "all").ends() is None

    def test_accuracy_over_games_is_that_over_plies(self):
        model = tiny_model()
        probe, read = random_probe(model).at(2), reader(model, 2)
        found = over_games(SMALL, read, probe)
        rows = labelled(SMALL, read, JUDGED_ON, SMALL.probing.test_games, ("mover",))
        by_ply = score_probes(Probes({"mover": probe}), rows, n_groups=SMALL.n_ctx)["mover"]
        assert found.low < found.estimate < found.high
        assert found.estimate == pytest.approx(float(by_ply.accuracy()[0]))
        assert set(found.ends()) == set(median_interval([1.0]))


class TestOtherRules:
    def test_labels_of_other_rules_differ_where_a_run_has_a_middle(self):
        own, six = (random_games(Board(size), 30, torch.Generator().manual_seed(0)) for size in (4, 6))
        for games, least in ((own, 0), (six, 0.001)):
            labels = labels_of(games, ("mover", OTHER_RULES))
            there = labels["mover"] >= 0
            assert (labels[OTHER_RULES] >= 0).equal(there)
            share = (labels[OTHER_RULES] != labels["mover"])[there].double().mean()
            assert share >= least
            assert (share == 0) == (games.board.size == 4)

    def test_a_reading_of_its_own_rules_is_told_from_one_of_others(self):
        """Activations that are the board itself; probes that read it as it is, both with its own labels in mind."""
        config = with_fields(SMALL, size=6)
        board, eye = config.board, torch.eye(108).reshape(1, 108, 108)
        probe = SiteProbes(ProbeTarget(36, 3), ProbeLayer(eye, torch.zeros(1, 108)))

        def read(tokens):
            games, _ = replay(board, squares_of(board, torch.nn.functional.pad(tokens, (0, 1))))
            own, other = (torch.from_numpy(unpack(each[:, 1:], board)) for each in (games.own, games.other))
            return torch.stack([~(own | other), own, other], -1).float()[None, :, : tokens.shape[1]].flatten(-2)

        found = where_rules_differ(config, read, Probes({"mover": probe, OTHER_RULES: probe}))
        assert (float(found["mover"]), float(found[OTHER_RULES])) == (1, 0)

    def test_patterns_have_a_label_each(self):
        games = random_games(Board(4), 50, torch.Generator().manual_seed(0))
        labels = labels_of(games, (PATTERNS,))[PATTERNS]
        assert labels.shape[-1] == targets_of(games.board, (PATTERNS,))[PATTERNS].n_items == 56
        assert labels.unique().tolist() == [-1, 0, 1]

    def test_no_run_of_a_small_board_has_a_middle(self):
        with pytest.raises(BadConfig, match="size of 6 or 8"):
            with_fields(Config(), size=4, flanked="ends")

    def test_a_run_of_a_variant_is_read_by_its_own_rules_alone(self, tmp_path):
        config = with_fields(SMALL, flanked="removed")
        done = run(config, out=tmp_path / "run")
        assert done.status == "finished"
        found = model_of(with_fields(config, model=str(done.path)), silent)
        assert found.shape.d_vocab == 17
        with pytest.raises(BadConfig, match="--flanked removed"):
            model_of(with_fields(SMALL, model=str(done.path)), silent)
        with pytest.raises(BadConfig, match="variant"):
            studied(str(done.path))


class TestBoardOrPatterns:
    """Two readings that disagree about planted squares, and models that follow the one or the other."""

    def position(self, follow):
        draw = np.random.default_rng(0)
        legal = np.zeros((400, 12), bool)
        legal[:, :4] = True
        by_board, by_patterns = legal.copy(), legal.copy()
        odd = np.flatnonzero(draw.random(400) < 0.3)
        by_board[odd, 3] = False  # the board errs: a legal square is not
        by_patterns[odd, 5] = True  # and the patterns err: one that is not legal is
        ranked = {"board": by_board, "patterns": by_patterns, "truth": legal}[follow]
        return Position(legal, ranked, ranked / 4, np.arange(400) // 10, np.arange(400) % 10), by_board, by_patterns

    @pytest.mark.parametrize(("follow", "share"), [("board", 1), ("patterns", 0), ("truth", 0.5)])
    def test_what_is_followed_is_found(self, follow, share):
        at, by_board, by_patterns = self.position(follow)
        found = compared(at, by_board, by_patterns, np.zeros(400, int))
        assert found.follows_board == share
        assert found.board_right == 0.5
        assert found.beyond.estimate == share - 0.5
        assert found.beyond.low <= found.beyond.estimate <= found.beyond.high
        assert found.first_choice == 1
        assert (found.with_board, found.with_patterns) == (follow == "board", follow == "patterns")
        assert 0.2 < found.differs < 0.4
        assert found.null == 0.5  # where they agree, the one square is ranked and the other is not

    def test_kinds_tell_which_of_them_calls_a_square_legal(self):
        at, by_board, by_patterns = self.position("patterns")
        board, patterns = compared(at, by_board, by_patterns, np.zeros(400, int)).kinds
        assert (board["by_board"], board["n"]) == (True, 0)
        assert np.isnan(board["ranked"])
        assert (patterns["by_board"], patterns["legal"], patterns["ranked"], patterns["null"]) == (False, 0.5, 1, 0.5)
        assert (patterns["ranked_legal"], patterns["ranked_illegal"], patterns["probability"]) == (1, 1, 1)

    def test_patterns_learn_to_choose_better_than_chance(self):
        model = tiny_model()
        config = with_fields(SMALL, probe_games=200)
        found = legality(config, model, random_probe(model), 3, 2_000, silent)
        assert set(found.found) == {"activations", "moves"}
        assert found.found["moves"].first_choice > found.chance + 0.1
        assert [row["patterns"] for row in found.rows()] == ["activations"] * 2 + ["moves"] * 2
