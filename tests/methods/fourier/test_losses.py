"""Cross-entropy over pairs, and over a table of a + b."""

import math

import pytest
import torch

from micrographia.core.basis import unfold
from micrographia.methods.fourier.losses import losses, pairs_per_sum, table_losses

N = 7


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def split() -> torch.Tensor:
    return torch.rand(N, N, generator=torch.Generator().manual_seed(2)) < 0.4


def test_losses_are_means_over_all_train_and_test_pairs():
    logits, train = draw(N, N, N), split()
    all_, part, rest = [], [], []
    for a in range(N):
        for b in range(N):
            loss = torch.logsumexp(logits[a, b], 0) - logits[a, b, (a + b) % N]
            right = logits[a, b].argmax() == (a + b) % N
            for rows in (all_, part if train[a, b] else rest):
                rows.append((loss.item(), float(right)))
    means = [sum(row[i] for row in rows) / len(rows) for i in (0, 1) for rows in (all_, part, rest)]
    assert losses(logits, train) == pytest.approx(tuple(means), rel=1e-12)


def test_without_a_split_only_all_pairs_are_scored():
    result = losses(draw(N, N, N))
    assert math.isfinite(result.loss)
    assert math.isfinite(result.accuracy)
    parts = (result.train_loss, result.test_loss, result.train_accuracy, result.test_accuracy)
    assert all(math.isnan(part) for part in parts)


@pytest.mark.parametrize("everything", [True, False])
def test_a_split_without_train_or_test_pairs_leaves_nan_there(everything):
    result = losses(draw(N, N, N), torch.full((N, N), everything))
    assert math.isnan(result.test_loss) == everything
    assert math.isnan(result.train_loss) != everything


def test_a_table_scores_as_its_unfolding():
    table, train = draw(N, N), split()
    assert table_losses(table, train) == pytest.approx(tuple(losses(unfold(table), train)), rel=1e-12)
    assert table_losses(table).loss == pytest.approx(losses(unfold(table)).loss, rel=1e-12)


def test_small_losses_in_float32_logits_are_not_quantised():
    right = torch.nn.functional.one_hot(unfold(torch.arange(N)), N)
    loss = losses(right.float() * 20).loss
    assert loss == pytest.approx((N - 1) * math.exp(-20), rel=1e-6)  # 1.2e-8, where float32 knows 0 and 1.2e-7


def test_pairs_are_counted_by_sum():
    train = split()
    counts = [sum(train[a, (s - a) % N].item() for a in range(N)) for s in range(N)]
    assert pairs_per_sum(train).tolist() == counts
