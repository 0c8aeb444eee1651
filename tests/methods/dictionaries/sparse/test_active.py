"""Products through the active latents are the dense ones, and their gradients autograd's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.errors import BadShape
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.sparse.active import Active, by_latent, decode, dots, latent_sums, ragged
from micrographia.methods.dictionaries.sparse.select import above

CLOSE = {torch.float64: {"rtol": 1e-10, "atol": 1e-10}, torch.float32: {"rtol": 1e-4, "atol": 1e-4}}
DTYPES = st.sampled_from(sorted(CLOSE, key=str))


def case(rows: int, n: int, d: int, share: float, dtype: torch.dtype, seed: int = 0):
    """A matrix with that share of entries, the same as Active, decoder rows and a gradient of the output."""
    random = generator(seed)
    f = torch.randn(rows, n, generator=random, dtype=dtype).abs() + 0.1
    f = f * (torch.rand(rows, n, generator=random) < share)
    W, slope = (torch.randn(size, d, generator=random, dtype=dtype) for size in (n, rows))
    return f, ragged(*above(f, 0.0), n_rows=rows), W, slope


@given(
    st.integers(0, 6),
    st.integers(1, 40),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.1, 1.0]),
    DTYPES,
    st.integers(0, 9),
)
def test_products_through_the_active_latents_are_the_dense_ones(rows, n, d, share, dtype, seed):
    f, active, W, slope = case(rows, n, d, share, dtype, seed)
    assert torch.equal(active.dense(n), f)
    torch.testing.assert_close(decode(active, W), f @ W, **CLOSE[dtype])
    found = active._replace(values=dots(active, slope, W)).dense(n)
    torch.testing.assert_close(found, (slope @ W.T) * (f > 0), **CLOSE[dtype])
    latents = by_latent(active, n)
    torch.testing.assert_close(latents.sums(active.values, slope), f.T @ slope, **CLOSE[dtype])
    assert torch.equal(latents.counts, (f > 0).sum(0))
    torch.testing.assert_close(latent_sums(active, active.values, n), f.sum(0), **CLOSE[dtype])


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_gradients_are_those_of_autograd(dtype):
    f, active, W, slope = case(20, 64, 8, 0.1, dtype)
    f, W = f.requires_grad_(), W.requires_grad_()
    (f @ W).backward(slope)
    W = W.detach()
    mask = f.detach() > 0
    torch.testing.assert_close(active._replace(values=dots(active, slope, W)).dense(64), f.grad * mask, **CLOSE[dtype])
    torch.testing.assert_close(by_latent(active, 64).sums(active.values, slope), W_grad(f, slope), **CLOSE[dtype])


def W_grad(f, slope):
    return f.detach().T @ slope


def test_strides_do_not_matter():
    f, active, W, slope = case(12, 32, 6, 0.2, torch.float32)
    wide, tall = torch.randn(32, 12), torch.randn(6, 12)
    wide[:, ::2], tall[:] = W, slope.T
    torch.testing.assert_close(decode(active, wide[:, ::2]), f @ W)
    torch.testing.assert_close(dots(active, tall.T, wide[:, ::2]), dots(active, slope, W))
    torch.testing.assert_close(by_latent(active, 32).sums(active.values, tall.T), f.T @ slope)


def test_more_latents_than_16_bits_count():
    f, active, _, slope = case(3, 33_000, 2, 0.001, torch.float64)
    torch.testing.assert_close(by_latent(active, 33_000).sums(active.values, slope), f.T @ slope)


def test_bfloat16_is_refused_with_what_to_do():
    _, active, W, slope = case(4, 8, 3, 0.5, torch.float32)
    half = Active(active.values.bfloat16(), active.latents, active.offsets)
    for run in (
        lambda: decode(half, W.bfloat16()),
        lambda: decode(active, W.double()),
        lambda: dots(active, slope.bfloat16(), W.bfloat16()),
    ):
        with pytest.raises(BadShape, match="convert with"):
            run()
