"""The criterion for the Fourier algorithm, on logits whose algorithm is known."""

import pytest
import torch

from micrographia.methods.fourier.criterion import fourier_algorithm

N = 23
DIFFERENCE = (torch.arange(N)[:, None, None] + torch.arange(N)[:, None] - torch.arange(N)) % N


def cosines(ks, amplitude=12.0):
    return sum(amplitude * torch.cos(2 * torch.pi * k * DIFFERENCE / N) for k in ks)


def noise(size=0.5):
    return size * torch.randn(N, N, N, generator=torch.Generator().manual_seed(0))


def put(logits, keys, present=None, test_accuracy: float | None = 1.0):
    generator = torch.Generator().manual_seed(0)
    return fourier_algorithm(logits, keys, present or keys, test_accuracy=test_accuracy, generator=generator)


def test_planted_cosines_with_a_little_noise_are_the_algorithm():
    found = put(cosines([3, 5, 9]) + noise(), [3, 5, 9])
    assert found.shown
    assert found.closed_form == pytest.approx(1, abs=0.01)
    assert found.rest < 0.1
    assert found.null == 0


def test_overtones_are_taken_away_with_their_frequency():
    logits = cosines([3, 5, 9]) + cosines([6], 4.0) + noise()
    assert put(logits, [3, 5, 9], present=[3, 5, 6, 9]).shown
    found = put(logits, [3, 5, 9])
    assert found.shown is False
    assert "without them too" in found.reason


def test_frequencies_that_carry_nothing_are_not_the_algorithm():
    found = put(cosines([3, 5, 9]), [1, 2, 4], present=[1, 2, 3, 4, 5, 9])
    assert found.shown is False
    assert "recover" in found.reason


def test_a_network_that_only_memorised_does_not_show_it_whatever_its_cosines():
    found = put(cosines([3, 5, 9]), [3, 5, 9], test_accuracy=0.4)
    assert found.shown is False
    assert "does not generalise" in found.reason


def test_without_a_split_the_question_cannot_be_put():
    assert put(cosines([3, 5, 9]), [3, 5, 9], test_accuracy=None).shown is None


def test_a_perfect_network_without_frequencies_of_its_own_does_not_show_it():
    answers = 20.0 * (DIFFERENCE == 0)
    assert put(answers, []).shown is False
    half = put(answers, [1, 2, 3, 4, 5])
    assert half.shown is False, "a flat spectrum: any half of the frequencies would do"
    every = put(answers, list(range(1, N // 2 + 1)))
    assert every.shown is False
    assert "every frequency" in every.reason


def test_the_null_counts_other_frequencies_that_would_do_as_well():
    """All others carry the answer too, but are said to be absent: chance does as well as the keys."""
    logits = cosines(range(1, N // 2 + 1), 3.0)
    assert put(logits, [1, 2, 3, 4, 5]).null > 0.5


def test_the_same_seed_gives_the_same_verdict():
    logits = cosines([2, 7], 6.0) + noise(2.0)
    assert put(logits, [2, 7]) == put(logits, [2, 7])
