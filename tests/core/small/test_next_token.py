"""Next-token training: the loss is the mean over what is scored, its gradient is that of the plain forward."""

import pytest
import torch
import torch.nn.functional as F

from micrographia.core.errors import BadShape
from micrographia.core.small.next_token import NextToken, Text, expected_cross_entropy
from micrographia.core.small.transformer import forward
from micrographia.core.training import AdamW, Layout, fresh_state, train
from small import A_FEW, small_model, some_tokens

ARCH = A_FEW["normed"]
TOKENS = some_tokens(ARCH, batch=6) % ARCH.d_vocab_out  # every token can be predicted too


def packed(*seeds: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    models = [small_model(ARCH, seed=seed, dtype=dtype).state for seed in seeds]
    return Layout(ARCH.weight_shapes()).pack(models)


def one(text: Text, **choices) -> NextToken:
    return NextToken(ARCH, [lambda step: text], **choices)


def by_hand(weights: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    logits = forward(ARCH, Layout(ARCH.weight_shapes()).member(weights, 0), TOKENS[:, :-1])
    losses = -logits.log_softmax(-1).gather(-1, TOKENS[:, 1:, None])[..., 0]
    return losses[scored[:, 1:]].mean()


@pytest.mark.parametrize("plan", ["fused", "plain"])
@pytest.mark.parametrize("part", [False, True])
def test_the_loss_is_the_mean_over_what_is_scored(plan, part):
    scored = torch.ones_like(TOKENS, dtype=torch.bool)
    scored[::2, 2:] = not part
    weights = packed(0).requires_grad_()
    expected = by_hand(weights, scored)
    (gradient,) = torch.autograd.grad(expected, weights)
    found = one(Text(TOKENS, scored if part else None), plan=plan)(weights.detach())
    torch.testing.assert_close(found.loss, expected.detach()[None])
    torch.testing.assert_close(found.gradient, gradient)


def test_what_is_not_scored_is_still_read():
    scored = torch.ones_like(TOKENS, dtype=torch.bool)
    scored[:, 1] = False
    other = TOKENS.clone()
    other[:, 1] = (other[:, 1] + 1) % ARCH.d_vocab_out
    assert not torch.equal(one(Text(TOKENS, scored))(packed(0)).loss, one(Text(other, scored))(packed(0)).loss)


def test_members_have_batches_of_their_own_and_do_what_they_do_alone():
    other = TOKENS.flip(0)[:4]
    both = NextToken(ARCH, [lambda step: Text(TOKENS), lambda step: Text(other)])(packed(0, 1))
    for k, text in enumerate((TOKENS, other)):
        alone = one(Text(text))(packed(k))
        assert torch.equal(both.loss[k], alone.loss[0])
        assert torch.equal(both.gradient[k], alone.gradient[0])


def test_the_batch_depends_on_the_step():
    asked = []

    def batches(step: int) -> Text:
        asked.append(step)
        return Text(TOKENS.roll(step, 0)[:3])

    objective = NextToken(ARCH, [batches])
    states = [state.step for state, _ in train(fresh_state(packed(0)), objective, AdamW(lr=1e-2), steps=3)]
    assert (asked, states) == ([0, 1, 2], [1, 2, 3])


def test_a_row_is_learned():
    text = Text(TOKENS[:1])
    losses = [loss.item() for _, loss in train(fresh_state(packed(0)), one(text), AdamW(lr=1e-2), steps=60)]
    assert losses[-1] < 0.1 * losses[0]


def test_another_number_of_members_is_refused():
    with pytest.raises(BadShape, match="Batches of 1"):
        one(Text(TOKENS))(packed(0, 1))


@pytest.mark.parametrize("plan", ["fused", "plain"])
def test_a_step_has_its_gradient_also_where_the_caller_switched_gradients_off(plan):
    objective = one(Text(TOKENS, None), plan=plan)
    expected = objective(packed(0), 0)
    with torch.no_grad():
        found = objective(packed(0), 0)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.gradient, expected.gradient)
    assert float(expected.gradient.abs().max()) > 0


def test_the_expected_loss_is_the_mean_over_the_tokens_that_may_come():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    likely = torch.zeros(2, 3, 5, dtype=torch.bool)
    likely[..., 1] = likely[..., 3] = True
    scored = torch.tensor([[True, True, False], [True, False, False]])
    each = [F.cross_entropy(logits[scored], torch.full((3,), token)) for token in (1, 3)]
    torch.testing.assert_close(expected_cross_entropy(logits, likely, scored), (each[0] + each[1]) / 2)
