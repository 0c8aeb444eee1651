"""Laws of the Fourier measures, for any modulus, even or odd."""

import cmath
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from micrographia.core.basis import (
    cube_coefficients,
    fold,
    fourier_basis,
    frequency_rows,
    n_frequencies,
    unfold,
)
from micrographia.methods.fourier.activations import frequency_shares
from micrographia.methods.fourier.cubes import logit_variance_explained, trig_loss
from micrographia.methods.fourier.losses import losses
from micrographia.methods.fourier.restricted import (
    excluded_logits,
    excluded_loss_per_frequency,
    projected_table,
    restricted_loss,
)
from micrographia.methods.fourier.spectra import spectrum, two_d_spectrum

moduli = st.integers(3, 16)
seeds = st.integers(0, 1000)
few = settings(deadline=None, max_examples=25)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_frequencies(n: int, seed: int) -> list[int]:
    chosen = torch.randperm(n_frequencies(n), generator=torch.Generator().manual_seed(seed)) + 1
    return chosen[: 1 + seed % len(chosen)].tolist()


def units(n: int) -> list[int]:
    return [u for u in range(1, n) if math.gcd(u, n) == 1]


def fold_frequency(k: int, n: int) -> int:
    """The frequency in 1 .. n // 2 whose cosine equals that of k."""
    return min(k % n, -k % n)


@few
@given(st.integers(2, 130))
def test_the_basis_is_orthonormal(n):
    basis, unit = fourier_basis(n), torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(basis @ basis.T, unit, rtol=0, atol=1e-13)
    torch.testing.assert_close(basis.T @ basis, unit, rtol=0, atol=1e-13)


@few
@given(moduli, seeds)
def test_a_spectrum_keeps_the_energy(n, seed):
    x = draw(seed, n, n)
    energy = pytest.approx(x.square().sum().item(), rel=1e-12)
    assert spectrum(x).rows.square().sum().item() == energy
    assert two_d_spectrum(x).square().sum().item() == energy


@few
@given(moduli, seeds)
def test_folding_is_a_projection(n, seed):
    x = draw(seed, n, n, 2)
    kept = unfold(fold(x))
    torch.testing.assert_close(unfold(fold(kept)), kept, rtol=0, atol=1e-13)
    assert (kept * (x - kept)).sum().item() == pytest.approx(0, abs=1e-11)


@few
@given(moduli, seeds)
def test_what_is_restricted_and_what_is_excluded_sum_to_the_logits(n, seed):
    logits, ks = draw(seed, n, n, n), some_frequencies(n, seed)
    restricted = unfold(projected_table(fold(logits), ks))  # before its bias correction
    excluded = excluded_logits(logits, ks)
    torch.testing.assert_close(restricted + excluded, logits, rtol=0, atol=1e-12)
    assert (restricted * excluded).sum().item() == pytest.approx(0, abs=1e-10)


@few
@given(moduli, seeds, st.integers(0, 15))
def test_permuting_the_labels_only_rotates_phases(n, seed, t):
    logits, ks = draw(seed, n, n, n), some_frequencies(n, seed)
    moved = logits.roll(t, dims=2)  # what was said of c is said of c + t
    before, after = cube_coefficients(logits), cube_coefficients(moved)
    for k in range(1, (n - 1) // 2 + 1):
        old = torch.complex(before.cosine[k - 1], before.sine[k - 1])
        new = torch.complex(after.cosine[k - 1], after.sine[k - 1])
        turn = cmath.exp(-2j * math.pi * k * t / n)
        torch.testing.assert_close(new, old * turn, rtol=0, atol=1e-11)
    energy, same = (projected_table(fold(x), ks).square().sum().item() for x in (logits, moved))
    assert same == pytest.approx(energy, rel=1e-11)


@few
@given(moduli, seeds)
def test_multiplying_tokens_by_a_unit_permutes_frequencies(n, seed):
    u = units(n)[seed % len(units(n))]
    logits, neurons, ks = draw(seed, n, n, n), draw(seed + 1, n, n, 3), some_frequencies(n, seed)
    index = u * torch.arange(n) % n  # token x now stands for u x
    renamed = logits[index[:, None, None], index[:, None], index]
    renamed_ks = [fold_frequency(u * k, n) for k in ks]
    assert sorted(renamed_ks) == sorted(set(renamed_ks))
    before, after = cube_coefficients(logits).cosine, cube_coefficients(renamed).cosine
    for k, new in zip(ks, renamed_ks):
        assert after[new - 1].item() == pytest.approx(before[k - 1].item(), abs=1e-11)
    assert restricted_loss(renamed, renamed_ks).loss == pytest.approx(restricted_loss(logits, ks).loss, rel=1e-11)
    assert trig_loss(renamed, renamed_ks).loss == pytest.approx(trig_loss(logits, ks).loss, rel=1e-11)
    shares = frequency_shares(neurons)
    renamed_shares = frequency_shares(neurons[index[:, None], index])
    for k in range(1, n_frequencies(n) + 1):
        torch.testing.assert_close(renamed_shares[:, fold_frequency(u * k, n) - 1], shares[:, k - 1])


@few
@given(moduli, seeds)
def test_fast_and_dense_restricted_loss_agree(n, seed):
    logits, ks = draw(seed, n, n, n), some_frequencies(n, seed)
    train = draw(seed + 1, n, n) > 0
    basis = fourier_basis(n)
    x = torch.arange(n)
    waves = [unfold(row) for k in ks for row in basis[frequency_rows(k, n)]]
    directions = torch.stack([(wave / wave.norm()).flatten() for wave in waves])  # cos and sin(w_k(a + b)) over pairs
    rows = logits.flatten(0, 1)
    kept = directions.T @ (directions @ rows)
    dense = (kept + (rows - kept).mean(dim=0)).view(n, n, n)
    found, expected = restricted_loss(logits, ks, train), losses(dense, train)
    assert tuple(found) == pytest.approx(tuple(expected), rel=1e-12, nan_ok=True)
    assert directions.shape[0] == len({row for k in ks for row in range(n)[frequency_rows(k, n)]}) <= len(x) - 1


@few
@given(moduli, seeds)
def test_each_excluded_loss_is_that_of_its_excluded_logits(n, seed):
    logits, pairs = 4 * draw(seed, n, n, n), draw(seed + 1, n, n) > -1
    alone = excluded_loss_per_frequency(logits, pairs)
    for k in range(1, n_frequencies(n) + 1):
        expected = losses(excluded_logits(logits, [k]), pairs).train_loss
        assert alone[k - 1].item() == pytest.approx(expected, rel=1e-11, nan_ok=True)


@few
@given(moduli, seeds)
def test_all_cubes_explain_no_more_than_the_whole_variance(n, seed):
    logits = draw(seed, n, n, n)
    everything = list(range(1, n_frequencies(n) + 1))
    share = logit_variance_explained(logits, everything)
    assert 0 <= share <= 1
    only_cubes = excluded_logits(logits, [], form="3d") - excluded_logits(logits, everything, form="3d")
    assert logit_variance_explained(only_cubes, everything) == pytest.approx(1)
