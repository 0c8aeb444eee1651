"""Layout, AdamW held against torch's, and the loop."""

import math

import pytest
import torch
from torch import Tensor

from micrographia.core.errors import BadConfig, NonFiniteLoss
from micrographia.core.training import AdamW, Layout, LossAndGradient, State, fresh_state, train

SHAPES = {"a.w": (2, 3), "b": (4,), "c": (1,)}
MEMBERS, SIZE = 3, 11


@pytest.fixture
def weights() -> Tensor:
    return torch.randn(MEMBERS, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def bowl(weights: Tensor, step: int = 0) -> LossAndGradient:
    """A loss with curvature, ripples and very different scales, and its gradient."""
    scales = torch.logspace(-3, 3, weights.shape[1], dtype=weights.dtype)
    leaf = weights.detach().requires_grad_()
    loss = (scales * (leaf - 1).square() + (5 * leaf).sin()).sum(1)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return LossAndGradient(loss.detach(), gradient)


def torchs_adamw(start: Tensor, steps: int, *, warmup: int, **choices: float) -> Tensor:
    """One member by torch.optim.AdamW, with the published warm-up as a LambdaLR."""
    parameter = start.clone()[None].requires_grad_()
    optimiser = torch.optim.AdamW([parameter], foreach=False, **choices)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(step / warmup, 1.0) if warmup else 1.0)
    for _ in range(steps):
        parameter.grad = bowl(parameter.detach()).gradient
        optimiser.step()
        schedule.step()
    return parameter.detach()[0]


def trained(start: Tensor, optimiser: AdamW, steps: int) -> State:
    return list(train(fresh_state(start), bowl, optimiser, steps=steps))[-1][0]


@pytest.mark.parametrize("warmup", [0, 1, 10])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_adamw_is_torchs_with_a_linear_warm_up(warmup, decay, weights):
    optimiser = AdamW(lr=1e-2, weight_decay=decay, beta1=0.8, beta2=0.98, eps=1e-6, warmup=warmup)
    found = trained(weights, optimiser, 50).weights
    for k in range(MEMBERS):
        expected = torchs_adamw(weights[k], 50, warmup=warmup, lr=1e-2, weight_decay=decay, betas=(0.8, 0.98), eps=1e-6)
        torch.testing.assert_close(found[k], expected, rtol=1e-12, atol=1e-12)
    assert (found - weights).abs().min() > 1e-3


def test_each_member_may_have_its_own_rate_and_decay(weights):
    rates, decays = [1e-3, 1e-2, 3e-2], [0.0, 1.0, 3.0]
    found = trained(weights, AdamW(lr=rates, weight_decay=decays), 50).weights
    for k in range(MEMBERS):
        choices = {"lr": rates[k], "weight_decay": decays[k], "betas": (0.9, 0.98), "eps": 1e-8}
        expected = torchs_adamw(weights[k], 50, warmup=10, **choices)
        torch.testing.assert_close(found[k], expected, rtol=1e-12, atol=1e-12)


def test_the_first_step_of_a_warm_up_moves_nothing(weights):
    state = trained(weights, AdamW(warmup=10), 1)
    assert torch.equal(state.weights, weights)
    assert state.mean.abs().min() > 0


@pytest.mark.parametrize("choice", [{"lr": [1e-3, 1e-2]}, {"weight_decay": [1.0] * 4}])
def test_hyper_parameters_for_another_number_of_members_are_refused(choice, weights):
    with pytest.raises(BadConfig, match="for 3 members"):
        trained(weights, AdamW(**choice), 1)


def test_a_fresh_state_does_not_touch_the_weights_it_was_made_from(weights):
    before = weights.clone()
    trained(weights, AdamW(), 20)
    assert torch.equal(weights, before)


def test_a_run_cut_in_two_takes_the_very_same_steps(weights):
    whole = trained(weights, AdamW(), 40)
    part = trained(weights, AdamW(), 17)
    copied = State(part.step, **{name: tensor.clone() for name, tensor in part.tensors().items()})
    *_, (resumed, _) = train(copied, bowl, AdamW(), steps=40)
    assert resumed.step == whole.step == 40
    assert all(torch.equal(resumed.tensors()[name], tensor) for name, tensor in whole.tensors().items())


def test_train_gives_the_loss_that_each_step_started_from(weights):
    losses, steps, before = [], [], [bowl(weights).loss]
    for state, loss in train(fresh_state(weights), bowl, AdamW(), steps=5):
        losses.append(loss)
        steps.append(state.step)
        before.append(bowl(state.weights).loss)
    assert steps == [1, 2, 3, 4, 5]
    assert all(torch.equal(found, expected) for found, expected in zip(losses, before))


def test_the_objective_is_given_the_step(weights):
    seen = []

    def objective(weights: Tensor, step: int) -> LossAndGradient:
        seen.append(step)
        return bowl(weights)

    state = fresh_state(weights)._replace(step=7)
    list(train(state, objective, AdamW(), steps=10))
    assert seen == [7, 8, 9]
    assert list(train(state._replace(step=10), objective, AdamW(), steps=10)) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_update(bad, where, weights):
    def objective(weights: Tensor, step: int) -> LossAndGradient:
        found = bowl(weights)
        if step == 4:
            getattr(found, where)[1] = bad
        return found

    steps = train(fresh_state(weights), objective, AdamW(), steps=10)
    state = [next(steps) for _ in range(4)][-1][0]
    kept = {name: tensor.clone() for name, tensor in state.tensors().items()}
    with pytest.raises(
        NonFiniteLoss, match=r"At step 4 .*member \[1\]" if where == "loss" else r"At step 4 .*gradient"
    ):
        next(steps)
    assert all(torch.equal(state.tensors()[name], tensor) for name, tensor in kept.items())


def test_a_layout_packs_and_unpacks_weights():
    layout = Layout(SHAPES)
    members = [{name: torch.randn(shape) for name, shape in SHAPES.items()} for _ in range(2)]
    flat = layout.pack(members)
    assert flat.shape == (2, SIZE)
    for k in range(2):
        assert all(torch.equal(layout.member(flat, k)[name], weight) for name, weight in members[k].items())
    views = layout.views(flat)
    assert {name: tuple(view.shape) for name, view in views.items()} == {name: (2, *s) for name, s in SHAPES.items()}
    assert torch.equal(layout.join(views), flat)


def test_a_layout_follows_its_own_order_and_gives_views():
    layout = Layout(SHAPES)
    member = {name: torch.full(shape, float(place)) for place, (name, shape) in enumerate(SHAPES.items())}
    flat = layout.pack([dict(reversed(member.items()))])
    assert flat[0].tolist() == [0.0] * 6 + [1.0] * 4 + [2.0]
    layout.views(flat)["b"].fill_(9.0)
    assert flat[0, 6:10].tolist() == [9.0] * 4
