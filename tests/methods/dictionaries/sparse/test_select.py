"""Selection without sorting finds what sorting finds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.sparse.select import Entries, above, joined, share_bound, top_of_all, top_of_rows

SIZES = st.tuples(st.integers(0, 7), st.integers(1, 70))


def numbers(rows: int, n: int, seed: int, ties: bool = False):
    p = torch.randn(rows, n, generator=generator(seed))
    return (p * 2).round() if ties else p


def dense(found: Entries, like):
    return torch.zeros_like(like).index_put((found.rows, found.latents), found.values)


@given(SIZES, st.integers(0, 99), st.booleans(), st.booleans())
def test_entries_above_a_bound_are_those_of_the_mask(size, seed, ties, or_at):
    p = numbers(*size, seed, ties)
    bound = numbers(*size, seed + 1, ties)[:, 0]
    for limit, each in ((bound, bound[:, None]), (0.0, 0.0)):
        found = above(p, limit, or_at=or_at)
        mask = p >= each if or_at else p > each
        assert len(found.rows) == mask.sum()
        assert mask[found.rows, found.latents].all()
        assert torch.equal(p[found.rows, found.latents], found.values)
        assert torch.equal(found.rows, found.rows.sort().values)


@given(SIZES, st.integers(1, 80), st.integers(0, 99), st.booleans(), st.floats(-3, 1))
def test_the_largest_of_each_row_are_those_of_a_sort(size, k, seed, ties, shift):
    p = numbers(*size, seed, ties) + shift
    found = top_of_rows(p, k)
    got = dense(found, p).sort(1, descending=True).values
    wanted = p.relu().sort(1, descending=True).values
    wanted[:, k:] = 0
    assert torch.equal(got, wanted)
    assert torch.equal(p[found.rows, found.latents], found.values)
    assert (found.values > 0).all()
    assert len(set(zip(found.rows.tolist(), found.latents.tolist(), strict=True))) == len(found.rows)


@given(SIZES, st.integers(1, 200), st.integers(0, 99), st.booleans())
def test_the_largest_of_all_are_those_of_a_sort(size, n, seed, ties):
    p = numbers(*size, seed, ties)
    found = top_of_all(above(p, 0.0), n)
    wanted = p[p > 0].sort(descending=True).values[:n]
    assert torch.equal(found.values.sort(descending=True).values, wanted)
    assert torch.equal(found.rows, found.rows.sort().values)


def test_blocks_of_rows_join_to_the_whole():
    p = numbers(7, 24, 0)
    whole, parts = above(p, 0.5), [above(p[:3], 0.5), above(p[3:3], 0.5), above(p[3:], 0.5)]
    for got, wanted in zip(joined(parts, [3, 0, 4]), whole, strict=True):
        assert torch.equal(got, wanted)


def test_columns_of_a_wider_matrix_are_read_right():
    wide = numbers(5, 64, 3)
    for p in (wide[:, ::2], wide[:, 8:40], wide.T):
        assert torch.equal(dense(top_of_rows(p, 3), p), dense(top_of_rows(p.contiguous(), 3), p))
        assert torch.equal(dense(above(p, 0.3), p), p * (p > 0.3))


def test_rows_of_one_value_keep_k_of_it():
    p = torch.ones(3, 4096)
    assert torch.bincount(top_of_rows(p, 32).rows).tolist() == [32, 32, 32]
    assert len(top_of_rows(-p, 32).rows) == 0


@pytest.mark.parametrize("each", [0.5, 4, 32])
def test_a_sampled_bound_lets_about_as_many_through_as_asked(each):
    p = numbers(512, 4096, 0)
    passed = (p > share_bound(p, each)).sum().item() / len(p)
    assert passed == pytest.approx(each, rel=0.5)
    assert share_bound(p - 100, each) == 0
