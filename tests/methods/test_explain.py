"""The words of a patching result, on planted cases: gates of which every number is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from micrographia.core.errors import BadShape
from micrographia.methods.explain import PairEffects, explain, percent

Output = Callable[[tuple[int, int]], float]


def planted(output: Output) -> PairEffects:
    """PairEffects of patching the two inputs of a gate: 1 is clean, 0 corrupt."""
    gap = output((1, 1)) - output((0, 0))
    ones = [(1, 0), (0, 1)]
    lost = [(0, 1), (1, 0)]
    both = torch.full((2, 2), float("nan"))
    both[0, 1] = both[1, 0] = 1.0
    return PairEffects(
        ("A", "B"),
        torch.tensor([(output(state) - output((0, 0))) / gap for state in ones]),
        torch.tensor([(output((1, 1)) - output(state)) / gap for state in lost]),
        both,
        both,
    )


GATES: dict[str, Output] = {
    "AND": lambda x: float(x[0] and x[1]),
    "OR": lambda x: float(x[0] or x[1]),
}


def gates(effects: PairEffects) -> list[str]:
    return [word.reading for word in explain(effects) if len(word.parts) == 2]


def test_noising_finds_an_and_and_denoising_neither_input_alone():
    effects = planted(GATES["AND"])
    words = explain(effects)
    assert [word.reading for word in words] == ["necessary", "necessary", "AND"]
    assert "100%" in words[-1].sentence
    assert "0%" in words[-1].sentence


def test_denoising_finds_an_or_and_noising_neither_input_alone():
    words = explain(planted(GATES["OR"]))
    assert [word.reading for word in words] == ["sufficient", "sufficient", "OR"]
    assert "survives without it" in words[0].sentence


def test_a_chain_is_sufficient_and_necessary_and_no_gate():
    both = torch.tensor([[float("nan"), 1.0], [1.0, float("nan")]])
    words = explain(PairEffects(("A", "B"), torch.ones(2), torch.ones(2), both, both))
    assert [word.reading for word in words] == ["sufficient and necessary"] * 2


def test_a_backup_is_named_with_what_it_backs_up_and_in_either_order():
    both = torch.tensor([[float("nan"), 1.0], [1.0, float("nan")]])
    denoise, noise = torch.tensor([0.95, 0.05]), torch.tensor([0.06, 0.04])
    [*_, word] = explain(PairEffects(("primary", "spare"), denoise, noise, both, both))
    assert word.reading == "backup"
    assert word.parts == ("primary", "spare")
    assert word.sentence.startswith("spare looks like a backup of primary")
    assert "6%" in word.sentence
    [*_, word] = explain(PairEffects(("spare", "primary"), denoise.flip(0), noise.flip(0), both, both))
    assert word.parts == ("primary", "spare")


def test_partial_redundancy_is_said_without_a_gate():
    both = torch.tensor([[float("nan"), 0.9], [0.9, float("nan")]])
    assert gates(PairEffects(("A", "B"), torch.tensor([0.5, 0.5]), torch.tensor([0.3, 0.3]), both, both)) == [
        "redundant"
    ]
    additive = torch.tensor([[float("nan"), 0.6], [0.6, float("nan")]])
    assert gates(PairEffects(("A", "B"), torch.tensor([0.3, 0.3]), torch.tensor([0.3, 0.3]), additive, additive)) == []


def test_nothing_is_said_of_pairs_that_were_not_measured_together_but_an_and():
    denoise, noise = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.5, 0.5])
    words = explain(PairEffects(tuple("ABCD"), denoise, noise))
    assert [word.parts for word in words if len(word.parts) == 2] == [("C", "D")]


def test_an_estimate_above_the_exact_loss_is_flagged():
    effects = PairEffects(("A", "B"), torch.zeros(2), torch.tensor([0.02, 0.3]), estimate=torch.tensor([0.5, 0.3]))
    first, second = explain(effects)
    assert "estimate of the loss is 50%" in first.sentence
    assert "estimate" not in second.sentence


def test_what_works_against_the_answer_is_said_so():
    [word] = explain(PairEffects(("negative head",), torch.tensor([-0.4]), torch.tensor([-0.2])))
    assert word.reading == "works against"
    assert "-40%" in word.sentence


def test_a_part_that_serves_in_one_direction_and_hinders_in_the_other_is_not_said_to_be_against():
    (word,) = explain(PairEffects(("A",), torch.tensor([0.9]), torch.tensor([-0.15])))
    assert word.reading == "both ways"
    assert "restores 90" in word.sentence


@pytest.mark.parametrize("shows", [0.1, 0.6])
def test_the_caller_says_from_where_on_an_effect_counts(shows):
    [word] = explain(PairEffects(("A",), torch.tensor([0.5]), torch.tensor([0.5])), shows=shows)
    assert (word.reading == "sufficient and necessary") == (shows == 0.1)


def reading(d: float, n: float, error: float | None = None) -> str:
    given = None if error is None else torch.tensor([error])
    [word] = explain(PairEffects(("A",), torch.tensor([d]), torch.tensor([n]), error=given))
    return word.reading


@pytest.mark.parametrize(("d", "n"), [(0.18, 0.21), (0.097, 0.132), (0.087, 0.074), (0.099, 0.101)])
def test_neighbouring_numbers_tell_one_story(d, n):
    """Numbers of one prompt pair that hard bounds at a tenth had told as three opposite stories."""
    assert reading(d, n) == "sufficient and necessary"


OPPOSITE = {"sufficient": {"necessary", "works against"}, "necessary": {"sufficient", "works against"}}


@pytest.mark.parametrize("error", [None, 0.01])
def test_between_opposite_readings_lies_one_that_decides_nothing(error):
    shares = [round(0.02 * i - 0.3, 2) for i in range(66)]
    found = {(d, n): reading(d, n, error) for d in shares[::2] for n in shares[::2]}
    for (d, n), own in found.items():
        for other in ((round(d + 0.04, 2), n), (d, round(n + 0.04, 2))):
            assert found.get(other) not in OPPOSITE.get(own, ()), (d, n, other)


def test_a_gate_needs_a_clear_ratio_or_a_difference_beyond_the_spread():
    assert reading(0.13, 0.33) == "too close to call"
    assert reading(0.13, 0.33, error=0.02) == "necessary"
    assert reading(0.13, 0.33, error=0.15) == "too close to call"
    assert reading(0.02, 0.5, error=0.4) == "too close to call", "however large, it is within the spread"
    assert reading(0.33, 0.1) == "sufficient"
    assert gates(PairEffects(("A", "B"), torch.tensor([0.099, 0.09]), torch.tensor([0.13, 0.12]))) == []


def test_entries_of_one_softmax_are_no_gate():
    both = torch.tensor([[float("nan"), 0.61], [0.61, float("nan")]])
    effects = PairEffects(("A", "B"), torch.tensor([0.5, 0.5]), torch.tensor([0.33, 0.15]), both, both)
    assert gates(effects) == ["redundant"]
    assert [word.reading for word in explain(effects, dependent=[(0, 1)]) if len(word.parts) == 2] == []


def test_numbers_that_do_not_fit_the_names_are_refused():
    wrong: Tensor = torch.zeros(3)
    with pytest.raises(BadShape, match="2 parts"):
        explain(PairEffects(("A", "B"), torch.zeros(2), wrong))


def test_no_minus_stands_before_a_zero():
    words = explain(PairEffects(("A", "B"), torch.tensor([-0.001, 0.001]), torch.tensor([-0.004, -0.0])))
    assert not any("-0%" in word.sentence for word in words)
    assert [percent(x, 1) for x in (-0.0004, -0.45, 0.0, 1.0)] == ["0.0%", "-45.0%", "0.0%", "100.0%"]
