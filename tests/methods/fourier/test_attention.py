"""The periodicity of attention patterns over pairs."""

import math

import pytest
import torch

from micrographia.methods.fourier.activations import attention_periodicity, head_waves


def angle(n: int, k: int) -> torch.Tensor:
    return 2 * math.pi * k / n * torch.arange(n, dtype=torch.float64)


def draw(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(20), dtype=torch.float64)


@pytest.mark.parametrize(("n", "k"), [(7, 3), (8, 2)])
def test_a_planted_pattern_is_fitted_exactly(n, k):
    cos, sin = angle(n, k).cos(), angle(n, k).sin()
    pattern = 0.48 + 0.2 * (cos[:, None] - cos) - 0.1 * (sin[:, None] - sin)
    fit = attention_periodicity(torch.stack([pattern, 1 - pattern], dim=2))
    assert fit.frequency.tolist() == [k, k]
    torch.testing.assert_close(fit.fve, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(fit.alpha, torch.tensor([0.2, -0.2], dtype=torch.float64))
    torch.testing.assert_close(fit.beta, torch.tensor([-0.1, 0.1], dtype=torch.float64))
    torch.testing.assert_close(fit.mean, torch.tensor([0.48, 0.52], dtype=torch.float64))


def test_a_planted_pattern_at_nyquists_frequency_is_fitted_exactly():
    cos = angle(8, 4).cos()
    fit = attention_periodicity((0.5 + 0.2 * (cos[:, None] - cos))[:, :, None])
    assert fit.frequency.item() == 4
    assert fit.fve.item() == pytest.approx(1)
    assert fit.alpha.item() == pytest.approx(0.2)
    assert fit.beta.item() == 0


@pytest.mark.parametrize("n", [7, 8])
def test_the_share_is_that_of_least_squares_at_the_best_frequency(n):
    pattern = draw(n, n, 2)
    fit = attention_periodicity(pattern)
    for head in range(2):
        y = pattern[:, :, head].flatten()
        shares = []
        for k in range(1, n // 2 + 1):
            columns = [torch.ones(n, n, dtype=torch.float64)]
            for wave in (angle(n, k).cos(), angle(n, k).sin())[: 2 if 2 * k < n else 1]:
                columns.append(wave[:, None] - wave)
            design = torch.stack(columns, dim=-1).flatten(0, 1)
            left = y - design @ torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
            shares.append(1 - (left.square().sum() / (y - y.mean()).square().sum()).item())
        assert fit.fve[head].item() == pytest.approx(max(shares), abs=1e-12)
        assert fit.frequency[head].item() == 1 + shares.index(max(shares))


def test_uniform_attention_has_no_share():
    assert attention_periodicity(torch.full((7, 7, 1), 1 / 3)).fve.isnan().all()


def test_each_head_has_its_wave_and_its_mean_attention_over_pairs():
    pattern = draw(5, 5, 2, 3).softmax(dim=-1)
    rows, fit = head_waves(pattern), attention_periodicity(pattern[..., 0])
    assert [row["k"] for row in rows] == fit.frequency.tolist()
    means = torch.tensor([[row[name] for name in ("to_a", "to_b", "to_equals")] for row in rows])
    torch.testing.assert_close(means.double(), pattern.double().flatten(0, 1).mean(dim=0), rtol=0, atol=1e-6)
