"""Muon: what it orthogonalises, and that all other weights move as under AdamW."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.muon import Muon, as_matrix, orthogonalised
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.weights import init_weights
from micrographia.core.training import AdamW, Layout, fresh_state

ARCH = Architecture(d_vocab=7, d_vocab_out=7, n_ctx=5, n_layers=1, d_model=8, n_heads=2, d_head=4, d_mlp=16)
LAYOUT = Layout(ARCH.weight_shapes())
ADAM = AdamW(lr=0.01, weight_decay=0.1, warmup=0, end=10)


def state_and_gradient(seed=0):
    drawn = torch.Generator().manual_seed(seed)
    state = fresh_state(LAYOUT.pack([init_weights(ARCH, drawn)]))
    return state, torch.randn(state.weights.shape, generator=drawn)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 9))
def test_singular_values_become_about_one_and_vectors_stay(rows, columns, seed):
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    if s.min() < 0.05 * s.max():  # five steps leave what is far smaller behind
        return
    found = u.mT @ orthogonalised(x) @ v.mT
    assert ((found.diagonal() > 0.5) & (found.diagonal() < 1.3)).all()
    torch.testing.assert_close(found - found.diagonal().diag(), torch.zeros_like(found), atol=1e-8, rtol=0)


def test_hidden_matrices_alone_are_orthogonalised():
    state, gradient = state_and_gradient()
    plain, _ = state_and_gradient()
    rule = Muon(shapes=LAYOUT.shapes, adam=ADAM, lr=0.1)
    start = LAYOUT.member(state.weights.clone(), 0)
    moved, expected = rule.update(state, gradient), ADAM.update(plain, gradient)
    for name, weight in LAYOUT.views(moved.weights).items():
        other = LAYOUT.views(expected.weights)[name]
        matrix = as_matrix(name, weight)
        assert (matrix is None) == torch.equal(weight, other), name
        if matrix is not None:
            step = as_matrix(name, start[name][None] * (1 - 0.1 * 0.1) - weight) / 0.1
            values = torch.linalg.svdvals(step[0]) / max(1, step.shape[2] / step.shape[1]) ** 0.5
            assert 0.2 < values.min() <= values.max() < 1.3


def test_every_head_lies_beside_the_others():
    state, _ = state_and_gradient()
    views = LAYOUT.views(state.weights)
    assert as_matrix("blocks.0.attn.W_Q", views["blocks.0.attn.W_Q"]).shape == (1, 8, 8)
    assert as_matrix("blocks.0.attn.W_O", views["blocks.0.attn.W_O"]).shape == (1, 8, 8)
    assert as_matrix("blocks.0.mlp.W_in", views["blocks.0.mlp.W_in"]).shape == (1, 8, 16)
    assert as_matrix("embed.W_E", views["embed.W_E"]) is None


def test_steps_are_the_same_after_a_stop():
    rule = Muon(shapes=LAYOUT.shapes, adam=ADAM)
    whole, gradient = state_and_gradient()
    for _ in range(4):
        whole = rule.update(whole, gradient)
    half, _ = state_and_gradient()
    for _ in range(2):
        half = rule.update(half, gradient)
    half = half._replace(**{name: tensor.clone() for name, tensor in half.tensors().items()})
    for _ in range(2):
        half = rule.update(half, gradient)
    assert torch.equal(whole.weights, half.weights)


def test_the_rate_rises_and_falls():
    adam = AdamW(warmup=4, end=10)
    assert [adam.share_of_rate(step) for step in (0, 2, 4, 8, 10, 12)] == pytest.approx([0, 0.5, 0.6, 0.2, 0, 0])
    assert AdamW(warmup=2).share_of_rate(1_000) == 1
