"""Each neuron's frequency and the share of variance it explains."""

import math

import pytest
import torch

from micrographia.methods.fourier.activations import (
    frequency_shares,
    fve_of_direction,
    neuron_clusters,
    published_key_frequencies,
)


def draw(*shape: int, seed: int = 19) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def waves(n: int, k: int) -> list[torch.Tensor]:
    angle = 2 * math.pi * k / n * torch.arange(n, dtype=torch.float64)
    return [angle.cos(), angle.sin()] if 2 * k < n else [angle.cos()]


def dense_shares(neurons: torch.Tensor, k: int) -> torch.Tensor:
    """The released triple loop: each component over pairs, its energy over that of the centred neuron."""
    n = neurons.shape[0]
    one = torch.ones(n, dtype=torch.float64)
    centred = neurons - neurons.mean(dim=(0, 1))
    total = centred.square().sum(dim=(0, 1))

    def energy(of_a: torch.Tensor, of_b: torch.Tensor) -> torch.Tensor:
        component = torch.outer(of_a, of_b)
        return torch.einsum("ab,abm->m", component / component.norm(), centred) ** 2

    quadratic = sum(energy(x, y) for x in waves(n, k) for y in waves(n, k))
    linear = sum(energy(x, one) + energy(one, x) for x in waves(n, k))
    return (quadratic + linear) / total


@pytest.mark.parametrize("n", [7, 8])
def test_shares_equal_the_dense_definition_at_every_frequency(n):
    neurons = draw(n, n, 5) + 3
    shares = frequency_shares(neurons)
    for k in range(1, n // 2 + 1):
        torch.testing.assert_close(shares[:, k - 1], dense_shares(neurons, k), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "k"), [(11, 3), (11, 5), (12, 6)])
def test_a_relu_neuron_of_one_frequency_is_found(n, k):
    x = torch.arange(n, dtype=torch.float64)
    wave_a, wave_b = (torch.cos(2 * math.pi * k / n * x - phase) for phase in (0.4, 1.1))
    neurons = torch.relu(0.2 + wave_a[:, None] + wave_b)[:, :, None]
    clusters = neuron_clusters(torch.cat([neurons, draw(n, n, 1)], dim=2))
    assert clusters.frequency[0].item() == k
    assert clusters.fve[0].item() > 0.85
    assert clusters.clustered.tolist() == [True, False]


def test_the_highest_frequency_is_not_left_out():
    n = 9
    wave = waves(n, 4)[0]
    clusters = neuron_clusters((wave[:, None] + wave)[:, :, None])
    assert clusters.frequency.item() == 4
    assert clusters.fve.item() == pytest.approx(1)


def test_dead_neurons_have_no_frequency_and_do_not_vote():
    alive = (waves(7, 2)[0][:, None] * waves(7, 2)[0])[:, :, None]
    neurons = torch.cat([torch.zeros(7, 7, 1), alive, torch.full((7, 7, 1), 0.1)], dim=2)
    for dtype in (torch.float32, torch.float64):
        clusters = neuron_clusters(neurons.to(dtype))
        assert clusters.frequency.tolist() == [0, 2, 0]
        assert clusters.fve.isnan().tolist() == [True, False, True]
        assert clusters.clustered.tolist() == [False, True, False]
        assert published_key_frequencies(clusters) == [2]


def test_the_published_rule_lists_each_dominant_frequency_once():
    neurons = torch.stack([torch.outer(waves(9, k)[0], waves(9, k)[1]) for k in (4, 1, 4)], dim=2)
    assert published_key_frequencies(neuron_clusters(neurons)) == [1, 4]


def test_float32_neurons_give_the_same_clusters():
    neurons = draw(9, 9, 20) + 1
    exact, fast = neuron_clusters(neurons), neuron_clusters(neurons.float())
    assert torch.equal(exact.frequency, fast.frequency)
    torch.testing.assert_close(exact.fve, fast.fve, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [7, 8])
def test_a_direction_is_split_over_the_two_waves_of_a_plus_b(n):
    k, a = 2, torch.arange(n, dtype=torch.float64)
    angle = 2 * math.pi * k / n * (a[:, None] + a)
    u = 3 * angle.cos() + 4 * angle.sin() + 7
    cosine, sine = fve_of_direction(u, k)
    assert (cosine, sine) == (pytest.approx(9 / 25), pytest.approx(16 / 25))
    assert fve_of_direction(u, 1) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))


def test_nyquist_has_no_sine_and_a_constant_no_share():
    a = torch.arange(8, dtype=torch.float64)
    assert fve_of_direction(torch.cos(math.pi * (a[:, None] + a)), 4) == (pytest.approx(1), 0.0)
    assert all(math.isnan(share) for share in fve_of_direction(torch.ones(7, 7), 2))
