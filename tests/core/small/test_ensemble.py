"""Many models in one program do what each does alone, by either plan."""

import pytest
import torch
from torch import Generator, Tensor

from micrographia.core.errors import BadShape
from micrographia.core.losses import accuracy, cross_entropy
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.ensemble import PlainObjective, init_ensemble
from micrographia.core.small.last_position import LastPosition
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.training import AdamW, Layout, LossAndGradient, fresh_state, train
from small import A_FEW, SIZES, roughened

ARCH = Architecture(**{**SIZES, "n_ctx": 3})
MEMBERS = 2


def generators(members: int = MEMBERS) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in range(members)]


def data_of(members: int, *, arch: Architecture = ARCH, rows: int = 20) -> tuple[Tensor, Tensor]:
    """Each member's own rows of (a + b) mod the number of outputs."""
    asks = arch.d_vocab - 1
    tokens = torch.randint(0, asks, (members, rows, 3), generator=Generator().manual_seed(5))
    tokens[..., -1] = asks
    return tokens, (tokens[..., 0] + tokens[..., 1]) % arch.d_vocab_out


def plan(kind: str, data: tuple[Tensor, Tensor], members: int, dtype: torch.dtype) -> PlainObjective | LastPosition:
    if kind == "plain":
        return PlainObjective(ARCH, *data)
    return LastPosition(ARCH, *data, members=members, dtype=dtype)


def trained(kind: str, weights: Tensor, data: tuple[Tensor, Tensor], *, steps: int, **choices: object) -> tuple:
    """Weights after the steps, and the loss (step, member) on the way."""
    objective = plan(kind, data, len(weights), weights.dtype)
    taken = list(train(fresh_state(weights), objective, AdamW(**choices), steps=steps))
    return taken[-1][0].weights, torch.stack([loss for _, loss in taken])


def test_each_member_is_drawn_from_its_own_generator():
    flat = init_ensemble(ARCH, generators())
    layout = Layout(ARCH.weight_shapes())
    for seed in range(MEMBERS):
        alone = init_weights(ARCH, Generator().manual_seed(seed))
        assert all(torch.equal(layout.member(flat, seed)[name], weight) for name, weight in alone.items())
    assert init_ensemble(ARCH, generators(), dtype=torch.float64).dtype == torch.float64


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ["plain", "fast"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared data", "own data"])
def test_a_member_equals_the_same_model_trained_alone(kind, shared):
    weights = init_ensemble(ARCH, generators(), dtype=torch.float64)
    data = data_of(1 if shared else MEMBERS)
    rates, decays = [1e-3, 1e-2], [0.0, 3.0]
    together, losses = trained(kind, weights, data, steps=100, lr=rates, weight_decay=decays)
    for k in range(MEMBERS):
        own = data if shared else tuple(part[k : k + 1] for part in data)
        alone, loss = trained(kind, weights[k : k + 1], own, steps=100, lr=rates[k], weight_decay=decays[k])
        torch.testing.assert_close(together[k], alone[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(losses[:, k], loss[:, 0], rtol=1e-9, atol=0)
    assert (losses[-1] < losses[0]).all()
    assert not torch.allclose(losses[:, 0], losses[:, 1])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_in_float32_the_losses_agree_to_1e_4(kind):
    weights = init_ensemble(ARCH, generators())
    data = data_of(MEMBERS)
    _, losses = trained(kind, weights, data, steps=100, lr=3e-3)
    for k in range(MEMBERS):
        _, loss = trained(kind, weights[k : k + 1], tuple(part[k : k + 1] for part in data), steps=100, lr=3e-3)
        torch.testing.assert_close(losses[:, k], loss[:, 0], rtol=1e-4, atol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_both_plans_train_the_same_models(dtype):
    weights, data = init_ensemble(ARCH, generators(), dtype=dtype), data_of(MEMBERS)
    (_, plain), (_, fast) = (trained(kind, weights, data, steps=50, lr=3e-3) for kind in ("plain", "fast"))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(fast, plain, rtol=tolerance, atol=0)


@pytest.mark.parametrize("arch", A_FEW.values(), ids=A_FEW)
def test_the_plain_objective_is_the_mean_loss_at_the_last_position_and_its_gradient(arch):
    members = [roughened(init_weights(arch, g, dtype=torch.float64), k) for k, g in enumerate(generators(2))]
    tokens = torch.randint(0, arch.d_vocab, (2, 6, arch.n_ctx), generator=Generator().manual_seed(3))
    labels = torch.randint(0, arch.d_vocab_out, (2, 6), generator=Generator().manual_seed(4))
    layout = Layout(arch.weight_shapes())
    objective = PlainObjective(arch, tokens, labels)
    found = objective(layout.pack(members))
    assert isinstance(found, LossAndGradient)
    losses, accuracies = objective.evaluate(layout.pack(members))
    for k, weights in enumerate(members):
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        logits = Transformer(arch, leaves).run(tokens[k], logits="last", grad=True).logits[:, 0]
        loss = cross_entropy(logits, labels[k]).mean()
        gradient = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        torch.testing.assert_close(found.loss[k], loss.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(losses[k], loss.detach(), rtol=1e-12, atol=0)
        assert accuracies[k] == accuracy(logits, labels[k])
        for name, expected in zip(leaves, gradient):
            torch.testing.assert_close(layout.member(found.gradient, k)[name], expected, rtol=1e-10, atol=1e-12)


def test_data_of_another_number_of_members_are_refused():
    weights = init_ensemble(ARCH, generators())
    objective = PlainObjective(ARCH, *data_of(3))
    for call in (objective, objective.evaluate):
        with pytest.raises(BadShape, match="3 members and weights of 2"):
            call(weights)
