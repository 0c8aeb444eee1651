"""Which neurons carry a frequency: the agreement of their phases, and what it finds far from convergence."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from micrographia.methods.fourier.carriers import agreement_p_values, majority_frequency, tail_bound
from micrographia.methods.fourier.key_frequencies import find_frequencies, frequency_tests


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cube(n: int, alpha: int, beta: int, gamma: int) -> Tensor:
    x = torch.arange(n)
    return (2 * math.pi / n * ((alpha * x[:, None, None] + beta * x[:, None] + gamma * x) % n).double()).cos()


def circuit(n: int, k: int, *, phases: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """24 ReLU neurons of frequency k and their read-out, whose phases agree unless others are given."""
    x, phase = torch.arange(n), 2 * math.pi * torch.arange(24) / 24
    turn = (2 * math.pi / n * (k * x % n).double())[:, None] + phase
    answer = (2 * math.pi / n * (k * x % n).double()) + (2 * phase if phases is None else phases)[:, None]
    return (turn.cos()[:, None] + turn.cos()).relu(), answer.cos()


@pytest.mark.parametrize("signs", [False, True])
def test_the_bound_holds_for_random_angles_and_signs(signs):
    random = np.random.default_rng(0)
    sizes = random.exponential(size=9)
    angles = random.uniform(0, 2 * np.pi, size=(4000, 9))
    waves = np.sign(np.cos(angles)) if signs else np.cos(angles)
    p = np.array([tail_bound(sizes, total, signs=signs) for total in waves @ sizes])
    for error in (0.5, 0.1, 0.01):
        assert (p <= error).mean() <= error


def test_the_bound_is_small_for_few_that_agree_and_never_for_one():
    assert tail_bound(np.ones(1), 1.0) > 1e-3
    assert tail_bound(np.ones(6), 5.9) < 1e-4
    assert tail_bound(np.ones(12), 12.0, signs=True) == pytest.approx(2.0**-12, rel=1e-3)
    assert tail_bound(np.ones(6), -3.0) == 1.0
    assert tail_bound(np.zeros(6), 1.0) == 1.0


def test_neurons_agree_where_their_read_out_follows_their_phases_alone():
    neurons, W_L = circuit(17, 3)
    frequency = majority_frequency(neurons)
    assert (frequency == 3).all()
    p = agreement_p_values(neurons, W_L, frequency)
    assert p[2] < 1e-9
    assert (p[[0, 1, *range(3, 8)]] == 1).all()
    shuffled = circuit(17, 3, phases=6 * torch.rand(24, generator=torch.Generator().manual_seed(4)))[1]
    assert agreement_p_values(neurons, shuffled, frequency)[2] > 0.01


def test_only_frequencies_that_have_neurons_are_a_family():
    (first, W_first), (second, W_second) = circuit(17, 3), circuit(17, 5)
    neurons, W_L = torch.cat([first[..., :4], second], dim=2), torch.cat([W_first[:4], W_second])
    alone = agreement_p_values(neurons[..., :4], W_L[:4], majority_frequency(neurons[..., :4]))[2]
    both = agreement_p_values(neurons, W_L, majority_frequency(neurons))
    assert both[4] < alone == both[2] < 0.01  # the larger of two p-values is not raised


def unfinished(n: int, k: int, *, phases: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """A circuit whose other signs, and others' sines, are as large as its answer: the null of the logits hides it."""
    neurons, W_L = circuit(n, k, phases=phases)
    x = torch.arange(n)
    logits = neurons @ W_L + 2.5 * (cube(n, k, k, k) + cube(n, k, -k, k) + cube(n, k, -k, -k))
    for j, size in enumerate(draw(n // 2, seed=6).exp(), start=1):
        turn = 2 * math.pi / n * (j * (x[:, None, None] + x[:, None] - x) % n).double()
        logits = logits + (0.5 * size if j != k else 0.0) * turn.sin()
    return logits + 0.3 * draw(n, n, n, seed=5), neurons, W_L


def test_what_its_neurons_carry_is_key_though_the_logits_hide_it():
    logits, neurons, W_L = unfinished(19, 3)
    tests = frequency_tests(logits)
    assert tests.energy[2] > 0.2
    assert not tests.present[2]
    [found] = [each for each in find_frequencies(logits, neurons, W_L) if each.kind == "key"]
    assert (found.k, found.own_neurons) == (3, 24)
    assert found.neurons_p < 1e-6 < 0.01 < found.p_value


def test_neurons_that_do_not_agree_make_no_frequency_present():
    logits, neurons, W_L = unfinished(19, 3, phases=6 * torch.rand(24, generator=torch.Generator().manual_seed(4)))
    assert "key" not in [each.kind for each in find_frequencies(logits, neurons, W_L)]


def test_a_frequency_that_costs_less_than_one_without_neurons_is_not_carried():
    logits, neurons, W_L = unfinished(19, 3)
    found = find_frequencies(logits + 40 * cube(19, 7, 7, -7), neurons, W_L)
    assert 3 not in [each.k for each in found]
