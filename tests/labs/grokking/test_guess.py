"""The task, the layout and the activation of a network are found from its answers, and doubt is reported."""

import pytest
import torch
from torch import Generator
from trained import as_lens, as_paper, trained

from micrographia.core.errors import BadConfig, UnreadableWeights
from micrographia.core.events import Note, silent
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.weights import init_weights
from micrographia.core.state_dicts.foreign import candidates, variants
from micrographia.labs.grokking.identify.activation import CLEAR, choose_activation, learnt, rivals
from micrographia.labs.grokking.identify.guess import Guesses, check, guess
from micrographia.labs.grokking.identify.source import RowFormat, tasks_of


def candidates_of(state, act=None):
    return [each for found in candidates(state) for each in variants(found, act=act)]


def guessed(state, *, modulus=None, operation=None, act=None, watch=silent) -> Guesses:
    return guess(
        candidates_of(state, act),
        modulus=modulus,
        operation=operation,
        generator=Generator().manual_seed(0),
        watch=watch,
    )


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "polynomial"])
@pytest.mark.parametrize("layout", [as_paper, as_lens])
def test_the_operation_of_a_network_that_only_memorised_is_found(operation, layout):
    best = guessed(layout(trained(operation=operation).weights)).best
    assert (best.operation, best.modulus, best.credible) == (operation, 13, True)
    assert best.accuracy < 0.75  # half of the pairs were seen
    assert best.candidate.choices["norm"] == "none"


def test_the_modulus_follows_from_both_widths():
    best = guessed(as_lens(trained(11, answers=11).weights)).best
    assert (best.modulus, best.operation, best.credible) == (11, "add", True)


@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_the_activation_is_found_without_the_split(act):
    found = guessed(as_paper(trained(act=act).weights))
    assert len(rivals(found)) > 1  # accuracy alone leaves a choice
    notes: list[Note] = []
    guesses = choose_activation(found, None, notes.append)
    assert guesses.best.candidate.choices["act"] == act
    balances = [each.balance for each in guesses.all if each.balance is not None]
    assert len(balances) == len(rivals(found))
    assert guesses.best.balance == max(balances)
    assert guesses.best.balance - sorted(balances)[-2] >= CLEAR
    assert all(note.level == "info" for note in notes)


@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_the_activation_is_found_by_the_balance_on_the_training_pairs(act):
    network = trained(act=act)
    three = [check(each, RowFormat(13, (13,)), ["add"])[0] for each in candidates_of(as_paper(network.weights))]
    alike = [each._replace(accuracy=0.5) for each in three]
    for first in alike:
        assert choose_activation(Guesses(first, alike), network.train, silent).best.candidate.choices["act"] == act


def test_activations_that_cannot_be_separated_are_reported():
    best = guessed(as_paper(trained().weights), act="relu").best
    twin = best._replace(
        candidate=best.candidate._replace(choices={**best.candidate.choices, "act": "the same by another name"})
    )
    notes: list[Note] = []
    kept = choose_activation(Guesses(best, [best, twin]), None, notes.append)
    assert kept.best.candidate is best.candidate
    assert notes[-1].level == "warning"
    assert "--act" in notes[-1].text


def test_an_untrained_network_is_not_credible():
    assert not guessed(as_lens(trained(steps=0).weights)).best.credible


def test_answers_that_are_all_the_same_are_not_credible():
    weights = {name: torch.zeros_like(x) for name, x in trained().weights.items()}
    assert not any(each.credible for each in guessed(as_paper(weights)).all)


def test_a_network_of_another_task_is_not_credible():
    """Its answers are those of a + b under a permutation that no shift is."""
    weights = dict(trained().weights)
    weights["unembed.W_U"] = weights["unembed.W_U"][:, [*(5 * torch.arange(13) % 13).tolist(), 13]]
    assert not guessed(as_paper(weights)).best.credible


def test_every_guess_is_reported_with_its_accuracy():
    notes: list[Note] = []
    guesses = guessed(as_paper(trained().weights), watch=notes.append)
    text = " ".join(note.text for note in notes)
    for each in guesses.all:
        assert f"{each.operation} {each.accuracy:.2%}" in text
    for act in ("relu", "gelu", "silu"):
        assert act in text


def test_what_is_given_is_not_guessed():
    guesses = guessed(as_paper(trained().weights), operation="subtract", act="gelu_new")
    assert {(each.operation, each.candidate.choices["act"]) for each in guesses.all} == {("subtract", "gelu_new")}
    assert not guesses.best.credible


def test_hopeless_readings_are_sorted_out_on_a_sample(monkeypatch):
    monkeypatch.setattr("micrographia.labs.grokking.identify.guess.SAMPLE", 60)
    [right] = [each for each in candidates_of(as_paper(trained().weights)) if each.arch.act == "relu"]
    wrong = right._replace(weights={name: torch.zeros_like(x) for name, x in right.weights.items()})
    notes: list[Note] = []
    guesses = guess(
        [wrong, right], modulus=None, operation="add", generator=Generator().manual_seed(0), watch=notes.append
    )
    assert guesses.best.candidate is right
    assert sorted(each.pairs for each in guesses.all) == [60, 169]
    assert "not pursued" in notes[0].text


@pytest.mark.parametrize(
    ("n_ctx", "tokens", "answers", "given", "found"),
    [
        (3, 8, 7, None, [(7, "a b =")]),
        (3, 8, 8, None, [(7, "a b =")]),
        (3, 9, 9, 7, [(7, "a b =")]),
        (3, 8, 6, None, []),
        (3, 8, 9, None, []),
        (3, 8, 8, 8, []),
        (2, 7, 7, None, [(7, "a b"), (6, "a b")]),
        (2, 8, 7, None, [(7, "a b")]),
        (2, 9, 9, 7, [(7, "a b")]),
        (2, 8, 9, None, [(8, "a b")]),
        (2, 8, 6, None, []),
        (1, 8, 8, None, []),
    ],
)
def test_the_task_follows_from_the_widths_unless_they_contradict(n_ctx, tokens, answers, given, found):
    arch = Architecture(d_vocab=tokens, d_vocab_out=answers, n_ctx=n_ctx, d_model=4, n_heads=1, d_head=4, d_mlp=4)
    each = candidates(init_weights(arch, Generator().manual_seed(0)))[-1]
    if found:
        assert [(task.modulus, task.row) for task in tasks_of(each.arch, given)] == found
        return
    with pytest.raises(UnreadableWeights, match=f"reads {tokens} tokens, the unembedding has {answers} answers"):
        tasks_of(each.arch, given)


@pytest.mark.parametrize(("tokens", "last"), [(8, [(7,)]), (7, [(6,), (6,)])])
def test_an_mlp_of_both_operands_needs_no_token_for_equals(tokens, last):
    arch = Architecture(
        d_vocab=tokens, d_vocab_out=7, n_ctx=3, d_model=4, n_heads=1, d_head=4, d_mlp=4, attention=False
    )
    assert [task.last for task in tasks_of(arch)] == last
    assert tasks_of(arch)[0] == RowFormat(7, last[0])


def test_multiplication_needs_a_prime():
    arch = Architecture(d_vocab=9, d_vocab_out=9, n_ctx=3, d_model=4, n_heads=1, d_head=4, d_mlp=4)
    weights = init_weights(arch, Generator().manual_seed(0))
    assert {each.operation for each in guessed(weights).all} == {"add", "subtract", "polynomial"}
    with pytest.raises(BadConfig, match="prime"):
        guessed(weights, operation="multiply")
    with pytest.raises(BadConfig, match="Known are add"):
        guessed(weights, operation="divide")


def test_pairs_that_were_learnt_are_found_by_their_losses():
    network = trained()
    [found] = [
        each for each in guessed(as_paper(network.weights), act="relu", operation="add").all if each.pairs == 169
    ]
    rows = learnt(found.losses, found.accuracy)
    assert (rows & network.train).sum() > 0.9 * network.train.sum()
    assert (rows & ~network.train).sum() < 0.1 * (~network.train).sum()
