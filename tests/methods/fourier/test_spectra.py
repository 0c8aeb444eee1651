"""Spectra of weights and pairs, and how concentrated they are."""

import math

import pytest
import torch

from micrographia.methods.fourier.spectra import (
    doublets,
    embedding_spectrum,
    gini,
    ipr,
    neuron_logit_directions,
    neuron_logit_spectrum,
    residual_fraction,
    spectrum,
    two_d_coefficients,
    two_d_spectrum,
)


def draw(*shape: int, seed: int = 13) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wave(n: int, k: int, phase: float = 0.0) -> torch.Tensor:
    return torch.cos(2 * math.pi * k / n * torch.arange(n, dtype=torch.float64) - phase)


@pytest.mark.parametrize("n", [7, 8])
def test_an_embedding_of_one_frequency_shows_it_alone(n):
    W_E = torch.outer(wave(n, 2), draw(5)) + torch.outer(wave(n, 2, phase=1.0), draw(5, seed=14))
    frequencies = embedding_spectrum(W_E).frequencies
    assert frequencies.argmax().item() == 1
    assert frequencies[1].item() == pytest.approx(W_E.norm().item())
    assert (frequencies[[0, 2]] < 1e-12).all()


@pytest.mark.parametrize("n", [7, 8])
def test_rows_and_frequencies_hold_the_whole_energy(n):
    x = draw(n, 5)
    rows, frequencies = spectrum(x)
    assert rows.square().sum().item() == pytest.approx(x.square().sum().item())
    assert frequencies.square().sum().item() == pytest.approx((x - x.mean(dim=0)).square().sum().item())


def test_the_neuron_logit_spectrum_does_not_see_a_mean_over_c():
    W_L = draw(6, 9)
    shifted = W_L + 10 * draw(6, 1)
    torch.testing.assert_close(neuron_logit_spectrum(shifted).rows, neuron_logit_spectrum(W_L).rows)
    assert neuron_logit_spectrum(W_L).rows[0].item() == pytest.approx(0, abs=1e-12)


def test_the_residual_is_what_lies_outside_the_key_frequencies():
    n = 9
    inside = torch.outer(draw(6), wave(n, 1)) + torch.outer(draw(6, seed=15), wave(n, 3, phase=0.3))
    outside = torch.outer(draw(6, seed=16), wave(n, 2))
    assert residual_fraction(inside, [1, 3]) == pytest.approx(0, abs=1e-12)
    expected = (outside.norm() / (inside + outside).norm()).item()
    assert residual_fraction(inside + outside, [1, 3]) == pytest.approx(expected)


def test_directions_of_a_frequency_rebuild_its_part_of_the_logit_map():
    n, u, v = 8, draw(6), draw(6, seed=17)
    W_L = torch.outer(u, wave(n, 3)) + torch.outer(v, wave(n, 3, phase=math.pi / 2)) + torch.outer(u, wave(n, 1))
    found = neuron_logit_directions(W_L, 3)
    torch.testing.assert_close(found, torch.stack([u, v], dim=1) * math.sqrt(n / 2))
    assert neuron_logit_directions(W_L, 4).shape == (6, 1)


@pytest.mark.parametrize("rest", [(), (3,), (2, 4)])
def test_two_d_coefficients_are_scalar_products_with_products_of_rows(rest):
    n, x = 7, draw(7, 7, *rest)
    coefficients = two_d_coefficients(x)
    row_a = wave(n, 1) / wave(n, 1).norm()
    row_b = wave(n, 2, phase=math.pi / 2) / wave(n, 2, phase=math.pi / 2).norm()
    expected = torch.einsum("a,b,ab...->...", row_a, row_b, x)
    torch.testing.assert_close(coefficients[1, 4], expected)
    torch.testing.assert_close(two_d_spectrum(x)[1, 4], expected.square().sum().sqrt())
    assert two_d_spectrum(x).square().sum().item() == pytest.approx(x.square().sum().item())


def test_gini_and_ipr_tell_equal_shares_from_one_holder():
    equal, one = torch.ones(10), torch.eye(10)[3]
    assert gini(equal) == pytest.approx(0, abs=1e-12)
    assert gini(one) == pytest.approx(0.9)
    assert ipr(equal) == pytest.approx(0.1)
    assert ipr(one) == pytest.approx(1)
    assert gini(torch.tensor([1.0, 3.0])) == pytest.approx(0.25)  # half the mean difference over the mean


def test_gini_is_half_the_relative_mean_difference():
    x = draw(12).abs()
    differences = (x[:, None] - x).abs().sum().item()
    assert gini(x) == pytest.approx(differences / (2 * len(x) ** 2 * x.mean().item()))


def test_doublets_count_planted_frequencies():
    n, m = 31, 64
    basis = [(k, phase) for k in (3, 5, 11) for phase in (0.0, math.pi / 2)]
    strength = [9.0, 8.8, 5.0, 4.9, 3.0, 2.8]
    directions = torch.linalg.qr(draw(m, 6)).Q.T
    W_L = sum(a * torch.outer(u, wave(n, k, phase)) for a, u, (k, phase) in zip(strength, directions, basis))
    noisy = W_L + 0.02 * draw(m, n, seed=18)
    for matrix in (W_L, noisy):
        found = doublets(torch.linalg.svdvals(matrix - matrix.mean(dim=1, keepdim=True)))
        assert found.rank == 6
        assert len(found.pairs) == 3
        assert (found.pairs[:, 1] / found.pairs[:, 0] > 0.9).all()


def test_unequal_neighbours_are_no_doublet():
    found = doublets(torch.tensor([10.0, 9.9, 6.0, 4.0, 0.1, 0.1, 0.1, 0.1, 0.1]))
    assert found.rank == 4
    assert found.pairs.tolist() == [[10.0, pytest.approx(9.9)]]
    assert len(doublets(torch.zeros(5)).pairs) == 0
    assert len(doublets(torch.ones(1)).pairs) == 0
