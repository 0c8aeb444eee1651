"""The fused plan is the plain transformer: the same logits and gradients, whatever the architecture."""

import dataclasses

import pytest
import torch

from micrographia.core.errors import BadConfig
from micrographia.core.small.fused import fused_forward
from micrographia.core.small.transformer import forward
from small import A_FEW, GRID, small_model, some_tokens

ATTENDING = {name: arch for name, arch in GRID.items() if arch.attention}
BOTH = (fused_forward, forward)


def gradients(plan, arch, state, tokens):
    leaves = {name: weight.clone().requires_grad_() for name, weight in state.items()}
    logits = plan(arch, leaves, tokens)
    logits.log_softmax(-1)[..., 0].sum().backward()
    return logits.detach(), {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("name", ATTENDING)
def test_logits_and_gradients_are_the_plain_plans_in_float64(name):
    arch = ATTENDING[name]
    model, tokens = small_model(arch, dtype=torch.float64), some_tokens(arch)
    (fused, fused_gradients), (plain, plain_gradients) = (gradients(p, arch, model.state, tokens) for p in BOTH)
    torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fused_gradients, plain_gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [name for name, arch in A_FEW.items() if arch.attention])
def test_they_are_near_in_float32(name):
    arch = A_FEW[name]
    model, tokens = small_model(arch), some_tokens(arch)
    (fused, fused_gradients), (plain, plain_gradients) = (gradients(p, arch, model.state, tokens) for p in BOTH)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fused_gradients, plain_gradients, rtol=1e-4, atol=1e-4)


def test_the_comparison_sees_a_changed_weight():
    arch = A_FEW["normed"]
    model, tokens = small_model(arch), some_tokens(arch)
    other = dict(model.state) | {"blocks.0.attn.W_Q": model.state["blocks.0.attn.W_Q"] * 1.01}
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            fused_forward(arch, other, tokens), fused_forward(arch, model.state, tokens), rtol=1e-4, atol=1e-4
        )


def test_a_later_word_changes_nothing_before_it():
    arch = A_FEW["modern"]
    model, tokens = small_model(arch), some_tokens(arch)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % arch.d_vocab
    torch.testing.assert_close(
        fused_forward(arch, model.state, tokens)[:, :-1], fused_forward(arch, model.state, changed)[:, :-1]
    )


def test_a_model_without_attention_is_refused():
    arch = dataclasses.replace(A_FEW["plain"], attention=False)
    with pytest.raises(BadConfig, match="has no attention"):
        fused_forward(arch, {}, some_tokens(arch))
