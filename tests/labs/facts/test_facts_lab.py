"""The facts lab: its world and sequences, its arms, what is read off known networks, and a Run from end to end."""

import numpy as np
import pytest
import torch

from micrographia.core.claims import Measured, load_claims
from micrographia.core.config import with_fields
from micrographia.core.errors import BadConfig
from micrographia.core.runtime import generator
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import read_metrics
from micrographia.core.training import Layout
from micrographia.labs.facts.battery import by_single_neurons, fractions, of_stack
from micrographia.labs.facts.config import Config, paper, preset_of, quick, tiny
from micrographia.labs.facts.hypotheses import HYPOTHESES, hypotheses, verdict
from micrographia.labs.facts.localise import ASKED, FIRST, LAST, boards
from micrographia.labs.facts.measure import CLAIMS
from micrographia.labs.facts.networks import ARMS, arm_of, networks
from micrographia.labs.facts.quantities import above_floor, halfway, plateau
from micrographia.labs.facts.run import run
from micrographia.labs.facts.task import BOS, batch, world_of
from micrographia.labs.facts.train import architecture, objective, recalled, told
from micrographia.methods.lookup.embedding import EmbeddingProbes
from micrographia.methods.lookup.handmade import additive, conjunctions

SMALL = with_fields(tiny(), seeds=1, steps=6, epochs=6, eval_every=3, checkpoint_every=3, threads=1)


def small(**changes):
    return with_fields(SMALL, **changes)


class TestTheWorld:
    def test_names_are_shared_and_some_pairs_are_unknown(self):
        world = world_of(small())
        assert len(world.entities) == 100
        assert len(world.strangers) == 44
        assert int(world.known.sum(0).min()) > 1

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"entities": 95}, "at least 4 times"),
            ({"mlps": 1}, "at least 2"),
            ({"entities": 144}, "some names are unknown"),
            ({"values": (3, 1)}, "two values"),
            ({"rule_p": 1.5}, "rule_p"),
            ({"rules": (0.5, 0.5)}, "differ"),
        ],
    )
    def test_a_world_that_shows_nothing_is_refused(self, changes, said):
        with pytest.raises(BadConfig, match=said):
            small(**changes)

    def test_a_rule_says_the_share_of_facts_that_it_should_and_all_of_unknown_names(self):
        world = world_of(small(rule_p=0.5))
        f, l = world.strangers.T
        rule = world.values[:, f, l]
        for last in range(12):
            assert len({tuple(x) for x in rule[:, l == last].T.tolist()}) <= 1
        assert 0.35 < float(world.ruled[:, world.known].double().mean()) < 0.65
        assert not world.ruled[:, ~world.known].any()

    def test_without_a_rule_last_names_do_not_tell_values(self):
        assert not world_of(small()).ruled.any()

    def test_skewed_exposure_is_what_batches_have(self):
        config = small(zipf=1.5, rows=4_000)
        world = world_of(config)
        tokens = batch(config, world, 0).tokens
        top = world.names(world.entities)[int(world.exposure.argmax())]
        met = (tokens[:, :-1] == top[0]) & (tokens[:, 1:] == top[1])
        assert abs(float(met.any(1).double().mean()) - float(world.exposure.max())) < 0.04

    @pytest.mark.parametrize("changes", [{}, {"order": "fixed"}, {"together": False}, {"filler": 0}])
    def test_sequences_say_what_is_true(self, changes):
        config = small(**changes)
        world = world_of(config)
        text = batch(config, world, 3)
        words = world.vocabulary.words
        truth = {
            tuple(names): answers
            for names, answers in zip(
                world.names(world.entities).tolist(), world.answers(world.entities).T.tolist(), strict=True
            )
        }
        assert text.scored is not None
        for row, scored in zip(text.tokens.tolist(), text.scored.tolist(), strict=True):
            at = next(i for i, token in enumerate(row) if words[token].startswith("first"))
            answers = truth[tuple(row[at : at + 2])]
            facts = scored.index(True)
            assert facts == at + 3
            told_in = [i for i, yes in enumerate(scored) if yes]
            asked = [int(words[row[i - 1]].removeprefix("relation")) for i in told_in]
            assert [row[i] for i in told_in] == [answers[k] for k in asked]
            assert all(token == BOS for token in row[told_in[-1] + 1 :])
            if config.order == "fixed":
                assert asked == [0, 1]

    def test_a_batch_is_a_function_of_seed_and_step(self):
        world = world_of(small())
        assert torch.equal(batch(small(), world, 1).tokens, batch(small(), world, 1).tokens)
        assert not torch.equal(batch(small(), world, 1).tokens, batch(small(), world, 2).tokens)


class TestTheArms:
    def test_every_arm_has_its_networks(self):
        config = small(seeds=2)
        names = networks(config)
        assert {arm_of(name) for name in names} == set(ARMS)
        assert len(names) == 2 * (5 + len(config.rules) + len(config.widths) * len(config.exposures))

    def test_presets_are_told_apart(self):
        assert [preset_of(make()) for make in (quick, tiny, paper)] == ["quick", "tiny", "paper"]
        assert preset_of(with_fields(quick(), seeds=2)) == "custom"
        assert preset_of(Config(world=with_fields(Config().world, zipf=1.0))) == "custom"

    def test_frozen_embeddings_have_no_gradient(self):
        config = small(kind="effective", frozen=True)
        world = world_of(config)
        arch = architecture(config, world)
        layout = Layout(arch.weight_shapes())
        weights = torch.randn(1, sum(layout.sizes), generator=generator(0))
        gradient = layout.views(objective(config, world, arch, "cpu")(weights, 0).gradient)
        assert not gradient["embed.W_E"].any()
        assert gradient["unembed.W_U"].any()


class TestWhatIsMeasured:
    def test_a_network_that_holds_the_facts_is_right_and_one_of_sums_is_not(self):
        hand, sums = (build(4, 5, [3, 4], generator(0)) for build in (conjunctions, additive))
        assert recalled(hand.model, hand.facts).accuracy == 1
        assert recalled(sums.model, hand.facts).accuracy < 0.8
        assert recalled(hand.model, hand.facts).nats < recalled(sums.model, hand.facts).nats

    def test_single_neurons_make_all_in_a_network_of_conjunctions_and_nothing_in_sums(self):
        hand = conjunctions(4, 5, [3, 4], generator(0))
        known = torch.ones(20, dtype=torch.bool)
        assert by_single_neurons(hand.model, hand.facts, [0], known) == pytest.approx(
            1.0, abs=0.2
        )  # other cells add or take a little
        sums = additive(4, 5, [3, 4], generator(0))
        assert max(fractions(sums.model, sums.facts, "resid_post")) < 0.05

    def test_the_battery_finds_entity_cells_where_each_neuron_is_one(self):
        hand = conjunctions(4, 5, [3, 4], generator(0))
        known = torch.arange(20) < 15
        found = of_stack(hand.model, hand.facts, hand.facts, known, generator(1))
        assert found["cells"] > 0.9 > 0.5 > found["cells_null"]
        assert found["participation"] < found["participation_null"]
        assert found["shared"] > 0.9

    def test_the_ends_of_the_map_are_what_they_must_be(self):
        """At the embeddings all hangs on the names, in the end all on the relation's place; in any network."""
        config = small()
        world = world_of(config)
        arch = architecture(config, world)
        model = Transformer(arch, init_weights(arch, generator(0)))
        stream = boards(model, told(config, world, world.entities), 8, generator(0))["stream"]
        assert np.allclose(stream[:, -1, [FIRST, LAST]], 0, atol=1e-5)
        assert np.allclose(stream[:, 0, ASKED], 0, atol=1e-5)
        assert (np.abs(stream[:, -1, ASKED]) > 1e-3).any()

    def test_a_probe_counts_above_its_highest_floor(self):
        accuracy = torch.tensor([[[0.3]], [[0.6]], [[0.9]]])
        read = EmbeddingProbes(
            (), accuracy, accuracy * 0, accuracy * 0 + 0.5, torch.tensor([[0.2]]), torch.tensor([[0.4]])
        )
        assert above_floor(read) == pytest.approx(0.4)
        assert halfway(read) == pytest.approx(0.25)

    def test_a_plateau_is_where_the_loss_stays(self):
        still = {"loss_nats": np.array([4.0, 3.0, 2.05, 2.0, 2.0, 2.0, 1.5, 1.2, 0.9])}
        assert plateau(still, 2.0) == pytest.approx(4 / 8)
        assert plateau({"loss_nats": np.array([4.0, 3.0, 1.5, 0.5])}, 2.0) == 0
        assert np.isnan(plateau({"loss_nats": np.array([4.0, 3.0])}, 2.0))


class TestHypotheses:
    def test_a_hypothesis_falls_only_where_every_network_is_against_it(self):
        bagging = next(each for each in HYPOTHESES if each.name == "bagging")

        def said(low, high):
            return verdict(bagging, Measured({"median": low, "low": low, "high": high}))

        assert said(0.2, 0.4) == "falsified"
        assert said(0.95, 0.99) == "not falsified"
        assert said(0.5, 0.95) == "open: networks differ"
        assert verdict(bagging, Measured(None)) == "not measured"

    def test_nothing_is_said_of_networks_that_learned_nothing(self):
        even = {claim.id: Measured({"median": 0.5, "low": 0.5, "high": 0.5}) for claim in load_claims(CLAIMS)}
        assert {row["verdict"] for row in hypotheses(even)} == {"not judged: the facts were not learned"}
        known = even | {"facts-learned": Measured({"median": 1.0, "low": 1.0, "high": 1.0})}
        assert {row["verdict"] for row in hypotheses(known)} == {"falsified", "not falsified"}

    def test_each_stands_on_a_claim(self):
        assert {each.claim for each in HYPOTHESES} <= {claim.id for claim in load_claims(CLAIMS)}


@pytest.fixture(scope="module")
def done(run_once):
    return run_once(run, SMALL)


class TestARun:
    def test_every_claim_has_its_measure_and_is_not_judged_at_this_size(self, done):
        assert done.status == "finished"
        own = {claim.id for claim in load_claims(CLAIMS) if "real" not in claim.presets}
        assert set(done.results["measured"]) == own
        assert {judged.verdict for judged in done.claims} == {"not run"}

    def test_every_hypothesis_has_its_row(self, done):
        assert [row["hypothesis"] for row in done.results["hypotheses"]] == [each.name for each in HYPOTHESES]

    def test_pictures_have_something_to_show(self, done):
        assert len(done.figures) == 12
        assert not [figure.name for figure in done.figures if figure.is_empty]

    def test_it_says_that_nothing_was_learned(self, done):
        assert "means nothing" in done.summary[0]

    def test_networks_are_runs_and_are_not_trained_again(self, done):
        place = done.path / "networks" / "transformer-seed11"
        before = (place / "run.json").read_bytes()
        assert len(read_metrics(place)["loss_nats"]) == SMALL.steps + 1
        again = run(SMALL, out=done.path, resume=True)
        assert again.results == done.results
        assert (place / "run.json").read_bytes() == before

    def test_hypotheses_read_the_measures_of_the_run(self, done):
        measured = {name: Measured(each["value"], each["null"]) for name, each in done.results["measured"].items()}
        assert hypotheses(measured) == done.results["hypotheses"]
