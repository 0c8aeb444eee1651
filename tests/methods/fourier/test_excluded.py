"""Excluded losses, for given frequencies and for each alone, against their dense definitions."""

import math

import pytest
import torch

from micrographia.methods.fourier.losses import losses
from micrographia.methods.fourier.restricted import (
    excluded_logits,
    excluded_loss,
    excluded_loss_per_frequency,
)

SIZES = (7, 8)
FORMS = ("2d", "3d")


def draw(*shape: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def split(n: int) -> torch.Tensor:
    return torch.rand(n, n, generator=torch.Generator().manual_seed(9)) < 0.4


def dense_excluded(logits: torch.Tensor, ks: list[int], form: str) -> torch.Tensor:
    n = logits.shape[0]
    x = torch.arange(n, dtype=torch.float64)
    left = logits.clone()
    for k in ks:
        w = 2 * math.pi * k / n
        if form == "3d":
            cube = torch.cos(w * (x[:, None, None] + x[:, None] - x))
            cube = cube / cube.norm()
            left -= (logits * cube).sum() * cube
            continue
        for wave in (torch.cos, torch.sin)[: 2 if 2 * k < n else 1]:
            direction = wave(w * (x[:, None] + x))
            direction = direction / direction.norm()
            left -= direction[:, :, None] * torch.einsum("ab,abc->c", direction, logits)
    return left


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("ks", [[], [2], [1, 3]])
def test_all_frequencies_together_equal_the_dense_definition(n, form, ks):
    logits, train = draw(n, n, n), split(n)
    dense = dense_excluded(logits, ks, form)
    torch.testing.assert_close(excluded_logits(logits, ks, form=form), dense, rtol=0, atol=1e-12)
    expected = tuple(losses(dense, train))
    assert tuple(excluded_loss(logits, ks, train, form=form)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("scale", [3.0, 400.0])  # the second is beyond what exp can hold, so it is summed directly
def test_each_frequency_alone_equals_the_dense_definition(n, form, scale):
    logits, train = draw(n, n, n, scale=scale), split(n)
    dense = [losses(dense_excluded(logits, [k], form), train) for k in range(1, n // 2 + 1)]
    found = excluded_loss_per_frequency(logits, train, form=form)
    assert found.tolist() == pytest.approx([loss.train_loss for loss in dense], rel=1e-12)


def test_excluding_the_only_frequency_leaves_chance():
    n, k = 11, 3
    x = torch.arange(n, dtype=torch.float64)
    logits = 40 * torch.cos(2 * math.pi * k / n * (x[:, None, None] + x[:, None] - x))
    everywhere = torch.ones(n, n, dtype=torch.bool)
    assert losses(logits).accuracy == 1
    for form in FORMS:
        alone = excluded_loss_per_frequency(logits, everywhere, form=form)
        assert alone[k - 1].item() == pytest.approx(math.log(n), rel=1e-9)
        assert alone.argmax().item() == k - 1
        assert excluded_loss(logits, [k], form=form).loss == pytest.approx(math.log(n), rel=1e-9)


def test_without_a_pair_there_is_no_excluded_loss():
    nothing = torch.zeros(7, 7, dtype=torch.bool)
    assert excluded_loss_per_frequency(draw(7, 7, 7), nothing).isnan().all()
    assert math.isnan(excluded_loss(draw(7, 7, 7), [1]).train_loss)
