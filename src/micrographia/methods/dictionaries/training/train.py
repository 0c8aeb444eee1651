"""Train dictionaries on batches of activations: the loop, its checkpoints, and what comes out.

Recipes of equal shape train in one program (a Stack), those of other shapes beside it on the same batches. A batch is a
pure function of the step and a State holds all that a step reads, so an interrupted training goes on bit for bit.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadShape
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.stream.batches import Activations, Batches
from micrographia.methods.dictionaries.training.adam import adam_step
from micrographia.methods.dictionaries.training.dense import PLANS, Plan
from micrographia.methods.dictionaries.training.finished import dictionary
from micrographia.methods.dictionaries.training.group import Group, current_group
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import Batch, Now, Stack, State, stacks
from micrographia.methods.dictionaries.training.start import START_ROWS, first_weights, measured_scale


def train_dictionaries(
    batches: Batches,
    recipes: Sequence[Recipe],
    *,
    d_in: int,
    d_out: int | None = None,
    seed: int = 0,
    watch: Watch = silent,
) -> list[Dictionary]:
    """The trained dictionaries, one for each recipe, with their scale folded into the weights."""
    recipes = [each if each.seed is not None else replace(each, seed=seed) for each in recipes]
    group = current_group()
    first = batches(0)
    trainers = [
        Trainer(stack, batches, group)
        for stack in stacks(recipes, d_in, d_out or d_in, transcodes=first.target is not None)
    ]
    steps = max(each.steps for each in recipes)
    for step in range(steps):
        batch = batches(step)
        losses = [each.step(batch) for each in trainers if step < each.stack.recipe.steps]
        watch(Progress("train", step + 1, steps, "step", {"loss": float(torch.cat(losses).mean())}))
    found = {place: made for each in trainers for place, made in zip(each.stack.places, each.dictionaries())}
    return [found[place] for place in range(len(recipes))]


class Trainer:
    """A Stack in training: its State, the views into it, and the buffer of the gradient."""

    def __init__(self, stack: Stack, batches: Batches, group: Group, plan: Plan | None = None) -> None:
        self.stack, self.group = stack, group
        self.plan = PLANS[stack.recipe.kind] if plan is None else plan
        self.take(fresh_state(stack, batches))

    def take(self, state: State) -> None:
        """Go on from this State."""
        self.state = state
        self.weights = self.stack.layout.views(state.weights)
        self.gradient = torch.zeros_like(state.weights)
        self.slopes = self.stack.layout.views(self.gradient)

    def step(self, batch: Activations) -> Tensor:
        """Take one step; the loss (member,) before it."""
        scaled = self.scaled(batch)
        outcome = self.plan(self.stack, self.weights, scaled, self.now(), self.slopes)
        loss = torch.stack(list(outcome.terms.values())).sum(0)
        adam_step(self.stack, self.state, self.weights, self.gradient, self.slopes)
        self.state = self.state._replace(step=self.state.step + 1)
        return loss

    def now(self) -> Now:
        recipe, step, like = self.stack.recipe, self.state.step, self.state.weights
        share = min(1.0, (step + 1) / max(recipe.chosen_sparsity_warmup, 1))
        return Now(step, self.state.coefficient * share, torch.zeros_like(like[:, 0]), 1.0, None, self.group)

    def scaled(self, batch: Activations) -> Batch:
        """This rank's rows in the units of training."""
        x = member_axis(self.stack, batch.x, self.stack.d_in, self.state.weights)
        x = self.group.own_rows(x) * widened(self.state.scale_in, x.shape[-1])
        target = x if batch.target is None else member_axis(self.stack, batch.target, self.stack.d_out, x)
        return Batch(x, target, x.shape[-2] * self.group.size)

    def dictionaries(self) -> list[Dictionary]:
        return [dictionary(self.stack, self.state, member, known={}) for member in range(len(self.stack.recipes))]


def widened(scale: Tensor, width: int) -> Tensor:
    """(member, layers) -> (member or 1, 1, width); 1 where all members share it, so that rows are scaled once."""
    shared = scale[:1] if bool((scale == scale[:1]).all()) else scale
    return shared.repeat_interleave(width // scale.shape[1], 1)[:, None]


def member_axis(stack: Stack, value: Tensor, width: int, like: Tensor) -> Tensor:
    """A tensor of a batch as (member or 1, row, width), of this stack's members. Raises BadShape."""
    if stack.recipe.layers > 1 and value.shape[-1] * stack.recipe.layers == width:
        value = value.flatten(-2)
    if value.ndim not in (2, 3) or value.shape[-1] != width:
        raise BadShape(
            f"Asked to train dictionaries of {width} dims. A batch holds activations of shape {tuple(value.shape)}. "
            f"Give (batch, {width}), or (member, batch, {width}) where each has a site of its own."
        )
    own = value[None] if value.ndim == 2 else value[list(stack.places)]
    return own.to(like)


def fresh_state(stack: Stack, batches: Batches) -> State:
    """The State before the first step: scales and b_dec measured on the first batches, weights drawn by seed."""
    like = torch.zeros(())
    x, target = _first_rows(stack, batches, like)
    members, recipe = len(stack.recipes), stack.recipe
    scale_in = measured_scale(recipe, x).expand(members, -1).clone()
    scale_out = measured_scale(recipe, target).expand(members, -1).clone() if stack.transcodes else scale_in.clone()
    weights = stack.layout.join(first_weights(stack, target * widened(scale_out, target.shape[-1])))
    n = recipe.n_latents
    return State(
        step=0,
        weights=weights,
        mean=torch.zeros_like(weights),
        square=torch.zeros_like(weights),
        scale_in=scale_in,
        scale_out=scale_out,
        silent=torch.zeros(members, n, dtype=torch.int64),
        fired=torch.zeros(members, n, dtype=torch.int64),
        counted=torch.zeros(members, dtype=torch.int64),
        cutoff=weights.new_zeros(members, 2),
        coefficient=stack.per_member("coefficient", weights),
        powers=weights.new_zeros(members, 10, 2),
    )


def _first_rows(stack: Stack, batches: Batches, like: Tensor) -> tuple[Tensor, Tensor]:
    xs, targets, rows, step = [], [], 0, 0
    while rows < START_ROWS and step < stack.recipe.steps:
        batch = batches(step)
        xs.append(member_axis(stack, batch.x, stack.d_in, like))
        targets.append(xs[-1] if batch.target is None else member_axis(stack, batch.target, stack.d_out, like))
        rows, step = rows + xs[-1].shape[-2], step + 1
    return torch.cat(xs, -2)[:, :START_ROWS], torch.cat(targets, -2)[:, :START_ROWS]
