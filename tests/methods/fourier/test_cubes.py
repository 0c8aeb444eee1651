"""The cubes cos(w_k(a + b - c)) in the logits against their dense definitions."""

import math

import pytest
import torch

from micrographia.core.basis import fold, unfold
from micrographia.methods.fourier.cubes import (
    cosine_coefficients,
    cube_table,
    logit_variance_explained,
    trig_loss,
    trig_ratio,
)
from micrographia.methods.fourier.losses import losses

CASES = [(7, [2]), (7, [1, 3]), (8, [2, 4]), (8, [])]


def draw(*shape: int, seed: int = 10) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cube(n: int, k: int) -> torch.Tensor:
    x = torch.arange(n, dtype=torch.float64)
    values = torch.cos(2 * math.pi * k / n * (x[:, None, None] + x[:, None] - x))
    return values / values.norm()


@pytest.mark.parametrize(("n", "ks"), CASES)
def test_trig_loss_equals_the_dense_definition(n, ks):
    logits, train = draw(n, n, n), draw(n, n, seed=11) > 0
    kept = sum(((logits * cube(n, k)).sum() * cube(n, k) for k in ks), torch.zeros_like(logits))
    torch.testing.assert_close(unfold(cube_table(fold(logits), ks)), kept, rtol=0, atol=1e-12)
    assert tuple(trig_loss(logits, ks, train)) == pytest.approx(tuple(losses(kept, train)), rel=1e-12)


@pytest.mark.parametrize(("n", "ks"), CASES)
def test_variance_explained_equals_the_dense_definition(n, ks):
    logits = draw(n, n, n) + 50 * draw(n, n, 1, seed=12)  # the offset of each pair is no part of the variance
    centred = logits - logits.mean(dim=-1, keepdim=True)
    v = torch.stack([(centred * cube(n, k)).sum() for k in range(1, n // 2 + 1)])
    torch.testing.assert_close(cosine_coefficients(logits), v, rtol=0, atol=1e-11)
    share = sum(v[k - 1].item() ** 2 for k in ks) / centred.square().sum().item()
    assert logit_variance_explained(logits, ks) == pytest.approx(share, rel=1e-11)


def test_planted_cubes_explain_all_and_only_theirs():
    logits = 3 * cube(9, 2) + 4 * cube(9, 4) + draw(9, 9, 1)
    assert logit_variance_explained(logits, [2, 4]) == pytest.approx(1)
    assert logit_variance_explained(logits, [2]) == pytest.approx(9 / 25)
    assert logit_variance_explained(logits, [1, 3]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "ks"), CASES)
def test_trig_ratio_equals_the_dense_definition(n, ks):
    x = draw(n, n, 4) + 1
    a = torch.arange(n, dtype=torch.float64)
    energy = torch.zeros(4, dtype=torch.float64)
    for k in ks:
        for wave in (torch.cos, torch.sin)[: 2 if 2 * k < n else 1]:
            direction = wave(2 * math.pi * k / n * (a[:, None] + a))
            energy += torch.einsum("ab,abm->m", direction / direction.norm(), x) ** 2
    expected = energy / (x - x.mean(dim=(0, 1))).square().sum(dim=(0, 1))
    torch.testing.assert_close(trig_ratio(x, ks), expected, rtol=1e-12, atol=1e-14)


def test_a_column_that_does_not_vary_has_no_trig_ratio():
    ratio = trig_ratio(torch.stack([draw(7, 7), torch.ones(7, 7, dtype=torch.float64)], dim=2), [1])
    assert ratio.isnan().tolist() == [False, True]
