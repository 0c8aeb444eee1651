"""Every loss and its hand-written gradient, in float64, against autograd of the plain one."""

import pytest
import torch
from plain_losses import plain_loss

from micrographia.core.distributed import ALONE
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.training.plans import PLANS
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import Now, ScaledBatch, Stack

D, N, ROWS = 12, 24, 40
MULTIPLIER = 0.3
JUMP = {"kind": "jumprelu", "bandwidth": 0.3}
CASES = {
    "l1": {"kind": "relu", "sparsity": 0.3},
    "l1, norm-weighted": {"kind": "relu", "sparsity": 0.3, "norm_weighted": True, "rows": "free"},
    "lp": {"kind": "relu", "sparsity": 0.3, "penalty": "lp", "p_end": 0.5},
    "lp, norm-weighted": {"kind": "relu", "sparsity": 0.3, "penalty": "lp", "norm_weighted": True},
    "gated": {"kind": "gated", "sparsity": 0.3},
    "gated, norm-weighted": {"kind": "gated", "sparsity": 0.3, "norm_weighted": True},
    "topk": {"kind": "topk", "k": 5},
    "multi-topk": {"kind": "topk", "k": 5, "multi_topk": 0.125},
    "topk, auxk": {"kind": "topk", "k": 5, "revival": "auxk"},
    "topk, auxk of few": {"kind": "topk", "k": 5, "revival": "auxk", "auxk": 3, "revival_weight": 0.5},
    "relu, ghost": {"kind": "relu", "sparsity": 0.3, "revival": "ghost", "revival_weight": 1.0},
    "batchtopk": {"kind": "batchtopk", "k": 4},
    "matryoshka": {"kind": "batchtopk", "k": 4, "prefixes": (3, 10), "revival": "auxk"},
    "matryoshka, mean": {"kind": "relu", "sparsity": 0.3, "prefixes": (3, 10), "prefix_mean": True},
    "abstopk": {"kind": "abstopk", "k": 5},
    "groupmax": {"kind": "groupmax", "k": 6},
    "step": {**JUMP, "penalty": "l0", "sparsity": 0.2},
    "quadratic": {**JUMP, "l0": 6.0, "penalty": "l0-quadratic", "sparsity": 0.2},
    "target": {**JUMP, "l0": 6.0},
    "tanh": {**JUMP, "penalty": "tanh", "sparsity": 0.2, "norm_weighted": True, "rows": "free"},
    "tanh, January 2025": {
        **JUMP,
        "penalty": "tanh",
        "sparsity": 0.2,
        "norm_weighted": True,
        "estimator_to_input": True,
        "pre_activation": 0.1,
    },
    "step, to the input": {**JUMP, "penalty": "l0", "sparsity": 0.2, "estimator_to_input": True},
    "jumprelu, auxk": {**JUMP, "l0": 6.0, "revival": "auxk"},
    "jumprelu, matryoshka": {**JUMP, "l0": 6.0, "prefixes": (8,)},
    "crosscoder": {"kind": "relu", "sparsity": 0.3, "norm_weighted": True, "layers": 3, "rows": "free"},
    "crosscoder, jumprelu": {**JUMP, "penalty": "tanh", "sparsity": 0.2, "norm_weighted": True, "layers": 3},
}
TRANSCODERS = {
    "transcoder": {"kind": "relu", "sparsity": 0.3},
    "skip transcoder": {"kind": "topk", "k": 5, "skip": True},
    "skip transcoder, multi-topk": {"kind": "topk", "k": 5, "skip": True, "multi_topk": 0.125},
    "skip transcoder, matryoshka": {**JUMP, "l0": 6.0, "skip": True, "prefixes": (4,)},
    "gated transcoder": {"kind": "gated", "sparsity": 0.3},
}


def stack_of(fields, members=2, transcodes=False):
    recipe = Recipe(n_latents=N, steps=100, **fields)
    return Stack((recipe,) * members, tuple(range(members)), D, 9 if transcodes else D, transcodes)


def weights_of(stack, random):
    members = len(stack.recipes)
    made = {
        name: torch.randn(members, *shape, generator=random, dtype=torch.float64) / 3
        for name, shape in stack.shapes.items()
    }
    if "threshold" in made:
        made["threshold"] = made["threshold"].abs() + 0.2
    return made


def written_out(stack, weights, batch, dead=None, power=0.7):
    slots = {name: torch.full_like(value, torch.nan) for name, value in weights.items()}
    sparsity = stack.per_member("coefficient", weights["b_dec"])
    target_l0 = torch.full_like(sparsity, 6.0)
    now = Now(0, sparsity, target_l0, torch.full_like(sparsity, MULTIPLIER), power, power - 0.1, dead, ALONE)
    outcome = PLANS[stack.recipe.kind](stack, weights, batch, now, slots)
    return outcome, slots


def agrees(fields, transcodes):
    random = generator(3)
    stack = stack_of(fields, transcodes=transcodes)
    weights = weights_of(stack, random)
    x = torch.randn(2, ROWS, D, generator=random, dtype=torch.float64)
    target = torch.randn(2, ROWS, 9, generator=random, dtype=torch.float64) if transcodes else x
    dead = None
    if stack.recipe.revival != "none":
        dead = torch.zeros(2, N, dtype=torch.bool)
        dead[0, 4:9] = dead[1, :2] = True
    before = {name: value.clone() for name, value in weights.items()}
    outcome, slots = written_out(stack, weights, ScaledBatch(x.clone(), target, ROWS), dead)
    for member in range(2):
        own = {name: value[member].clone().requires_grad_() for name, value in before.items()}
        terms = plain_loss(
            stack.recipe, own, x[member], target[member], subtracts=stack.subtracts, power=0.7,
            dead=None if dead is None else dead[member], target_l0=6.0, multiplier=MULTIPLIER,
        )  # fmt: skip
        sum(terms.values()).backward()
        assert terms.keys() == outcome.terms.keys()
        for name, term in terms.items():
            torch.testing.assert_close(outcome.terms[name][member], term, atol=1e-10, rtol=1e-10, msg=name)
        for name, value in own.items():
            slope = torch.zeros_like(value) if value.grad is None else value.grad
            assert bool(slope.any()), f"the case says nothing of {name}"
            torch.testing.assert_close(slots[name][member], slope, atol=1e-10, rtol=1e-10, msg=name)
    for name, value in before.items():
        torch.testing.assert_close(weights[name], value, atol=0, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_the_plain_loss(name):
    agrees(CASES[name], transcodes=False)


@pytest.mark.parametrize("name", TRANSCODERS)
def test_the_gradient_of_a_transcoder_is_that_of_the_plain_loss(name):
    agrees(TRANSCODERS[name], transcodes=True)
