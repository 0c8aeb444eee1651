"""The stacked plan is the plain transformer for each member, in loss and gradient, whatever it stacks."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from micrographia.core.errors import BadConfig, BadShape, UserError
from micrographia.core.model import Start
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.ensemble import init_ensemble
from micrographia.core.small.next_token import IGNORED
from micrographia.core.small.stacked import Stacked, StackedRows
from micrographia.core.small.transformer import Transformer, forward

SIZES = {"d_vocab": 9, "d_vocab_out": 9, "n_ctx": 4, "d_model": 8, "n_heads": 2, "d_head": 4, "d_mlp": 12}
KINDS = {
    "one layer": {},
    "tied": {"tied": True},
    "attention only": {"mlp": False},
    "two layers": {"n_layers": 2, "act": "gelu"},
    "bidirectional": {"n_layers": 2, "causal": False},
    "without biases": {"mlp_bias": False},
}
MEMBERS, COLUMNS = 3, (1, 3)


def arch_of(kind):
    return Architecture(**SIZES, **KINDS[kind])


def drawn(arch, dtype):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(9, (MEMBERS, 5, 4), generator=generator)
    targets = torch.randint(9, (MEMBERS, 5, 2), generator=generator)
    targets[0, :3, 0] = IGNORED
    weights = init_ensemble(arch, [torch.Generator().manual_seed(k) for k in range(MEMBERS)], dtype=dtype)
    return StackedRows(tokens, targets), weights


def plain(arch, rows, weights, k):
    """Loss and gradient of a member by the plain forward."""
    leaf = weights[k].clone().requires_grad_()
    state = Stacked(arch, lambda step: rows, COLUMNS).layout.member(leaf[None], 0)
    logits = forward(arch, state, rows.tokens[k])[:, list(COLUMNS)]
    loss = F.cross_entropy(logits.flatten(0, 1), rows.targets[k].flatten(), ignore_index=IGNORED)
    loss.backward()
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_every_member_has_the_plain_loss_and_gradient(kind, dtype, near):
    arch = arch_of(kind)
    rows, weights = drawn(arch, dtype)
    found = Stacked(arch, lambda step: rows, COLUMNS)(weights)
    for k in range(MEMBERS):
        loss, gradient = plain(arch, rows, weights, k)
        torch.testing.assert_close(found.loss[k], loss, rtol=near, atol=near)
        torch.testing.assert_close(found.gradient[k], gradient, rtol=near, atol=near)


def test_the_comparison_sees_causality():
    causal, both = arch_of("one layer"), dataclasses.replace(arch_of("one layer"), causal=False)
    rows, weights = drawn(causal, torch.float64)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            Stacked(causal, lambda step: rows, COLUMNS)(weights).loss,
            Stacked(both, lambda step: rows, COLUMNS)(weights).loss,
        )


@pytest.mark.parametrize("choice", [{"norm": "layernorm"}, {"positions": "rotary"}, {"attn_bias": True}])
def test_an_architecture_outside_the_plan_is_refused(choice):
    with pytest.raises(BadConfig, match="NextToken"):
        Stacked(Architecture(**SIZES, **choice), lambda step: pytest.fail("never asked"), COLUMNS)


def test_rows_of_other_members_are_refused():
    arch = arch_of("one layer")
    rows, weights = drawn(arch, torch.float32)
    with pytest.raises(BadShape, match="Give as many"):
        Stacked(arch, lambda step: rows, COLUMNS)(weights[:2])


def test_a_model_whose_positions_see_all_cannot_go_on_from_cached_keys():
    arch = arch_of("bidirectional")
    _, weights = drawn(arch, torch.float32)
    model = Transformer(arch, Stacked(arch, lambda step: pytest.fail("never asked"), COLUMNS).layout.member(weights, 0))
    with pytest.raises(UserError, match="whole sequences"):
        model.run(torch.zeros(1, 4, dtype=torch.long), start=Start(0, torch.zeros(1, 2, 8), offset=2))


@pytest.mark.parametrize("columns", [(-1,), (0, 4), ()])
def test_columns_that_the_rows_lack_are_refused(columns):
    arch = arch_of("one layer")
    rows, weights = drawn(arch, torch.float32)
    rows = rows._replace(targets=rows.targets[..., : len(columns)])
    with pytest.raises(BadConfig, match="of 4 positions"):
        Stacked(arch, lambda step: rows, columns)(weights)
