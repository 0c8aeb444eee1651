"""Training by either plan takes the same steps, to rounding."""

import pytest
import torch

from micrographia.core.runtime import batch_generator
from micrographia.core.stream.batches import Activations
from micrographia.methods.dictionaries.sparse import find
from micrographia.methods.dictionaries.sparse.plan import sparse_on_cpu
from micrographia.methods.dictionaries.training.dense import dense
from micrographia.methods.dictionaries.training.plans import PLANS
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries

D, N, STEPS = 16, 96, 25
RECIPES = {
    "relu": {"sparsity": 0.5},
    "topk": {"k": 4, "revival": "auxk", "dead_after": 200},
    "batchtopk": {"k": 4, "prefixes": (16,)},
    "jumprelu": {"l0": 5.0, "bandwidth": 0.05, "threshold": 0.1},
}


def batches(step: int) -> Activations:
    random = batch_generator(0, step)
    strengths = torch.rand(64, 40, generator=random, dtype=torch.float64)
    on = torch.rand(64, 40, generator=random) < 0.1
    directions = torch.randn(40, D, generator=batch_generator(1, 0), dtype=torch.float64)
    return Activations((strengths * on) @ directions)


@pytest.mark.parametrize("share", [1 / 16, 1.0])
@pytest.mark.parametrize("kind", RECIPES)
def test_training_by_either_plan_gives_the_same_dictionaries(kind, share, monkeypatch):
    monkeypatch.setattr(find, "SHARE", share)
    assert PLANS[kind] is sparse_on_cpu
    recipes = [
        Recipe(kind=kind, n_latents=N, steps=STEPS, batch=64, lr=1e-3, seed=seed, **RECIPES[kind]) for seed in (0, 1)
    ]
    like = torch.zeros((), dtype=torch.float64)
    got, wanted = (
        train_dictionaries(batches, recipes, d_in=D, course=Course(like=like, plans=plans))
        for plans in (PLANS, dict.fromkeys(PLANS, dense))
    )
    for one, other in zip(got, wanted, strict=True):
        for name, value in other.weights.named().items():
            torch.testing.assert_close(getattr(one.weights, name), value, rtol=1e-7, atol=1e-9)
        assert (one.about.training["plan"], other.about.training["plan"]) == ("sparse_on_cpu", "dense")
