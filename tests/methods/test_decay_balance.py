"""Gradient and decay hold each other only where a network rests as it was trained."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator

from micrographia.core.errors import BadShape
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.ensemble import PlainObjective
from micrographia.core.small.last_position import LastPosition
from micrographia.core.small.weights import init_weights
from micrographia.core.training import AdamW, Layout, fresh_state, train
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
@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_a_network_rests_as_it_was_trained(act):
    """Half of the pairs mod 13, memorised. The fewer the pairs, the less they tell activations apart."""
    arch = replace(ARCH, d_vocab=14, d_vocab_out=14, d_model=32, n_heads=2, d_head=16, d_mlp=64, act=act)
    every = torch.cartesian_prod(torch.arange(13), torch.arange(13), torch.tensor([13]))
    rows = every[torch.randperm(169, generator=Generator().manual_seed(1))[:84]]
    labels = (rows[:, 0] + rows[:, 1]) % 13
    layout = Layout(arch.weight_shapes())
    state = fresh_state(layout.pack([init_weights(arch, Generator().manual_seed(0))]))
    start = decay_balance(arch, layout.member(state.weights, 0), rows, labels)
    objective = LastPosition(arch, rows[None], labels[None])
    for after, _ in train(state, objective, AdamW(lr=3e-3, weight_decay=2.0), steps=200):
        state = after
    weights = layout.member(state.weights, 0)
    rests = {each: decay_balance(replace(arch, act=each), weights, rows, labels) for each in ("relu", "gelu", "silu")}
    assert rests[act] > start + 0.2
    assert max(rests, key=lambda each: rests[each]) == act


def test_weights_of_zero_have_no_balance():
    weights = {name: torch.zeros(shape) for name, shape in ARCH.weight_shapes().items()}
    assert decay_balance(ARCH, weights, TOKENS, LABELS) == 0.0
    assert math.isfinite(decay_balance(ARCH, weights, TOKENS[:1], LABELS[:1]))


def test_no_rows_are_refused():
    with pytest.raises(BadShape, match="no rows"):
        decay_balance(ARCH, init_weights(ARCH, Generator().manual_seed(0)), TOKENS[:0], LABELS[:0])
