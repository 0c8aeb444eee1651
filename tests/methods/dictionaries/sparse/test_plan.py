"""The sparse plan gives the dense plan's losses and gradients, for every recipe that it covers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch

from micrographia.core.distributed import Ranks
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.sparse import find, in_blocks, plan
from micrographia.methods.dictionaries.training.dense import dense
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import Now, ScaledBatch, Stack

D, N, ROWS = 12, 64, 40
CLOSE = {torch.float64: {"rtol": 1e-10, "atol": 1e-10}, torch.float32: {"rtol": 1e-4, "atol": 1e-5}}
MEMBERS = {
    "relu": [{"kind": "relu", "sparsity": 0.1}, {"kind": "relu", "sparsity": 2.0}],
    "relu-l1-norms": [{"kind": "relu", "sparsity": 0.1, "norm_weighted": True, "rows": "free"}] * 2,
    "relu-lp": [{"kind": "relu", "sparsity": 0.1, "penalty": "lp", "p_end": 0.5}],
    "topk": [{"kind": "topk", "k": 3}, {"kind": "topk", "k": 5}],
    "topk-l1": [{"kind": "topk", "k": 4, "penalty": "l1", "sparsity": 0.2}],
    "topk-all": [{"kind": "topk", "k": N}],
    "topk-auxk": [{"kind": "topk", "k": 3, "revival": "auxk", "auxk": 4}] * 2,
    "topk-ghost": [{"kind": "topk", "k": 3, "revival": "ghost"}],
    "topk-matryoshka": [{"kind": "topk", "k": 6, "prefixes": (8, 20)}] * 2,
    "topk-skip": [{"kind": "topk", "k": 3, "skip": True}],
    "topk-layers": [{"kind": "topk", "k": 3, "layers": 2}],
    "batchtopk": [{"kind": "batchtopk", "k": 3}, {"kind": "batchtopk", "k": 5}],
    "batchtopk-all": [{"kind": "batchtopk", "k": N}],
    "batchtopk-matryoshka": [{"kind": "batchtopk", "k": 4, "prefixes": (16,), "prefix_mean": True}],
    "jumprelu-l0": [{"kind": "jumprelu", "penalty": "l0", "sparsity": 0.3, "bandwidth": 0.5}] * 2,
    "jumprelu-target": [
        {"kind": "jumprelu", "l0": 3.0, "bandwidth": 0.5},
        {"kind": "jumprelu", "l0": 9.0, "bandwidth": 0.5},
    ],
    "jumprelu-tanh": [
        {
            "kind": "jumprelu",
            "penalty": "tanh",
            "sparsity": 0.3,
            "bandwidth": 0.5,
            "norm_weighted": True,
            "rows": "free",
        }
    ],
    "jumprelu-to-input": [{"kind": "jumprelu", "l0": 3.0, "bandwidth": 0.5, "estimator_to_input": True}],
    "jumprelu-auxk": [{"kind": "jumprelu", "l0": 3.0, "bandwidth": 0.5, "revival": "auxk"}],
}


def case(recipes, dtype, *, rows=ROWS, transcodes=False, seed=0, shared=True):
    random = generator(seed)
    stack = Stack(tuple(Recipe(n_latents=N, **each) for each in recipes), tuple(range(len(recipes))), D, D, transcodes)
    members = len(recipes)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    weights = stack.layout.views(draw(members, sum(stack.layout.sizes)) * 0.4)
    if "threshold" in weights:
        weights["threshold"].abs_().add_(0.3)
    x = draw(1 if shared else members, rows, D)
    batch = ScaledBatch(x, draw(*x.shape) if transcodes else x, rows)
    dead = torch.rand(members, N, generator=random) < 0.2 if stack.recipe.revival != "none" else None
    now = Now(
        step=5,
        sparsity=stack.per_member("coefficient", x),
        target_l0=torch.tensor([each.l0 or 0.0 for each in stack.recipes], dtype=dtype),
        multiplier=torch.full((len(stack.recipes),), 0.3, dtype=dtype),
        power=0.8,
        next_power=0.7,
        dead=dead,
    )
    return stack, weights, batch, now


def run(found, stack, weights, batch, now):
    into = stack.layout.views(torch.full_like(stack.layout.join(weights), torch.nan))
    return found(stack, weights, batch, now, into), into


def refuse(*_):
    raise AssertionError("the dense plan was taken")


def assert_equal(got, wanted, close):
    for name, value in wanted[0].terms.items():
        torch.testing.assert_close(got[0].terms[name], value, msg=lambda m, name=name: f"{name}: {m}", **close)
    assert got[0].terms.keys() == wanted[0].terms.keys()
    torch.testing.assert_close(got[0].fired, wanted[0].fired)
    for each in ("cutoff", "powers"):
        torch.testing.assert_close(getattr(got[0], each), getattr(wanted[0], each), **close)
    for name, value in wanted[1].items():
        torch.testing.assert_close(got[1][name], value, msg=lambda m, name=name: f"{name}: {m}", **close)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("name", MEMBERS)
def test_losses_and_gradients_are_those_of_the_dense_plan(name, dtype, monkeypatch):
    given = case(MEMBERS[name], dtype, transcodes="skip" in name)
    wanted = run(dense, *given)
    monkeypatch.setattr(find, "SHARE", 1.0)
    monkeypatch.setattr(plan, "dense", refuse)
    for block in (1, 7 * N, 1 << 21):
        monkeypatch.setattr(find, "BLOCK", block)
        assert_equal(run(plan.sparse, *given), wanted, CLOSE[dtype])


def test_a_wrong_gradient_would_be_seen():
    given = case(MEMBERS["topk"], torch.float64)
    wanted, got = run(dense, *given), run(dense, *given)
    got[1]["encoder"][1, 3, 2] += 1e-6
    with pytest.raises(AssertionError, match="encoder"):
        assert_equal(got, wanted, CLOSE[torch.float64])


@pytest.mark.parametrize("name", ["relu", "topk", "batchtopk", "jumprelu-target"])
def test_rows_without_an_active_latent_and_one_row_are_right(name, monkeypatch):
    monkeypatch.setattr(find, "SHARE", 1.0)
    for rows in (1, 5):
        stack, weights, batch, now = case(MEMBERS[name], torch.float64, rows=rows)
        weights["b_enc"].fill_(-100)
        given = (stack, weights, batch._replace(x=batch.x, rows=rows), now)
        assert_equal(run(plan.sparse, *given), run(dense, *given), CLOSE[torch.float64])
        weights["b_enc"].fill_(0)
        weights["encoder"][:, N // 2 :] = 0
        assert_equal(run(plan.sparse, *given), run(dense, *given), CLOSE[torch.float64])


def test_members_with_sites_of_their_own_read_their_own_rows(monkeypatch):
    monkeypatch.setattr(find, "SHARE", 1.0)
    given = case(MEMBERS["topk"], torch.float64, shared=False)
    assert_equal(run(plan.sparse, *given), run(dense, *given), CLOSE[torch.float64])


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize(
    "name", [name for name in MEMBERS if name.startswith(("relu", "jumprelu")) and "input" not in name]
)
def test_dense_products_in_blocks_give_the_same(name, dtype, monkeypatch):
    given = case(MEMBERS[name], dtype, transcodes="l1" in name)
    wanted = run(dense, *given)
    monkeypatch.setattr(find, "SHARE", 0.0)
    monkeypatch.setattr(plan, "dense", refuse)
    for block in (1, 7 * N, 1 << 20):
        monkeypatch.setattr(in_blocks, "BLOCK", block)
        assert_equal(run(plan.sparse, *given), wanted, CLOSE[dtype])


def test_members_with_many_and_with_few_active_latents_go_their_own_ways(monkeypatch):
    stack, weights, batch, now = case(MEMBERS["relu"], torch.float64)
    weights["b_enc"][1] = -6.0
    taken = []
    kept = in_blocks.in_blocks
    monkeypatch.setattr(in_blocks, "in_blocks", lambda *given: taken.append(1) or kept(*given))
    assert_equal(
        run(plan.sparse, stack, weights, batch, now), run(dense, stack, weights, batch, now), CLOSE[torch.float64]
    )
    assert len(taken) == 1


def test_losses_that_read_all_latents_are_left_to_the_dense_plan(monkeypatch):
    taken = []
    monkeypatch.setattr(plan, "dense", lambda *given: taken.append(1) or dense(*given))
    for recipes in (
        [{"kind": "topk", "k": 3, "multi_topk": 0.125}] * 2,
        [{"kind": "abstopk", "k": 3}],
        [{"kind": "topk", "k": N // 2, "prefixes": (9,)}],
        [{"kind": "batchtopk", "k": N // 2}],
        [{"kind": "relu", "sparsity": 0.1, "prefixes": (9,)}],
        [{"kind": "jumprelu", "l0": 3.0, "estimator_to_input": True}],
    ):
        given = case(recipes, torch.float64)
        assert_equal(run(plan.sparse, *given), run(dense, *given), CLOSE[torch.float64])
    assert len(taken) == 6


def test_a_batch_whose_first_rows_are_unlike_the_rest_still_keeps_the_largest(monkeypatch):
    monkeypatch.setattr(find, "SHARE", 1.0)
    monkeypatch.setattr(find, "BLOCK", 4 * N)
    stack, weights, batch, now = case(MEMBERS["batchtopk"], torch.float64)
    batch.x[:, :4] *= 100  # a bound from these lets too few of the others through
    batch.x[:, 4:] *= 0.001
    given = (stack, weights, batch, now)
    assert_equal(run(plan.sparse, *given), run(dense, *given), CLOSE[torch.float64])


@dataclass(frozen=True, slots=True)
class Thread(Ranks):
    """One of two ranks, in threads."""

    meet: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=20))
    said: list = field(default_factory=lambda: [None, None])

    def sum(self, value):
        return value.copy_(torch.stack(self._all(value)).sum(0))

    def gather(self, value):
        return torch.cat(self._all(value), -1)

    def _all(self, value):
        self.said[self.rank] = value.clone()
        self.meet.wait()
        found = list(self.said)
        self.meet.wait()
        return found


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("name", ["relu", "topk", "batchtopk", "jumprelu-target", "jumprelu-auxk"])
def test_two_ranks_give_the_loss_and_gradient_of_one(name, share, monkeypatch):
    monkeypatch.setattr(find, "SHARE", share)
    stack, weights, batch, now = case(MEMBERS[name], torch.float64)
    first = Thread(0, 2)
    ranks = [first, Thread(1, 2, first.meet, first.said)]
    half = ROWS // 2

    def one(rank):
        rows = slice(rank.rank * half, (rank.rank + 1) * half)
        own = ScaledBatch(batch.x[:, rows], batch.target[:, rows], ROWS)
        return run(plan.sparse, stack, weights, own, now._replace(group=rank))

    with ThreadPoolExecutor(2) as pool:
        (a, into_a), (b, into_b) = pool.map(one, ranks)
    terms = {key: a.terms[key] + b.terms[key] for key in a.terms}
    together = a._replace(terms=terms, fired=a.fired + b.fired, cutoff=a.cutoff)
    into = {key: into_a[key] + into_b[key] for key in into_a}
    assert_equal((together, into), run(dense, stack, weights, batch, now), CLOSE[torch.float64])
