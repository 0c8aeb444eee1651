"""The battery on models with and without attention: each ablation is what plain Edits make of it, and errors say so."""

import dataclasses
import math

import pytest
import torch

from micrographia.core.edits import apply, mean
from micrographia.core.errors import BadPrompt, BadShape, UserError
from micrographia.core.shuffled import shuffled_mlps
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.tokens import Batch
from micrographia.core.untrained import untrained
from micrographia.methods.lookup.best_neuron import best_neurons
from micrographia.methods.lookup.embedding import embedding_probes, weight_probe
from micrographia.methods.lookup.facts import Relation, at_subjects, facts_of, grid_of, outcome
from micrographia.methods.lookup.grid import (
    interaction_fraction,
    linear_structure,
    nonlinear_excess,
    swap_ratio,
    two_way,
)
from micrographia.methods.lookup.mlp_paths import mlp_paths
from micrographia.methods.lookup.neurons import NeuronEffects, neuron_effects, random_rotations
from micrographia.methods.lookup.norms import norm_gaps
from micrographia.methods.lookup.replace import kept_of, replaced
from micrographia.methods.lookup.ridge import fit_ridge, split_rows
from micrographia.methods.lookup.sharing import shared_neurons
from micrographia.methods.lookup.truncation import truncation
from small import A_FEW, small_model

NAMES, LASTS, BOS, ASK = 3, 3, 6, (7, 8)
SIZES = {"d_vocab": 9, "d_vocab_out": 9, "d_model": 10, "n_heads": 2, "d_head": 4, "d_mlp": 7, "n_layers": 3}
STACK = Architecture(**SIZES, n_ctx=3, attention=False, joined="summed", norm="layernorm", act="gelu")
CAUSAL = Architecture(**SIZES, n_ctx=4, norm="rmsnorm", act="gelu")
DOUBLE = torch.float64


def some_facts(arch: Architecture):
    """Every pair of names; with attention the relation is asked by a token after the names."""
    parts = torch.cartesian_prod(torch.arange(NAMES), torch.arange(LASTS))
    names = torch.stack([parts[:, 0], NAMES + parts[:, 1]], 1)
    front, where = torch.full((9, 1), BOS), torch.full((9,), 2 if arch.attention else 0)
    relations = []
    for k, ask in enumerate(ASK):
        last = torch.full((9, 1), ask if arch.attention else BOS)
        inputs = torch.cat([*([front] if arch.attention else []), names, last], 1)
        answer = torch.randint(0, 3, (9,), generator=torch.Generator().manual_seed(k))
        relations.append(Relation(f"r{k}", inputs, where, torch.arange(3) + 3 * k, answer))
    return facts_of(parts, relations)


@pytest.mark.parametrize("arch", [STACK, CAUSAL], ids=["stack", "causal"])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_each_ablation_is_the_one_that_an_edit_makes(arch, dtype):
    model, facts = small_model(arch, dtype=dtype), some_facts(arch)
    found = neuron_effects(model, facts)
    hidden = at_subjects(model, facts, "L*.neurons")
    clean = outcome(model, facts).nats
    torch.testing.assert_close(found.clean.double(), clean, rtol=1e-5, atol=1e-5)
    tolerance = 1e-9 if dtype == DOUBLE else 1e-5
    for layer in range(3):
        for unit in range(arch.d_mlp):
            site = f"L{layer}.neurons[pos={2 if arch.attention else 0}, unit={unit}]"
            full = hidden[Site("neurons", layer)][:, None].expand(-1, arch.n_ctx, -1)
            plain = outcome(model, facts, lambda relation, site=site, full=full: [mean(site, full)])
            change = found.change[:, layer, unit].double()
            torch.testing.assert_close(change, plain.nats - clean, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("arch", [STACK, CAUSAL], ids=["stack", "causal"])
def test_rotations_move_the_hidden_layer_along_their_directions(arch):
    model, facts = small_model(arch, dtype=DOUBLE), some_facts(arch)
    (turn,) = random_rotations(1, arch.d_mlp, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turn @ turn.T, torch.eye(arch.d_mlp, dtype=DOUBLE))
    found = neuron_effects(model, facts, layers=[1], rotations=[turn])
    h = at_subjects(model, facts, "L1.neurons")[Site("neurons", 1)]
    at = 2 if arch.attention else 0
    away = (h.mean(0) - h) @ turn[:, 4]

    def moved(old):
        old[:, at] += away[:, None] * turn[:, 4]
        return old

    plain = outcome(model, facts, lambda relation: [apply("L1.neurons", moved)])
    torch.testing.assert_close(found.change[:, 0, 4], plain.nats - outcome(model, facts).nats)
    same = neuron_effects(model, facts, rotations=[torch.eye(arch.d_mlp, dtype=DOUBLE)] * 3)
    torch.testing.assert_close(same.change, neuron_effects(model, facts).change)


def test_means_are_those_of_the_reference():
    model, facts = small_model(STACK, dtype=DOUBLE), some_facts(STACK)
    few = facts.rows(torch.arange(4))
    whole = neuron_effects(model, facts)
    torch.testing.assert_close(neuron_effects(model, few, reference=facts).change, whole.change[..., :4])
    assert not torch.allclose(neuron_effects(model, few).change, whole.change[..., :4])


def test_a_path_is_cut_for_its_reader_alone():
    """Without norms the reader's input is the stream less the sender's output, which the formula says."""
    arch = dataclasses.replace(STACK, norm="none")
    model, facts = small_model(arch, dtype=DOUBLE), some_facts(arch)
    out = at_subjects(model, facts, "L0.mlp_out")[Site("mlp_out", 0)]
    moved = (out.mean(0) - out) @ model.weights.W_in[2]
    plain = outcome(model, facts, lambda relation: [apply("L2.mlp_pre", lambda old: old + moved[:, None])])
    paths = mlp_paths(model, facts)
    torch.testing.assert_close(paths.loss[:, 0, 2], plain.loss)
    torch.testing.assert_close(paths.divergence[:, 0, 2], plain.divergence(paths.clean))
    assert bool(torch.isnan(paths.loss[:, 1, 1]).all())
    assert mlp_paths(small_model(CAUSAL), some_facts(CAUSAL), layers=[0, 2]).loss.shape == (2, 2, 2)


def test_the_parts_of_a_grid_sum_to_it_and_the_excess_leaves_its_own_names_out():
    x = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    parts = two_way(x)
    torch.testing.assert_close(parts.mean + parts.first + parts.last + parts.interaction, x)
    other_first, other_last = [i for i in range(4) if i != 1], [i for i in range(5) if i != 3]
    both, neither = x[1, 3], x[other_first][:, other_last].mean((0, 1))
    plain = both - x[other_first, 3].mean(0) - x[1, other_last].mean(0) + neither
    torch.testing.assert_close(nonlinear_excess(x)[1, 3], plain)
    with pytest.raises(BadShape, match="two first"):
        two_way(x[:1])


def test_a_random_table_is_all_interaction_and_the_ratio_of_distances_agrees():
    drawn = torch.Generator().manual_seed(2)
    table = torch.randn(40, 50, 30, generator=drawn)
    assert interaction_fraction(table) == pytest.approx(1, abs=0.02)
    first, last = torch.randn(40, 1, 30, generator=drawn), torch.randn(1, 50, 30, generator=drawn)
    assert interaction_fraction(first + last) == pytest.approx(0, abs=1e-5)
    mixed = first + last + table
    assert interaction_fraction(mixed) == pytest.approx(1 / 3, abs=0.05)
    ratio = swap_ratio(mixed, drawn)
    assert ratio == pytest.approx(linear_structure(interaction_fraction(mixed)), abs=0.05)


def test_shuffling_keeps_every_number_and_every_other_weight():
    model = small_model(CAUSAL)
    found = shuffled_mlps(model, torch.Generator().manual_seed(0))
    for name, weight in model.state.items():
        same = torch.equal(found.state[name], weight)
        assert same == (".mlp." not in name)
        torch.testing.assert_close(found.state[name].flatten().sort().values, weight.flatten().sort().values)


def test_probes_are_of_the_relations_own_options_and_leak_no_row():
    model, facts = small_model(CAUSAL), some_facts(CAUSAL)
    found = embedding_probes(model, facts, torch.Generator().manual_seed(0), untrained=untrained(model, 0), splits=3)
    assert found.accuracy.shape == (3, 2, 3)
    judged = split_rows(50, torch.Generator().manual_seed(0))
    assert judged.shape == (10, 50)
    assert bool((judged.sum(1) == 10).all())
    with pytest.raises(UserError, match="split"):
        split_rows(4, torch.Generator())
    assert weight_probe(model, facts.first, layer=1, head=1).shape == (10, 3)


def test_a_ridge_classifier_finds_what_is_linear():
    drawn = torch.Generator().manual_seed(5)
    x, weight = torch.randn(400, 6, generator=drawn), torch.randn(6, 3, generator=drawn)
    labels = (x @ weight).argmax(-1)[:, None]
    (fitted,) = fit_ridge(x, labels, [3])
    said = (x.double() @ fitted.weight + fitted.bias).argmax(-1)
    assert (said == labels[:, 0]).double().mean() > 0.85
    torch.testing.assert_close(fitted.weight.sum(1), torch.zeros(6, dtype=DOUBLE))


def test_what_was_cut_does_not_matter_where_attention_is_off():
    arch = dataclasses.replace(CAUSAL, positions="rotary")
    model = small_model(arch)
    ids = torch.randint(0, 6, (12, 4), generator=torch.Generator().manual_seed(0))
    curve = truncation(model, ids, lengths=[1, 2, 4])
    torch.testing.assert_close(curve.similarity[2], torch.ones(3, 12))
    assert curve.similarity[0].mean() < curve.similarity[1].mean() < 1
    state = {name: w * (0 if "attn" in name else 1) for name, w in model.state.items()}
    deaf = type(model)(arch, state)
    torch.testing.assert_close(truncation(deaf, ids, lengths=[1]).similarity, torch.ones(1, 3, 12))
    with pytest.raises(UserError, match="cut"):
        truncation(model, ids, lengths=[5])
    with pytest.raises(UserError, match="begin"):
        truncation(model, ids, lengths=[1], bos=8)


def test_a_neuron_that_tells_the_answer_is_found_beside_its_null():
    model, facts = small_model(STACK), some_facts(STACK)
    h = at_subjects(model, facts, "L1.neurons")[Site("neurons", 1)][:, 3]
    answer = (h > h.median()).long()
    told = facts_of(facts.parts, [facts.first._replace(answer=answer, options=torch.arange(2))])
    (found,) = best_neurons(model, told, torch.Generator().manual_seed(0))
    assert found.best[1] == 1.0
    assert bool((found.null <= 1).all())
    assert found.p_value[1] <= 0.5


def test_bad_facts_are_told_what_is_wrong_with_them():
    facts, drawn = some_facts(STACK), torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match="share a token"):
        facts_of(facts.parts, [facts.first._replace(options=torch.zeros(3, dtype=torch.long))])
    with pytest.raises(BadShape, match="count among"):
        facts_of(facts.parts, [facts.first._replace(options=torch.arange(1))])
    with pytest.raises(UserError, match="Found -1"):
        facts_of(facts.parts, [facts.first._replace(options=torch.arange(3) - 1)])
    beyond = facts_of(facts.parts, [facts.first._replace(options=torch.arange(3) + 7)])
    for ask in (outcome, neuron_effects, lambda model, facts: weight_probe(model, facts.first)):
        with pytest.raises(UserError, match="ends at 8"):
            ask(small_model(STACK), beyond)
    with pytest.raises(BadShape, match="each of 9"):
        facts_of(facts.parts, [facts.first._replace(at=torch.zeros(2, dtype=torch.long))])
    with pytest.raises(UserError, match="relations"):
        facts_of(facts.parts, [])
    with pytest.raises(UserError, match="full grid"):
        grid_of(facts.rows(torch.arange(5)))
    twice = facts.rows(torch.tensor([0, 0, 2, 3, 4, 5, 6, 7, 8]))
    with pytest.raises(UserError, match="twice"):
        grid_of(twice)
    model = small_model(STACK)
    with pytest.raises(BadShape, match="Rotations"):
        neuron_effects(model, facts, rotations=[torch.eye(3)])
    one = facts_of(facts.parts, [facts.first])
    with pytest.raises(UserError, match="two relations"):
        shared_neurons(neuron_effects(model, one), drawn)
    with pytest.raises(UserError, match="Known"):
        norm_gaps(model, facts, torch.ones(9, dtype=torch.bool), drawn)


def test_heads_that_share_a_value_have_their_probes():
    model = small_model(A_FEW["normed"])
    assert weight_probe(model, some_facts(CAUSAL).first._replace(options=torch.arange(3))).shape[1] == 3


def test_where_nothing_is_known_there_is_no_p_and_no_neuron():
    model, facts, drawn = small_model(STACK), some_facts(STACK), torch.Generator().manual_seed(0)
    one = facts_of(facts.parts, [facts.first._replace(answer=torch.arange(9) % 2)])
    (found,) = best_neurons(model, one, drawn)
    assert found.p_value.isnan().tolist() == [False, False, True]
    assert [each is None for each in found.where] == [False, False, True]
    nothing = NeuronEffects((0,), torch.zeros(2, 1, 7, 9), torch.zeros(2, 9))
    assert math.isnan(shared_neurons(nothing, drawn)[0].p_value)
    state = {**model.state, "embed.W_E": model.state["embed.W_E"].clone()}
    state["embed.W_E"][0] = torch.nan
    gaps = norm_gaps(type(model)(STACK, state), facts, torch.arange(9) % 2 == 0, drawn, sites="L0.mlp_out")
    assert all(math.isnan(gap.p_value) for gap in gaps.values())


def changed(relation, column):
    inputs = relation.inputs.clone()
    inputs[:, column] = (inputs[:, column] + 1) % 9
    return relation._replace(inputs=inputs)


def test_one_relation_stands_for_all_only_where_all_read_alike_up_to_the_subject():
    facts = some_facts(CAUSAL)
    other = facts_of(facts.parts, [facts.first, changed(facts.relations[1], 0)])
    for measure in (neuron_effects, mlp_paths):
        with pytest.raises(BadPrompt, match="other tokens up to them"):
            measure(small_model(CAUSAL), other)
    both_ways = small_model(dataclasses.replace(CAUSAL, causal=False))
    with pytest.raises(BadPrompt, match="other prompts"):
        neuron_effects(both_ways, facts)
    neuron_effects(both_ways, facts_of(facts.parts, [facts.first, facts.first]))
    summed = some_facts(STACK)
    with pytest.raises(BadPrompt, match="other prompts"):
        neuron_effects(small_model(STACK), facts_of(facts.parts, [summed.first, changed(summed.relations[1], 2)]))


def test_padding_before_a_subject_is_no_other_token():
    facts = some_facts(CAUSAL)
    second = facts.relations[1]
    front = torch.zeros(9, 1, dtype=torch.long)
    mask = torch.cat([front, torch.ones_like(second.inputs)], 1).bool()
    padded = second._replace(inputs=Batch(torch.cat([front, second.inputs], 1), mask), at=second.at + 1)
    found = at_subjects(small_model(CAUSAL), facts_of(facts.parts, [facts.first, padded]), "L1.resid_post")
    torch.testing.assert_close(found, at_subjects(small_model(CAUSAL), facts, "L1.resid_post"))
    unmasked = padded._replace(inputs=padded.inputs.ids)
    with pytest.raises(BadPrompt, match="other tokens"):
        at_subjects(small_model(CAUSAL), facts_of(facts.parts, [facts.first, unmasked]), "L1.resid_post")


def test_the_random_control_has_the_rank_of_what_it_controls_for():
    model, facts, drawn = small_model(STACK), some_facts(STACK), torch.Generator().manual_seed(0)
    table, one = torch.randn(9, 10, generator=drawn), torch.randn(10, 1, generator=drawn)
    directions = torch.cat([one, one * (1 + 1e-7 * torch.randn(10, 1, generator=drawn))], 1)
    found = replaced(model, facts, Site("resid_post", 0), table, directions, drawn)
    kept = kept_of(table, directions)
    assert found.rank == torch.linalg.matrix_rank(kept - kept.mean(0), rtol=1e-4) == 1
