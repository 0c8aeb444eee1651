"""Gradient and decay hold each other only where a network rests as it was trained."""

import math

import pytest
import torch
from torch import Generator

from micrographia.core.ensemble import PlainObjective
from micrographia.core.errors import BadShape
from micrographia.core.training import AdamW, Layout, fresh_state, train
from micrographia.core.transformer import Architecture, init_weights
from micrographia.methods.decay_balance import decay_balance

ARCH = Architecture(d_vocab=6, d_vocab_out=5, n_ctx=3, d_model=8, n_heads=1, d_head=8, d_mlp=16)
TOKENS = torch.cartesian_prod(torch.arange(5), torch.arange(5), torch.tensor([5]))[::2]
LABELS = (TOKENS[:, 0] + TOKENS[:, 1]) % 5


def test_it_is_the_share_of_the_weights_that_the_gradient_opposes():
    weights = init_weights(ARCH, Generator().manual_seed(0), dtype=torch.float64)
    layout = Layout(ARCH.weight_shapes())
    flat = layout.pack([weights])
    gradient = PlainObjective(ARCH, TOKENS[None], LABELS[None])(flat).gradient
    expected = -(gradient.sign() * flat).sum() / flat.abs().sum()
    assert decay_balance(ARCH, weights, TOKENS, LABELS) == pytest.approx(expected.item(), abs=1e-12)


def test_chunks_change_nothing(monkeypatch):
    weights = init_weights(ARCH, Generator().manual_seed(0), dtype=torch.float64)
    whole = decay_balance(ARCH, weights, TOKENS, LABELS)
    monkeypatch.setattr("micrographia.methods.decay_balance.CHUNK", 4)
    assert decay_balance(ARCH, weights, TOKENS, LABELS) == pytest.approx(whole, abs=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_a_network_comes_to_rest_as_it_is_trained():
    layout = Layout(ARCH.weight_shapes())
    state = fresh_state(layout.pack([init_weights(ARCH, Generator().manual_seed(0))]))
    start = decay_balance(ARCH, layout.member(state.weights.clone(), 0), TOKENS, LABELS)
    objective = PlainObjective(ARCH, TOKENS[None], LABELS[None])
    for after, _ in train(state, objective, AdamW(lr=1e-2, weight_decay=1.0), steps=300):
        state = after
    assert start < 0.5
    assert decay_balance(ARCH, layout.member(state.weights, 0), TOKENS, LABELS) > 0.9


def test_weights_of_zero_have_no_balance():
    weights = {name: torch.zeros(shape) for name, shape in ARCH.weight_shapes().items()}
    assert decay_balance(ARCH, weights, TOKENS, LABELS) == 0.0
    assert math.isfinite(decay_balance(ARCH, weights, TOKENS[:1], LABELS[:1]))


def test_no_rows_are_refused():
    with pytest.raises(BadShape, match="no rows"):
        decay_balance(ARCH, init_weights(ARCH, Generator().manual_seed(0)), TOKENS[:0], LABELS[:0])
