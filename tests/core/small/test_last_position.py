"""The fast plan on cases with names; its laws over all architectures are in laws/test_core_laws."""

import dataclasses

import pytest
import torch
from torch import Tensor

from micrographia.core.errors import BadConfig, BadShape
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.ensemble import PlainObjective
from micrographia.core.small.last_position import LastPosition, supports
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.training import Layout
from small import A_FEW, GRID, SIZES, roughened

ARCH = Architecture(**{**SIZES, "n_ctx": 3})


def flat_weights(arch: Architecture, *, members: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = [roughened(init_weights(arch, torch.Generator().manual_seed(k), dtype=dtype), k) for k in range(members)]
    return Layout(arch.weight_shapes()).pack(drawn)


def all_pairs(arch: Architecture = ARCH) -> tuple[Tensor, Tensor]:
    """Every pair of tokens but the last, then the last token, which asks; one set of data for all members."""
    asks = arch.d_vocab - 1
    a, b = torch.cartesian_prod(torch.arange(asks), torch.arange(asks)).unbind(1)
    return torch.stack([a, b, torch.full_like(a, asks)], 1)[None], ((a + b) % arch.d_vocab_out)[None]


def test_what_the_plan_covers():
    covered = {name for name, arch in GRID.items() if supports(arch)}
    by_name = {name for name in GRID if name.startswith(("1-none-relu-learned", "1-none-gelu-learned"))}
    assert covered == by_name
    assert len(covered) == 8


NOT_COVERED = {name: arch for name, arch in A_FEW.items() if name != "plain"}
NOT_COVERED |= {act: dataclasses.replace(ARCH, act=act) for act in ("gelu_new", "silu", "tanh", "square", "swiglu")}
NOT_COVERED |= {"unembed_bias": dataclasses.replace(ARCH, unembed_bias=True)}


@pytest.mark.parametrize("name", NOT_COVERED)
def test_what_it_does_not_cover_is_refused(name):
    arch = dataclasses.replace(NOT_COVERED[name], n_ctx=3)
    with pytest.raises(BadConfig, match="Use the plain plan"):
        LastPosition(arch, *all_pairs(arch))


def test_a_last_token_that_changes_is_refused():
    tokens, labels = all_pairs()
    tokens = tokens.clone()
    tokens[0, 0, -1] = 0
    with pytest.raises(BadConfig, match=r"last tokens \[0, 6\]"):
        LastPosition(ARCH, tokens, labels)


def test_data_that_do_not_fit_are_refused():
    tokens, labels = all_pairs()
    wild_tokens, wild_labels = tokens.clone(), labels.clone()
    wild_tokens[0, 3, 1], wild_labels[0, 3] = ARCH.d_vocab, ARCH.d_vocab_out
    for data in (
        (tokens[..., 1:], labels),  # shorter than the context: the tables are those of all positions
        (tokens.expand(3, -1, -1), labels.expand(3, -1)),
        (wild_tokens, labels),
        (tokens, wild_labels),
        (-tokens, labels),
    ):
        with pytest.raises((BadShape, BadConfig)):
            LastPosition(ARCH, *data, members=2)


@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_its_logits_are_those_of_the_plain_model_at_the_last_position(act):
    arch = dataclasses.replace(ARCH, act=act, attn_bias=True)
    tokens, labels = all_pairs(arch)
    weights = flat_weights(arch)
    plan = LastPosition(arch, tokens, labels, members=2, dtype=torch.float64)
    for k in range(2):
        model = Transformer(arch, Layout(arch.weight_shapes()).member(weights, k))
        expected = model.run(tokens[0], logits="last").logits[:, 0]
        torch.testing.assert_close(plan.logits_of(weights)[k], expected, rtol=1e-11, atol=1e-11)


def test_its_gradient_is_that_of_small_differences():
    tokens, labels = all_pairs()
    arch = dataclasses.replace(ARCH, act="gelu")
    weights = flat_weights(arch, members=1)
    plan = LastPosition(arch, tokens, labels, dtype=torch.float64)
    gradient = plan(weights).gradient
    direction = torch.randn(weights.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    there, back = (plan(weights + sign * 1e-5 * direction).loss for sign in (1, -1))
    torch.testing.assert_close((there - back) / 2e-5, (gradient * direction).sum(1), rtol=1e-7, atol=1e-9)


def test_a_call_leaves_weights_and_data_alone_and_gives_the_same_bits_again():
    tokens, labels = all_pairs()
    weights = flat_weights(ARCH, dtype=torch.float32)
    before = weights.clone(), tokens.clone(), labels.clone()
    plan = LastPosition(ARCH, tokens, labels, members=2)
    first = plan(weights)
    kept = first.loss.clone(), first.gradient.clone()
    plan.evaluate(weights + 1)
    second = plan(weights)
    assert all(torch.equal(now, then) for now, then in zip((weights, tokens, labels), before))
    assert all(torch.equal(now, then) for now, then in zip((*first, *second), (*kept, *kept)))


def test_a_member_of_many_and_alone_give_the_same_loss():
    tokens, labels = all_pairs()
    weights = flat_weights(ARCH, members=3)
    together = LastPosition(ARCH, tokens, labels, members=3, dtype=torch.float64)(weights)
    for k in range(3):
        alone = LastPosition(ARCH, tokens, labels, dtype=torch.float64)(weights[k : k + 1])
        torch.testing.assert_close(together.loss[k], alone.loss[0], rtol=1e-13, atol=0)
        torch.testing.assert_close(together.gradient[k], alone.gradient[0], rtol=1e-12, atol=1e-14)


def test_a_tiny_loss_in_float32_keeps_its_digits():
    """On the rows that a network answers most surely; there a float32 log-softmax is quantised at 1.2e-7."""
    tokens, _ = all_pairs()
    weights = flat_weights(ARCH, members=1, dtype=torch.float32)
    Layout(ARCH.weight_shapes()).views(weights)["unembed.W_U"].mul_(60)
    logits = (
        Transformer(ARCH, Layout(ARCH.weight_shapes()).member(weights, 0)).run(tokens[0], logits="last").logits[:, 0]
    )
    margin = logits.topk(2).values.diff().abs()[:, 0]
    sure = (margin > 16.5) & (margin < 30)
    data = tokens[:, sure], logits.argmax(-1)[None, sure]
    loss, gradient = LastPosition(ARCH, *data)(weights)
    exact = PlainObjective(ARCH, *data)(weights.double())
    usual = torch.nn.functional.cross_entropy(logits[sure], data[1][0])
    assert 1e-10 < exact.loss.item() < 1e-7
    torch.testing.assert_close(loss, exact.loss, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        gradient.double(), exact.gradient, rtol=1e-4, atol=1e-4 * exact.gradient.abs().max().item()
    )
    assert abs(usual.item() / exact.loss.item() - 1) > 1e-2


def test_a_step_has_its_gradient_also_where_the_caller_switched_gradients_off():
    weights = flat_weights(ARCH)
    plan = LastPosition(ARCH, *all_pairs(), members=2, dtype=torch.float64)
    expected = [each.clone() for each in plan(weights)]
    with torch.no_grad():
        found = plan(weights)
    assert all(torch.equal(now, then) for now, then in zip(found, expected))
    assert float(expected[1].abs().max()) > 0
