"""How well batches are mixed, and the scale of activations, against plain ways to the same."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from letters import random_rows, reader
from micrographia.core.errors import UserError
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.stream.batches import ActivationStream
from micrographia.core.stream.harvest import Harvested, Kept
from micrographia.core.stream.scale import geometric_median, measure_scale, sample_of
from micrographia.core.stream.shuffle import shuffle_quality, stream_quality


def tokens_of_rows(n_rows=200, each=8, likeness=1.0):
    """Tokens that share something with the others of their row."""
    shared = torch.randn(n_rows, 1, 16, generator=generator(0))
    x = likeness * shared + torch.randn(n_rows, each, 16, generator=generator(1))
    return x.flatten(0, 1), torch.arange(n_rows).repeat_interleave(each)


def measured(order, x, rows, batch=80):
    return shuffle_quality(x[order].split(batch), generator(2), rows=rows[order].split(batch))


def test_rows_in_their_order_are_seen_to_be_badly_mixed():
    x, rows = tokens_of_rows()
    found = measured(torch.arange(len(x)), x, rows)
    assert found.excess > 20
    assert found.same_row == pytest.approx(7 / 79)
    assert "of its pairs are of one row" in str(found)


def test_a_full_shuffle_is_seen_to_be_one():
    x, rows = tokens_of_rows()
    excesses = [measured(torch.randperm(len(x), generator=generator(seed)), x, rows).excess for seed in range(20)]
    assert max(map(abs, excesses)) < 4
    assert abs(sum(excesses) / 20) < 1
    found = measured(torch.randperm(len(x), generator=generator(99)), x, rows)
    assert found.same_row == pytest.approx(found.same_row_shuffled, rel=0.5)


def test_tokens_without_likeness_show_nothing_in_any_order():
    x, rows = tokens_of_rows(likeness=0.0)
    assert abs(measured(torch.arange(len(x)), x, rows).excess) < 4


def test_the_likeness_is_the_mean_cosine_over_pairs():
    x, rows = tokens_of_rows(n_rows=10, each=4)
    found = measured(torch.arange(40), x, rows, batch=20)
    unit = torch.nn.functional.normalize(x - x.mean(0), dim=-1)
    pairs = [float(unit[i] @ unit[j]) for i in range(40) for j in range(40) if i != j and i // 20 == j // 20]
    assert found.correlation == pytest.approx(sum(pairs) / len(pairs), rel=1e-4)


class Given:
    """A supply of activations at hand, 8 of a row."""

    def __init__(self, x):
        self.x = x.unflatten(0, (-1, 8))

    def count(self):
        return torch.full((len(self.x),), 8)

    def kinds(self):
        return {Site("embed"): Kept(16, torch.float32, torch.device("cpu"))}

    def passes(self, which, sites=None):
        yield Harvested({Site("embed"): self.x[which].flatten(0, 1)}, which.repeat_interleave(8), None)


def test_a_poor_buffer_is_told_from_a_good_one():
    """A buffer of few rows draws a batch from these alone."""
    x, _ = tokens_of_rows(n_rows=400)
    poor = ActivationStream.of(Given(x), batch=16, buffer_bytes=10_000)
    good = ActivationStream.of(Given(x), batch=16, buffer_bytes=10**6)
    assert poor.plan.blocks_an_epoch > 50 > good.plan.blocks_an_epoch == 1
    found = [stream_quality(stream, range(100), generator(0)) for stream in (poor, good)]
    assert found[0].same_row > 10 * found[1].same_row
    assert found[0].excess > 10 > 4 > abs(found[1].excess)


def test_batches_that_cannot_be_compared_are_refused():
    for batches in ([torch.zeros(3, 2)], [torch.zeros(3, 2), torch.zeros(2, 2)], [torch.zeros(1, 2)] * 2, []):
        with pytest.raises(UserError, match="two or more of one size"):
            shuffle_quality(batches, generator(0))
    with pytest.raises(UserError, match="2 or more"):
        shuffle_quality([torch.ones(3, 2)] * 2, generator(0), draws=1)


def test_the_scale_is_that_of_its_definition():
    x = torch.randn(500, 6, generator=generator(0)) + torch.arange(6)
    found = measure_scale(x)
    assert found.mean_norm == pytest.approx(float(x.norm(dim=-1).mean()), rel=1e-6)
    assert found.mean_square_norm == pytest.approx(float((x * x).sum(-1).mean()), rel=1e-6)
    torch.testing.assert_close(found.mean, x.mean(0))
    assert float((x * found.to_unit).square().sum(-1).mean()) == pytest.approx(1, rel=1e-5)
    assert float((x * found.to_root_d).norm(dim=-1).mean()) == pytest.approx(6**0.5, rel=1e-5)
    assert found.steps < 100


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 9))
def test_no_point_nearby_is_nearer_to_all_than_the_geometric_median(n, d, seed):
    x = torch.randn(n, d, generator=generator(seed), dtype=torch.float64).round(decimals=1)  # points that coincide too
    median, _ = geometric_median(x)

    def distance(y):
        return float((x - y).norm(dim=-1).sum())

    moves = torch.randn(20, d, generator=generator(seed + 100), dtype=torch.float64)
    assert all(distance(median) <= distance(median + size * move) + 1e-3 * n for move in moves for size in (1e-2, 1e-1))
    assert all(distance(median) <= distance(point) + 1e-3 * n for point in x)


def test_the_geometric_median_of_a_majority_is_where_they_are():
    x = torch.cat([torch.full((6, 2), 3.0), torch.tensor([[100.0, -50.0], [7.0, 8.0], [0.0, 1.0]])]).double()
    median, _ = geometric_median(x)
    torch.testing.assert_close(median, torch.full((2,), 3.0).double(), atol=1e-4, rtol=0)


def test_outliers_move_the_mean_and_not_the_geometric_median():
    x = torch.randn(1000, 4, generator=generator(0))
    x[:20] += 1000
    found = measure_scale(x)
    assert float(found.mean.norm()) > 30
    assert float(found.median.norm()) < 0.3


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.zeros(0, 3), "of 0 activations"),
        (torch.tensor([[1.0], [torch.nan]]), "1 of them NaN"),
        (torch.zeros(2, 2), "zero"),
    ],
)
def test_a_sample_without_a_scale_is_refused(x, says):
    with pytest.raises(UserError, match=says):
        measure_scale(x)


def test_a_sample_is_the_first_tokens():
    batches = (torch.full((5, 2), float(i)) for i in range(100))
    assert sample_of(batches, 12)[:, 0].tolist() == [0.0] * 5 + [1.0] * 5 + [2.0] * 2
    assert len(list(batches)) == 97  # the rest was not read
    with pytest.raises(UserError, match="no activations"):
        sample_of([])


def test_activations_of_a_model_have_a_scale():
    stream = ActivationStream(reader(), "L0.resid_post", random_rows(50), batch=16)
    assert measure_scale(stream(0).x).n_tokens == 16
