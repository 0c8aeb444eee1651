"""Train dictionaries on batches of activations: the door, and the loop over steps.

Recipes of equal shape train in one program (a Stack), those of other shapes beside it on the same batches. A batch is a
pure function of the step and a state holds all that a step reads, so an interrupted training goes on bit for bit.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.distributed import current_group
from micrographia.core.errors import BadConfig, Interrupted, NonFiniteLoss, UserError
from micrographia.core.events import Note, Progress, Watch, silent
from micrographia.core.interrupt import interruptible
from micrographia.core.store import Checkpoint, RunFolder
from micrographia.core.stream.batches import Activations, Batches
from micrographia.core.stream.harvest import is_out_of_memory
from micrographia.methods.dictionaries.training.finished import dictionaries
from micrographia.methods.dictionaries.training.plans import PLANS, Plan
from micrographia.methods.dictionaries.training.recipe import Recipe, recipe_fields
from micrographia.methods.dictionaries.training.record import TrainingLog, home_of, newest
from micrographia.methods.dictionaries.training.stack import stacks
from micrographia.methods.dictionaries.training.trainer import Trainer, first_batches, fresh_state, unfit

SMALLER = "Give smaller batches, or fewer dictionaries at once. The checkpoints before it stand."


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Course:
    """What is done beside the steps, and where they are computed."""

    held_out: Batches | None = None
    """The batches by which thresholds are set at the end: BatchTopK's, and JumpReLU's where an L0 was asked for. None:
    the last ones of training."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """What is done with a batch that holds NaN or infinities."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    record_every: int = 100
    """Steps between rows of what was measured."""
    looks: Collection[int] = ()
    """The steps after which `look` is called with the dictionaries as they are; their thresholds are running means."""
    look: Callable[[int, list[Dictionary]], None] | None = None
    like: Tensor = field(default_factory=lambda: torch.zeros(()))
    """A tensor of the dtype and on the device to train in."""
    plans: Mapping[str, Plan] = field(default_factory=lambda: PLANS)
    """Kind -> what gives its loss and gradient."""


def train_dictionaries(
    batches: Batches,
    recipes: Sequence[Recipe],
    *,
    d_in: int,
    d_out: int | None = None,
    autoencoders: Collection[int] = (),
    seed: int = 0,
    folder: RunFolder | Path | str | None = None,
    watch: Watch = silent,
    course: Course | None = None,
) -> list[Dictionary]:
    """Train a dictionary by each recipe; they come back in that order, their scale folded into the weights.

    `batches(step)` gives activations (batch, d_in), or (recipe, batch, d_in) where each reads a site of its own, and
    the targets of transcoders. `autoencoders`: the places of recipes among transcoders whose target is their own input.
    `seed` is that of recipes without one. `folder`: checkpoints and rows of what was
    measured go there, and a training that was interrupted goes on from there. Under torchrun, within
    `distributed.joined`, each process reads every batch and trains on its rows of it; the first one writes. Cost a row
    and recipe: 10 d latents FLOPs (14 of a gated one), and one fused pass of Adam a step; memory: four times the
    weights and two or three (batch, latent).

    Raises BadConfig, BadShape, NonFiniteLoss (the state before that step is saved), Interrupted (saved, resumable), and
    UserError where memory runs out.
    """
    if not recipes:
        raise BadConfig("Asked to train no dictionaries. Give at least one recipe.")
    course, group = course or Course(), current_group()
    recipes = [each if each.seed is not None else replace(each, seed=seed) for each in recipes]
    d_out = d_in if d_out is None else d_out
    config = {"recipes": [recipe_fields(each) for each in recipes], "d_in": d_in, "d_out": d_out, "seed": seed}
    config |= {"autoencoders": sorted(autoencoders)} if autoencoders else {}
    with home_of(folder, config, course.like, group) as home:
        checkpoint = newest(home, watch)
        first = _first(batches, recipes, checkpoint)
        _refuse_other_batch(first[0], recipes)
        trainers = [
            Trainer(stack, fresh_state(stack, first, course.like), batches, group, course.plans[stack.recipe.kind])
            for stack in stacks(recipes, d_in, d_out, first[0].target is not None, autoencoders)
        ]
        record = TrainingLog(
            trainers, home, group, record_every=course.record_every, checkpoint_every=course.checkpoint_every
        )
        record.resume(checkpoint, watch)
        _train(trainers, batches, record, course, watch)
    return dictionaries(trainers, batches if course.held_out is None else course.held_out, course.held_out is not None)


def _first(batches: Batches, recipes: Sequence[Recipe], checkpoint: Checkpoint | None) -> list[Activations]:
    """What the start is measured on. With a checkpoint, which holds what was measured, one batch of the right shape.

    That batch is the next one, which is read anyway; its numbers play no part.
    """
    if checkpoint is None:
        return first_batches(batches, min(each.steps for each in recipes))
    near = batches(min(checkpoint.step, max(each.steps for each in recipes) - 1))
    target = None if near.target is None else torch.zeros_like(near.target)
    return [Activations(torch.zeros_like(near.x), target)]


def _train(trainers: Sequence[Trainer], batches: Batches, record: TrainingLog, course: Course, watch: Watch) -> None:
    steps = max(each.stack.recipe.steps for each in trainers)
    with interruptible() as request:
        for step in range(record.step, steps):
            try:
                _step(trainers, batches(step), step, course, record, watch)
            except NonFiniteLoss as error:
                record.save()
                raise NonFiniteLoss(f"{error} {record.where} Lower lr, or leave such rows out.") from error
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):  # perhaps between two of the weights, so that nothing is saved here
                    raise UserError(f"Memory ran out at step {step}. {SMALLER}") from error
                raise
            record.after(step + 1, last=step + 1 == steps)
            watch(Progress("train", step + 1, steps, "step", record.shown()))
            if course.look is not None and step + 1 in course.looks:
                course.look(step + 1, dictionaries(trainers))
            if record.group.any(request.asked) and step + 1 < steps:
                record.save()
                raise Interrupted(f"Stopped by request after step {step + 1} of {steps}. {record.where}")


def _step(
    trainers: Sequence[Trainer], batch: Activations, step: int, course: Course, record: TrainingLog, watch: Watch
) -> None:
    told = f"The batch of step {step} holds NaN or infinities in its {bad}" if (bad := unfit(batch)) else ""
    if told and course.nonfinite == "stop":
        raise NonFiniteLoss(f"{told}.")
    if told:
        watch(Note(f"{told}: skipped.", "warning"))
    for trainer in trainers:
        if trainer.state.step == step < trainer.stack.recipe.steps:  # else done before another's loss was not finite
            record.note(trainer, trainer.skip() if told else trainer.step(batch))


def _refuse_other_batch(batch: Activations, recipes: Sequence[Recipe]) -> None:
    rows = batch.x.shape[-2]
    for wanted in {each.batch for each in recipes} - {None, rows}:
        raise BadConfig(
            f"A recipe is for batches of {wanted} rows. The first batch has {rows}. Give batches of that size, or a "
            "recipe with another `batch` (None: any)."
        )
