"""Dead latents: which they are, and their new start."""

from dataclasses import replace

import pytest
import torch
from worlds import world

from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.revive import drawn
from micrographia.methods.dictionaries.training.stack import stacks
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries
from micrographia.methods.dictionaries.training.trainer import Trainer, first_batches, fresh_state

RECIPE = Recipe(
    kind="relu", sparsity=0.05, n_latents=24, steps=20, lr=3e-3,
    revival="resample", revive_at=(6,), dead_after=512, revival_inputs=700,
)  # fmt: skip
DEAD = [2, 5, 11]


def before(recipe, step=6):
    """A Trainer before this step, with some latents that cannot fire."""
    (stack,) = stacks([recipe], 16, 16, transcodes=False)
    batches = world()
    trainer = Trainer(stack, fresh_state(stack, first_batches(batches, 20), torch.zeros(())), batches)
    trainer.weights["b_enc"][0, DEAD] = -100.0
    for at in range(step):
        trainer.step(batches(at))
    return trainer, batches


def test_counters_say_which_latents_fire():
    trainer, batches = before(RECIPE, step=5)
    x = torch.cat([trainer.read(at).x for at in range(5)], 1)
    assert (trainer.state.silent[0, DEAD] == 5 * 256).all()
    assert trainer.state.counted.tolist() == [5 * 256]
    assert (trainer.state.fired[0, DEAD] == 0).all()
    assert x.shape[1] == 5 * 256
    rest = [i for i in range(24) if i not in DEAD]
    assert (trainer.state.silent[0, rest] < 256 * 5).all()
    assert trainer.step(batches(5))["dead"].tolist() == [3]


def test_resampled_latents_take_the_direction_of_an_input_at_a_fifth_of_the_others_norm():
    trainer, batches = before(RECIPE)
    norms = trainer.weights["encoder"][0].norm(dim=1)
    alive = torch.ones(24, dtype=torch.bool)
    alive[DEAD] = False
    wanted = 0.2 * norms[alive].mean()
    centre, untouched = trainer.weights["b_dec"][0].clone(), trainer.weights["encoder"][0, alive].clone()
    moments = trainer.layout.views(trainer.state.square)
    seen = {}

    def plan(stack, weights, batch, now, into):
        seen.update({name: value[0].clone() for name, value in weights.items()})
        seen["moments"] = {name: value[0].clone() for name, value in moments.items()}
        seen["silent"] = trainer.state.silent[0].clone()
        return before_plan(stack, weights, batch, now, into)

    before_plan, trainer.plan = trainer.plan, plan
    trainer.step(batches(6))
    torch.testing.assert_close(seen["encoder"][DEAD].norm(dim=1), wanted.expand(3))
    torch.testing.assert_close(seen["decoder"][DEAD].norm(dim=1), torch.ones(3))
    torch.testing.assert_close(seen["encoder"][DEAD], wanted * seen["decoder"][DEAD])
    assert (seen["b_enc"][DEAD] == 0).all()
    assert (seen["silent"][DEAD] == 0).all()
    for name in ("encoder", "decoder", "b_enc"):
        assert (seen["moments"][name][DEAD] == 0).all()
        assert (seen["moments"][name][alive] > 0).any()
    assert seen["moments"]["b_dec"].any()
    torch.testing.assert_close(seen["encoder"][alive], untouched, atol=0, rtol=0)
    inputs = torch.cat([trainer.read(at).x[0] for at in range(3, 6)]) - centre  # the last 700 inputs, in whole batches
    cosines = seen["decoder"][DEAD] @ (inputs / inputs.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(cosines.max(1).values, torch.ones(3))
    assert len(set(cosines.argmax(1).tolist())) == 3


def test_inputs_are_drawn_by_the_square_of_their_loss():
    losses = torch.tensor([0.0, 1.0, 2.0, 3.0])
    random = generator(0)
    counts = torch.bincount(torch.cat([drawn(losses.square(), 1, random) for _ in range(3000)]), minlength=4)
    torch.testing.assert_close(counts / 3000, losses.square() / 14, atol=0.03, rtol=0)
    assert sorted(drawn(losses.square(), 3, random).tolist()) == [1, 2, 3]
    assert len(drawn(losses.square(), 10, random)) == 10
    assert len(drawn(torch.zeros(4), 2, random)) == 2


def test_reinitialised_latents_are_those_that_were_rare_and_keep_their_moments():
    recipe = replace(RECIPE, revival="reinitialise", rare=0.01)
    trainer, batches = before(recipe)
    square = trainer.layout.views(trainer.state.square)
    share = trainer.state.fired[0] / trainer.state.counted[0]
    rare = share < 0.01
    assert rare[DEAD].all()
    assert not rare.all()
    old, seen = trainer.weights["encoder"][0].clone(), {}

    def plan(stack, weights, batch, now, into):
        seen.update({name: value[0].clone() for name, value in weights.items()}, square=square["decoder"][0].clone())
        return before_plan(stack, weights, batch, now, into)

    kept = square["decoder"][0].clone()
    before_plan, trainer.plan = trainer.plan, plan
    trainer.step(batches(6))
    changed = (seen["encoder"] != old).any(1)
    assert changed.tolist() == rare.tolist()
    assert (seen["b_enc"][rare] == 0).all()
    torch.testing.assert_close(seen["square"], kept, atol=0, rtol=0)
    assert seen["encoder"][rare].abs().max() <= (6 / 24) ** 0.5


def left_dead(recipe):
    """Of latents of which twelve start off: far below zero (relu), or too small to be among the k largest (topk)."""
    (stack,) = stacks([recipe], 16, 16, transcodes=False)
    batches = world()
    trainer = Trainer(stack, fresh_state(stack, first_batches(batches, 20), torch.zeros(())), batches)
    if recipe.kind == "relu":
        trainer.weights["b_enc"][0, :12] = -1.0
    else:
        trainer.weights["encoder"][0, :12] *= 0.02
    for at in range(50):
        measured = trainer.step(batches(at))
    return int(measured["dead"])


@pytest.mark.parametrize(("revival", "kind"), [("resample", "relu"), ("auxk", "topk"), ("ghost", "topk")])
def test_dead_latents_come_back(revival, kind):
    sparse = {"sparsity": 0.05} if kind == "relu" else {"k": 3}
    base = Recipe(kind=kind, n_latents=24, steps=300, lr=5e-3, dead_after=2000, **sparse)
    left = left_dead(base)
    assert left >= 8
    assert left_dead(replace(base, revival=revival, revival_weight=1.0, revive_at=(30,))) <= left // 2


def test_ghost_and_auxk_leave_training_alone_while_no_latent_is_dead():
    base = Recipe(kind="topk", k=3, n_latents=24, steps=5)
    (one,) = train_dictionaries(world(), [base], d_in=16)
    (other,) = train_dictionaries(world(), [replace(base, revival="auxk")], d_in=16, course=Course())
    torch.testing.assert_close(one.weights.W_enc, other.weights.W_enc, atol=0, rtol=0)
