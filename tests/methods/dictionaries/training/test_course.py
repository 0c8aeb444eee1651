"""Training as a whole: many at once, interrupted and resumed, and with bad input."""

import os
import signal
from dataclasses import replace

import numpy
import pytest
import torch
from worlds import world

from micrographia.core.errors import BadConfig, BadShape, Interrupted, NonFiniteLoss, UserError
from micrographia.core.events import Note
from micrographia.core.store import load_run, read_table
from micrographia.core.stream.batches import Activations
from micrographia.methods.dictionaries.training.plans import PLANS
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import stacks
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries

SMALL = {"n_latents": 48, "steps": 24, "lr": 3e-3}
RECIPES = {
    "relu": Recipe(kind="relu", sparsity=0.1, **SMALL),
    "p-anneal": Recipe(kind="relu", penalty="lp", sparsity=0.1, p_end=0.5, p_changes=4, **SMALL),
    "gated": Recipe(kind="gated", sparsity=0.1, **SMALL),
    "topk": Recipe(kind="topk", k=4, revival="auxk", dead_after=512, **SMALL),
    "batchtopk": Recipe(kind="batchtopk", k=4, revival="resample", revive_at=(9, 17), dead_after=512,
                        revival_inputs=1000, **SMALL),
    "matryoshka": Recipe(kind="batchtopk", k=4, prefixes=(6, 20), **SMALL),
    "jumprelu": Recipe(kind="jumprelu", l0=4.0, **SMALL),
    "reinitialised": Recipe(kind="relu", sparsity=0.4, revival="reinitialise", revive_at=(9,), rare=0.02, **SMALL),
}  # fmt: skip


def same(one, other, **tolerance):
    assert one.about.training["recipe"] == other.about.training["recipe"]
    for name, value in one.weights.named().items():
        torch.testing.assert_close(value, getattr(other.weights, name), msg=name, **tolerance)


@pytest.mark.parametrize("name", ["relu", "topk", "batchtopk", "jumprelu", "gated", "p-anneal"])
def test_stacked_dictionaries_are_those_trained_alone(name):
    like, batches = torch.zeros((), dtype=torch.float64), world()
    base = RECIPES[name]
    changed = {"k": 6} if base.k else {"l0": 7.0} if base.l0 else {"sparsity": 0.3}
    recipes = [base, replace(base, seed=5), replace(base, lr=1e-3, seed=2), replace(base, **changed)]
    assert len(stacks(recipes, 16, 16, transcodes=False)) == 1
    together = train_dictionaries(batches, recipes, d_in=16, course=Course(like=like))
    for recipe, found in zip(recipes, together):
        (alone,) = train_dictionaries(batches, [recipe], d_in=16, course=Course(like=like))
        same(found, alone, atol=1e-9, rtol=1e-9)


def test_dictionaries_of_unlike_shapes_come_back_in_their_order():
    recipes = [RECIPES["topk"], RECIPES["relu"], replace(RECIPES["topk"], seed=3), replace(RECIPES["relu"], steps=7)]
    found = train_dictionaries(world(), recipes, d_in=16)
    assert [each.form.activation for each in found] == ["topk", "relu", "topk", "relu"]
    assert [each.about.training["steps"] for each in found] == [24, 24, 24, 7]
    (alone,) = train_dictionaries(world(), recipes[3:], d_in=16)
    same(found[3], alone, atol=0, rtol=0)


def test_members_may_have_sites_of_their_own():
    one, other = world(seed=0), world(seed=5, scale=40.0)
    both = [RECIPES["topk"], RECIPES["topk"]]
    found = train_dictionaries(lambda step: Activations(torch.stack([one(step).x, other(step).x])), both, d_in=16)
    for batches, each in zip((one, other), found):
        (alone,) = train_dictionaries(batches, both[:1], d_in=16)
        same(each, alone, atol=1e-4, rtol=1e-4)


def test_a_crosscoder_reads_layers_as_one_axis_or_two():
    recipe = Recipe(kind="relu", sparsity=0.1, layers=2, norm_weighted=True, rows="free", row_norm=0.1, **SMALL)
    batches = world()
    (flat,) = train_dictionaries(batches, [recipe], d_in=16)
    (layered,) = train_dictionaries(lambda step: Activations(batches(step).x.unflatten(-1, (2, 8))), [recipe], d_in=16)
    same(flat, layered, atol=0, rtol=0)
    assert flat.form.axes == (2, 8)
    assert flat.reconstruct(batches(0).x.unflatten(-1, (2, 8))).shape == (256, 2, 8)


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", RECIPES)
def test_killed_and_resumed_is_left_alone(tmp_path, name):
    batches, course = world(), Course(checkpoint_every=5, record_every=2)
    recipes = [RECIPES[name], RECIPES["relu"]]
    whole = train_dictionaries(batches, recipes, d_in=16, folder=tmp_path / "whole", course=course)

    def kill(event):
        if not isinstance(event, Note) and event.done == 13:
            raise Killed

    with pytest.raises(Killed):
        train_dictionaries(batches, recipes, d_in=16, folder=tmp_path / "killed", course=course, watch=kill)
    notes = []
    resumed = train_dictionaries(
        batches, recipes, d_in=16, folder=tmp_path / "killed", course=course, watch=notes.append
    )
    assert Note("Goes on from the checkpoint of step 10.") in notes
    for one, other in zip(whole, resumed):
        same(one, other, atol=0, rtol=0)
    one, other = (
        read_table(tmp_path / place / "checkpoints" / "00000024" / "rows.parquet") for place in ("whole", "killed")
    )
    for column, values in one.items():
        numpy.testing.assert_array_equal(values, other[column])
    assert load_run(tmp_path / "killed").status == "finished"
    again = train_dictionaries(batches, recipes, d_in=16, folder=tmp_path / "whole", course=course)
    same(whole[0], again[0], atol=0, rtol=0)


def test_a_training_that_goes_on_reads_no_batch_before_its_checkpoint(tmp_path):
    plain, read = world(), list[int]()

    def batches(step):
        read.append(step)
        bad = step == 10  # of which nothing is taken, and that skips it too
        return plain(step)._replace(x=plain(step).x * float("nan")) if bad else plain(step)

    def kill(event):
        if not isinstance(event, Note) and event.done == 12:
            raise Killed

    choices = {"d_in": 16, "folder": tmp_path / "run", "course": Course(checkpoint_every=10, nonfinite="skip")}
    with pytest.raises(Killed):
        train_dictionaries(batches, [RECIPES["relu"]], watch=kill, **choices)
    assert read[0] == 0
    read.clear()
    train_dictionaries(batches, [RECIPES["relu"]], **choices)
    assert min(read) == 10


def test_ctrl_c_saves_and_says_so(tmp_path):
    def watch(event):
        if not isinstance(event, Note) and event.done == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"after step 7 of 24.*is saved in"):
        train_dictionaries(world(), [RECIPES["relu"]], d_in=16, folder=tmp_path / "run", watch=watch)
    found = train_dictionaries(world(), [RECIPES["relu"]], d_in=16, folder=tmp_path / "run")
    same(found[0], train_dictionaries(world(), [RECIPES["relu"]], d_in=16)[0], atol=0, rtol=0)


def spoilt(at):
    def batches(step):
        x = world()(step).x
        if step == at:
            x[3, 5] = torch.nan
        return Activations(x)

    return batches


def test_a_batch_with_nan_is_named_and_the_state_before_it_kept(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"batch of step 6 holds NaN.*after step 6 is saved"):
        train_dictionaries(spoilt(6), [RECIPES["jumprelu"]], d_in=16, folder=tmp_path / "run")
    found = train_dictionaries(world(), [RECIPES["jumprelu"]], d_in=16, folder=tmp_path / "run")
    start = train_dictionaries(
        spoilt(6), [RECIPES["jumprelu"]], d_in=16, course=Course(nonfinite="skip", held_out=world())
    )
    assert all(bool(value.isfinite().all()) for each in (*found, *start) for value in each.weights.named().values())


def test_a_batch_with_nan_may_be_skipped():
    notes = []
    course = Course(nonfinite="skip")
    (found,) = train_dictionaries(spoilt(6), [RECIPES["relu"]], d_in=16, watch=notes.append, course=course)
    told = [note.text for note in notes if isinstance(note, Note)]
    assert told == ["The batch of step 6 holds NaN or infinities in its x: skipped."]
    assert found.weights.W_dec.isfinite().all()


def test_a_loss_that_is_no_number_stops_before_the_step():
    def broken(stack, weights, batch, now, into):
        outcome = PLANS["relu"](stack, weights, batch, now, into)
        return outcome if now.step < 4 else outcome._replace(terms={"sparsity": outcome.fired[:, 0] / 0 * 0})

    with pytest.raises(NonFiniteLoss, match=r"At step 4 the loss of dictionary 0 was NaN.*no folder was given"):
        train_dictionaries(world(), [RECIPES["relu"]], d_in=16, course=Course(plans={"relu": broken}))


def test_memory_that_runs_out_is_said_and_what_was_saved_stands(tmp_path):
    def greedy(stack, weights, batch, now, into):
        if now.step == 9:
            raise torch.OutOfMemoryError("out of memory")
        return PLANS["relu"](stack, weights, batch, now, into)

    recipe, course = RECIPES["relu"], Course(plans={"relu": greedy}, checkpoint_every=4)
    with pytest.raises(UserError, match=r"Memory ran out at step 9\. Give smaller batches"):
        train_dictionaries(world(), [recipe], d_in=16, folder=tmp_path / "run", course=course)
    (resumed,) = train_dictionaries(
        world(), [recipe], d_in=16, folder=tmp_path / "run", course=Course(checkpoint_every=4)
    )
    same(resumed, *train_dictionaries(world(), [recipe], d_in=16), atol=0, rtol=0)


def test_the_others_go_on_exactly_after_one_loss_was_no_number(tmp_path):
    """The first had taken the step at which the second failed: it does not take it twice."""

    def broken(stack, weights, batch, now, into):
        outcome = PLANS["relu"](stack, weights, batch, now, into)
        return outcome if now.step < 4 else outcome._replace(terms={"sparsity": outcome.fired[:, 0] / 0 * 0})

    recipes = [RECIPES["topk"], RECIPES["relu"]]
    course = Course(plans={**PLANS, "relu": broken})
    with pytest.raises(NonFiniteLoss):
        train_dictionaries(world(), recipes, d_in=16, folder=tmp_path / "run", course=course)
    resumed = train_dictionaries(world(), recipes, d_in=16, folder=tmp_path / "run")
    for one, other in zip(resumed, train_dictionaries(world(), recipes, d_in=16)):
        same(one, other, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"kind": "topk"}, "topk needs a k"),
        ({"kind": "relu"}, "the penalty l1 needs a sparsity"),
        ({"kind": "relu", "sparsity": 1.0, "k": 3}, "relu has no k"),
        ({"kind": "jumprelu"}, "the penalty l0-target needs an l0"),
        ({"kind": "topk", "k": 3, "l0": 3.0}, "l0 belongs to jumprelu"),
        ({"kind": "topk", "k": 100}, "k must be at most n_latents"),
        ({"kind": "topk", "k": 3, "prefixes": (8, 4)}, "prefixes must rise"),
        ({"kind": "topk", "k": 3, "lr_warmup": 30}, "must fit into steps"),
    ],
)
def test_contradictory_recipes_are_refused(fields, sentence):
    with pytest.raises(BadConfig, match=sentence):
        Recipe(n_latents=32, steps=20, **fields)


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(BadShape, match=r"dictionaries of 12 dims.*shape \(256, 16\)"):
        train_dictionaries(world(), [RECIPES["relu"]], d_in=12)
    with pytest.raises(BadConfig, match=r"batches of 100 rows\. The first batch has 256"):
        train_dictionaries(world(), [replace(RECIPES["relu"], batch=100)], d_in=16)
    with pytest.raises(BadConfig, match="at least one recipe"):
        train_dictionaries(world(), [], d_in=16)
