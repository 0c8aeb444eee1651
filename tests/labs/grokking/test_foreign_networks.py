"""Networks of others whose algorithm is known, because it was built in: what `analyse` says of them."""

import re

import pytest
import torch
from built import circles, clock, pizza
from safetensors.torch import save_file

from micrographia.core.events import silent
from micrographia.core.runtime import generator
from micrographia.core.state_dicts.foreign import candidates, variants
from micrographia.labs.grokking.identify.activation import balance, learnt
from micrographia.labs.grokking.identify.guess import Guesses, check, guess
from micrographia.labs.grokking.identify.run import analyse
from micrographia.labs.grokking.identify.source import RowFormat
from micrographia.labs.grokking.identify.verdict import judge
from micrographia.labs.grokking.task import all_rows
from micrographia.methods.decay_balance import decay_balance
from micrographia.methods.fourier.replacements import CLOSED_FORM, DISTANCE_FORM, NETWORK

N, KS = 13, (1, 3, 4)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """A pizza and a clock, with a little noise on the read-out: exact numbers leave no scatter for the null."""
    found = {}
    for name, make in {"pizza": pizza, "clock": clock}.items():
        folder = tmp_path_factory.mktemp(name)
        weights = make(N, KS, 6.0)
        weights["unembed.W_U"] += 0.01 * torch.randn(weights["unembed.W_U"].shape, generator=generator(1))
        save_file(weights, folder / "theirs.safetensors")
        act = {"pizza": "relu", "clock": "square"}[name]
        found[name] = analyse(folder / "theirs.safetensors", out=folder / "out", operation="add", act=act)
    return found


def losses_of(run) -> dict[str, float]:
    return {row["name"]: row["loss"] for row in run.results["replacements"]}


@pytest.mark.parametrize(("name", "act", "row"), [("pizza", "relu", "a b ="), ("clock", "square", "a b")])
def test_rows_with_and_without_equals_are_read(analysed, name, act, row):
    run = analysed[name]
    expected = {"modulus": N, "operation": "add", "row": row, "act": act, "credible": True}
    assert {field: run.config[field] for field in expected} == expected
    assert ("rows of two tokens" in run.summary[0]) == (row == "a b")
    assert "it does add mod 13" in run.summary[0]
    assert run.results["key_frequencies"] == list(KS)
    assert run.results["measures"]["accuracy"] == 1.0
    assert (run.results["measures"]["attention_to_equals"] is None) == (row == "a b")


def test_a_pizza_is_called_a_pizza_in_words_and_in_its_formula(analysed):
    run = analysed["pizza"]
    assert run.results["mechanism"] == "pizza"
    measured = run.results["measures"]["clock_or_pizza"]
    assert measured["gradient_symmetricity"] > 0.95
    assert measured["distance_irrelevance"] < 0.05
    assert any(line.startswith("It is a pizza") for line in run.summary)
    said = run.results["algorithm"]
    assert not any("multiply" in line for line in said)
    [formula] = [line for line in said if line.startswith("Closed form with the distance")]
    terms = re.findall(r"([\d.]+) \|cos\(pi (\d+) \(a-b\) / 13\)\| cos\(2 pi (\d+) \(a\+b-c\) / 13\)", formula)
    assert [(int(k), int(same)) for _, k, same in terms] == [(k, k) for k in KS]
    assert [float(height) for height, _, _ in terms] == pytest.approx([6.0] * 3, rel=0.02)
    loss = losses_of(run)
    assert loss[DISTANCE_FORM] == pytest.approx(loss[NETWORK], rel=0.05)
    assert loss[CLOSED_FORM] < 0.1 * loss[NETWORK]  # a clock of the same mean height would do far better


def test_a_clock_is_called_a_clock_and_its_formula_is_the_network(analysed):
    run = analysed["clock"]
    assert run.results["mechanism"] == "clock"
    assert any(line.startswith("It is a clock") for line in run.summary)
    assert any("multiply these waves" in line for line in run.results["algorithm"])
    loss = losses_of(run)
    assert DISTANCE_FORM not in loss
    assert loss[CLOSED_FORM] == pytest.approx(loss[NETWORK], rel=0.1)


def test_the_wave_of_half_an_even_modulus_is_found_and_in_the_formula(tmp_path):
    """Six neurons answer two odd numbers and six two even ones: together the parity of the sum, one wave."""
    n, ks = 12, (1, 5)
    weights = pizza(n, (*ks, 6), 4.0)
    own = slice(2 * 32, 3 * 32)
    d = 2 * 3
    assert circles(n, (6,))[:, 1].abs().max() < 1e-5  # it has no sine
    signs = torch.tensor([1.0, -1.0]).repeat(16)
    weights["blocks.0.mlp.W_in"][:, own] = 0
    weights["blocks.0.mlp.W_in"][d + 4, own] = 2 * signs
    weights["blocks.0.mlp.b_in"][own] = -1
    weights["blocks.0.mlp.W_out"][own] = 0
    weights["blocks.0.mlp.W_out"][own, 2 * d + 4] = 0.5
    save_file(weights, tmp_path / "theirs.safetensors")
    run = analyse(tmp_path / "theirs.safetensors", out=tmp_path / "out", operation="add")
    assert run.results["key_frequencies"] == [1, 5, 6]
    text = "\n".join(run.results["algorithm"])
    assert "For k = 6 there is no sine" in text
    assert "4 cos(2 pi 6 (a+b-c) / 12)" in text.splitlines()[-4]


def guesses_of(weights) -> Guesses:
    each = [variant for found in candidates(weights) for variant in variants(found)]
    return guess(each, modulus=N, operation="add", generator=generator(0), watch=silent)


def with_accuracy(guesses: Guesses, accuracy: float, *, near: float = 0.0) -> Guesses:
    """The best guess at another accuracy, and that of its nearest rival."""
    other = {**guesses.best.candidate.choices, "act": "relu"}
    best = guesses.best._replace(
        accuracy=accuracy, candidate=guesses.best.candidate._replace(choices={**other, "act": "gelu"})
    )
    rival = best._replace(candidate=best.candidate._replace(choices=other), accuracy=near)
    return Guesses(best, [best, rival])


@pytest.mark.parametrize(
    ("accuracy", "near", "says", "doubted"),
    [
        (1.0, 0.0, "it does add mod 13:", False),
        (0.95, 0.0, "it does add mod 13 for the most part", False),
        (0.95, 0.94, "gelu fits hardly better than another activation (relu 94.00%)", True),
        (0.6, 0.58, "it comes nearest to add mod 13", True),
        (0.6, 0.0, "it comes nearest to add mod 13", True),
        (0.05, 0.0, "No guess is credible", True),
    ],
)
def test_it_does_the_task_only_where_nearly_all_pairs_are_right(accuracy, near, says, doubted):
    found = judge(with_accuracy(guesses_of(pizza(N, KS, 6.0)), accuracy, near=near), None)
    assert says in found.says
    assert found.doubted == doubted
    assert ("Doubtful" in found.says) == (doubted and accuracy > 0.1)
    if accuracy < 0.9:
        assert "it does add" not in found.says


def test_training_pairs_that_are_known_to_be_right_remove_the_doubt():
    guesses = with_accuracy(guesses_of(pizza(N, KS, 6.0)), 0.6)
    seen = guesses.best.losses < 0.5
    assert seen.sum() > 100
    assert not judge(guesses, seen).doubted
    assert "learned its training pairs of add mod 13" in judge(guesses, seen).says
    unlearned = guesses.best._replace(losses=guesses.best.losses + 2)
    assert "not right on nearly all of its training pairs" in judge(guesses._replace(best=unlearned), seen).says


def test_without_the_split_the_better_of_two_sets_of_learnt_pairs_counts():
    readings = variants(candidates(pizza(N, KS, 6.0))[0], act="relu")
    [network] = [each for each in readings if each.choices["norm"] == "none"]
    [found] = check(network, RowFormat(N, (N,)), ["add"])
    spread = 10 ** torch.linspace(-3, 0, N * N).double()
    found = found._replace(losses=spread[torch.randperm(N * N, generator=generator(2))])
    tokens, labels = all_rows(N, "add")
    sets = [learnt(found.losses, found.accuracy, times) for times in (3.0, 10.0)]
    assert sets[0].sum() < sets[1].sum()
    balances = [decay_balance(network.arch, network.weights, tokens[rows], labels[rows]) for rows in sets]
    assert balance(found, None) == pytest.approx(max(balances))
