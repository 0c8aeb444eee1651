"""Three networks built by hand pin the sign and the scale of every measure of methods/lookup."""

import dataclasses
import math

import pytest
import torch

from micrographia.core.shuffled import shuffled_mlps
from micrographia.core.sites import Site
from micrographia.core.small.transformer import Transformer
from micrographia.methods.lookup.bagging import bagging, votes
from micrographia.methods.lookup.best_neuron import best_neurons
from micrographia.methods.lookup.capacity import bits_stored
from micrographia.methods.lookup.cells import entity_cells
from micrographia.methods.lookup.embedding import (
    embedding_probes,
    probe_directions,
    weight_probe,
    weight_probe_accuracy,
)
from micrographia.methods.lookup.facts import at_subjects, outcome
from micrographia.methods.lookup.grid import and_fraction, interaction_fractions, nonlinear_excess, on_grid, swap_ratio
from micrographia.methods.lookup.handmade import SURE, additive, conjunctions, hashed
from micrographia.methods.lookup.mlp_paths import mlp_paths
from micrographia.methods.lookup.neurons import neuron_effects, random_rotations
from micrographia.methods.lookup.norms import norm_gaps
from micrographia.methods.lookup.replace import replaced, table_of
from micrographia.methods.lookup.sharing import shared_neurons
from micrographia.methods.lookup.spread import over_facts, over_neurons

SIZES = [3, 4]
F, L = 5, 6
N = F * L


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


AND, A_FACT, HASH, SUM = (
    conjunctions(F, L, SIZES, drawn()),
    conjunctions(F, L, SIZES, drawn(), a_fact_each=True),
    hashed(F, L, SIZES, drawn()),
    additive(F, L, SIZES, drawn()),
)
ALL = {"conjunctions": AND, "a fact each": A_FACT, "hashed": HASH, "additive": SUM}


def directions(made):
    return made.model.weights.W_U[:, made.facts.first.options].T


@pytest.mark.parametrize("made", ALL.values(), ids=ALL)
def test_each_knows_its_facts(made):
    assert outcome(made.model, made.facts).accuracy.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("made", "fraction"), [(AND, 1.0), (HASH, 1.0), (SUM, 0.0)])
def test_interaction_is_all_of_a_conjunction_and_none_of_a_sum(made, fraction):
    found = interaction_fractions(made.model, made.facts, "L0.*")
    assert found[Site("neurons", 0)] == pytest.approx(fraction, abs=1e-5)
    assert found[Site("mlp_pre", 0)] == pytest.approx(0, abs=1e-5)  # before the threshold the names only add up
    assert swap_ratio(on_grid(SUM.model, SUM.facts, "L0.mlp_out")[Site("mlp_out", 0)], drawn()) < 1e-4


def test_the_excess_of_a_conjunction_is_its_height_at_its_own_pair():
    excess = nonlinear_excess(on_grid(AND.model, AND.facts, "L0.neurons")[Site("neurons", 0)]).flatten(0, 1)
    torch.testing.assert_close(excess.diagonal(), torch.ones(N))


@pytest.mark.parametrize(("made", "share"), [(AND, 1.0), (A_FACT, 1.0), (HASH, 0.0)])
def test_output_neurons_make_the_conjunction_or_read_it(made, share):
    layers = list(range(made.model.shape.n_layers))
    found = and_fraction(made.model, made.facts, directions(made), layers=layers)
    assert found.nanmedian().item() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(("made", "own"), [(AND, 1.0), (A_FACT, 0.0), (HASH, 1.0)])
def test_facts_share_neurons_where_a_neuron_stands_for_the_subject(made, own):
    (found,) = shared_neurons(neuron_effects(made.model, made.facts), drawn())
    assert found.mean == pytest.approx(own, abs=0.05)
    assert abs(float(found.null.mean())) < 0.1
    assert (found.p_value < 0.01) == (own == 1.0)


def test_a_fact_in_one_neuron_is_the_least_spread_and_a_rotation_spreads_it():
    effects = neuron_effects(AND.model, AND.facts)
    here = over_neurons(effects)[0]
    torch.testing.assert_close(here.participation, torch.ones(N).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(here.top, torch.ones(N).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(here.gini, torch.full((N,), 1 - 1 / N).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(over_facts(effects)[0].participation, torch.ones(N).double(), atol=1e-2, rtol=0)
    turned = neuron_effects(AND.model, AND.facts, rotations=random_rotations(1, N, drawn()))
    assert over_neurons(turned)[0].participation.median() > 2
    two = over_neurons(neuron_effects(HASH.model, HASH.facts))[0]
    torch.testing.assert_close(two.participation, torch.full((N,), 2.0).double(), atol=1e-2, rtol=0)


def test_every_subject_has_its_cell_where_one_neuron_holds_it_and_none_in_a_sum():
    cells = entity_cells(neuron_effects(AND.model, AND.facts))[0]
    assert cells.share_alone == cells.share_lost == 1.0
    assert cells.best.tolist() == list(range(N))
    assert entity_cells(neuron_effects(SUM.model, SUM.facts))[0].share_lost < 0.5


def test_an_ablated_cell_leaves_a_guess():
    effects = neuron_effects(AND.model, AND.facts)
    mean = SURE / N  # the neuron's mean over the subjects, through its weight: the answer keeps that logit
    guess = mean - math.log(math.exp(mean) + SIZES[0] - 1)
    torch.testing.assert_close(effects.change[0, 0].diagonal(), torch.full((N,), guess), rtol=1e-4, atol=1e-4)


def test_the_path_between_mlps_is_all_where_a_code_is_looked_up():
    paths = mlp_paths(HASH.model, HASH.facts)
    assert paths.accuracy[0, 0, 1] < 0.6
    assert paths.loss[0, 0, 1] > 0.5
    assert paths.divergence[0, 0, 1] > 0.5
    assert torch.isnan(paths.loss[0, 1, 0])
    assert paths.clean.accuracy.tolist() == [1.0, 1.0]
    state = dict(AND.model.state) | {
        name.replace("blocks.0", "blocks.1"): torch.zeros_like(w)
        for name, w in AND.model.state.items()
        if name.startswith("blocks.0")
    }
    idle = Transformer(dataclasses.replace(AND.model.arch, n_layers=2), state)
    assert mlp_paths(idle, AND.facts).divergence[0, 0, 1] == pytest.approx(0, abs=1e-6)


def test_a_probe_of_the_pair_beats_the_floors_only_where_the_pair_was_looked_up():
    made = conjunctions(12, 12, [3, 2], drawn(1))
    null = shuffled_mlps(made.model, drawn(2))
    found = embedding_probes(made.model, made.facts, drawn(), sites="L0.resid_*", untrained=null)
    before, after = found.accuracy.mean(-1)[:, 0].tolist()
    assert before < 0.55
    assert after == pytest.approx(1.0, abs=0.02)
    assert found.shuffled.mean() < 0.6
    assert found.additive[0].mean() < 0.55
    assert found.majority[0].mean() < 0.55
    assert found.untrained is not None
    assert found.untrained.mean(-1)[1, 0] < 0.6
    assert found.selectivity[1, 0] > 0.4


def test_a_probe_of_a_sum_is_its_additive_floor():
    made = additive(12, 12, [3], drawn(1))
    found = embedding_probes(made.model, made.facts, drawn(), sites="L0.resid_pre")
    assert abs(found.accuracy.mean() - found.additive.mean()) < 0.1
    assert found.additive.mean() > 0.75


def test_the_weights_own_probe_reads_the_answers():
    stream = at_subjects(AND.model, AND.facts, "L0.resid_*")
    probe = weight_probe(AND.model, AND.facts.first)
    assert weight_probe_accuracy(stream[Site("resid_post", 0)], probe, AND.facts.first) == 1.0
    assert weight_probe_accuracy(stream[Site("resid_pre", 0)], probe, AND.facts.first) < 0.7


def test_a_table_answers_for_the_stream_and_its_probe_directions_do():
    site = Site("resid_post", 0)
    table = table_of(AND.model, [AND.facts, AND.facts], site)
    found = replaced(AND.model, AND.facts, site, table, probe_directions(AND.model, AND.facts, site), drawn())
    assert found.rank == sum(SIZES) - len(SIZES)
    torch.testing.assert_close(found.table.nats, found.clean.nats)
    assert found.projected.accuracy.min() > 0.95
    assert found.random.accuracy.max() < 0.9
    assert found.shuffled.accuracy.max() < 0.7
    assert found.mean.accuracy.max() < 0.7


def test_known_pairs_write_more_where_their_neurons_alone_fire():
    known = torch.arange(N) % 2 == 0
    state = dict(AND.model.state)
    state["blocks.0.mlp.W_out"] = state["blocks.0.mlp.W_out"] * known[:, None]
    (gap,) = norm_gaps(Transformer(AND.model.arch, state), AND.facts, known, drawn()).values()
    assert gap.area == 1.0
    assert gap.unknown == 0.0
    assert gap.p_value < 0.01
    (none,) = norm_gaps(AND.model, AND.facts, known, drawn()).values()
    assert none.area == 0.5


def test_the_best_neuron_of_a_sum_of_cells_is_no_better_than_chance():
    found = best_neurons(AND.model, AND.facts, drawn())[0]
    counts = AND.facts.first.answer.bincount(minlength=SIZES[0])
    torch.testing.assert_close(found.best, 0.5 + 0.5 / counts)
    assert found.p_value.min() > 0.5
    assert found.where[0][0] == 0
    told = best_neurons(AND.model, AND.facts, drawn(), layers=[0])[1]
    assert told.null.shape == (200, SIZES[1])


def test_accuracy_falls_with_the_neurons_that_are_dropped_and_groups_err_apart():
    made = conjunctions(10, 10, SIZES, drawn())
    found = bagging(made.model, made.facts, drawn(), shares=(0.0, 0.5, 1.0), draws=3).accuracy.mean((1, 2))
    assert found[2] == 1.0
    assert found[0] < 0.5
    assert found[0] < found[1] < found[2]
    groups = votes(made.model, made.facts, drawn(), groups=2)
    assert groups.error_correlation.max() < 0  # what one group holds, the other lacks
    assert bool(groups.right.any(0).all())


def test_a_network_sure_of_its_facts_stores_their_logarithm():
    found = bits_stored(AND.model, AND.facts)
    assert found.bits.tolist() == pytest.approx([N * math.log2(size) for size in SIZES], rel=1e-4)
    assert found.parameters > found.inner
    lost = bits_stored(shuffled_mlps(AND.model, drawn()), AND.facts)
    assert lost.bits.sum() < found.bits.sum() / 2
    rated = bits_stored(AND.model, AND.facts, base_rate=True)
    assert rated.bits.sum() < found.bits.sum()
