"""Trainer: a Stack in training: its state, and one step from a batch to the next.

Nothing is random here but resampling, which draws from a generator of (seed, step). Axes: member row latent d.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from micrographia.core.distributed import ALONE, Ranks
from micrographia.core.errors import BadShape, NonFiniteLoss
from micrographia.core.stream.batches import Activations, Batches
from micrographia.methods.dictionaries.training.adam import adam_step
from micrographia.methods.dictionaries.training.calibrate import level
from micrographia.methods.dictionaries.training.plans import PLANS, Plan
from micrographia.methods.dictionaries.training.revive import REVIVALS
from micrographia.methods.dictionaries.training.schedule import annealed, multiplied, now, pressed
from micrographia.methods.dictionaries.training.stack import Now, Outcome, ScaledBatch, Stack, StackState
from micrographia.methods.dictionaries.training.start import START_ROWS, START_VALUES, first_weights, measured_scale

AVERAGED = 0.99
"""Decay of BatchTopK's cutoff, whose average is corrected for its start."""


class Trainer:
    """A Stack in training. `state` is all that a step reads beside the batch; weights and gradient are views of it."""

    def __init__(
        self, stack: Stack, state: StackState, batches: Batches, group: Ranks = ALONE, plan: Plan | None = None
    ) -> None:
        self.stack, self.batches, self.group = stack, batches, group
        self.plan = PLANS[stack.recipe.kind] if plan is None else plan
        self.layout = stack.layout
        self.take(state)

    def take(self, state: StackState) -> None:
        """Go on from this state."""
        self.state = state
        self.weights = self.layout.views(state.weights)
        self.gradient = torch.zeros_like(state.weights)
        self.slopes = self.layout.views(self.gradient)

    def skip(self) -> dict[str, Tensor]:
        """Leave this step out."""
        self.state = self.state._replace(step=self.state.step + 1)
        return {}

    def step(self, batch: Activations) -> dict[str, Tensor]:
        """Take one step; name -> (member,), what was measured before it: the loss, its terms, L0, dead latents.

        Raises NonFiniteLoss before any change of the state.
        """
        revival = REVIVALS.get(self.stack.recipe.revival)
        if revival is not None and self.state.step in self.stack.recipe.revive_at:
            revival(self.stack, self.state, now(self.stack, self.state, ALONE), self.read)
        scaled, at = self.scaled(batch), now(self.stack, self.state, self.group)
        outcome = self.plan(self.stack, self.weights, scaled, at, self.slopes)
        terms = {name: self.group.sum(value.clone()) for name, value in outcome.terms.items()}
        loss = torch.stack(list(terms.values())).sum(0)
        self.group.sum(self.gradient)
        self._check(loss)
        adam_step(self.stack, self.state, self.weights, self.gradient, self.slopes)
        fired = self.group.sum(outcome.fired.clone())
        self.state = self._counted(outcome, at, fired, scaled.rows)
        dead = (self.state.silent >= self.stack.recipe.dead_after).sum(1)
        return {"loss": loss, **terms, "l0": fired.sum(1) / scaled.rows, "dead": dead}

    def read(self, step: int, batches: Batches | None = None) -> ScaledBatch:
        """The whole batch of a step, over all ranks, in the units of training."""
        batch = (self.batches if batches is None else batches)(step)
        return self._in_units(*rows_of(self.stack, batch, self.state.weights))

    def scaled(self, batch: Activations) -> ScaledBatch:
        """This rank's rows of a batch in the units of training."""
        x, target = rows_of(self.stack, batch, self.state.weights)
        own = self._in_units(self.group.own_rows(x), self.group.own_rows(target))
        return own._replace(rows=x.shape[-2])

    def _in_units(self, x: Tensor, target: Tensor) -> ScaledBatch:
        x = x * widened(self.state.scale_in, self.stack.d_in)
        if self.stack.transcodes:
            return ScaledBatch(x, target * widened(self.state.scale_out, self.stack.d_out), x.shape[-2])
        return ScaledBatch(x, x, x.shape[-2])

    def _check(self, loss: Tensor) -> None:
        if bool(torch.isfinite(loss).all() & torch.isfinite(self.gradient.sum())):
            return
        members = [self.stack.places[k] for k in (~torch.isfinite(loss)).nonzero()[:, 0].tolist()]
        found = f"the loss of dictionary {', '.join(map(str, members))}" if members else "a gradient"
        raise NonFiniteLoss(f"At step {self.state.step} {found} was NaN or infinite.")

    def _counted(self, outcome: Outcome, at: Now, fired: Tensor, rows: int) -> StackState:
        """The state after a step: counters, BatchTopK's average cutoff, p-annealing's coefficient."""
        state = self.state
        state.silent.add_(rows).masked_fill_(fired > 0, 0)
        state.fired.add_(fired.to(state.fired.dtype))
        state.counted.add_(rows)
        if outcome.cutoff is not None:
            new = torch.stack([outcome.cutoff, torch.ones_like(outcome.cutoff)], -1)
            state.cutoff.lerp_(new, 1 - AVERAGED)
        state = state._replace(step=state.step + 1)
        if self.stack.recipe.chosen_penalty == "l0-target":
            mean = fired.sum(1) / rows
            state.multiplier.copy_(multiplied(at, state, mean))
            self.weights["threshold"].mul_(pressed(at, mean)[:, None])
        if outcome.powers is not None:
            state.powers[:, at.step % state.powers.shape[1]] = self.group.sum(outcome.powers.clone())
            state.coefficient.copy_(annealed(self.stack, at, state))
        return state

    def averaged_cutoff(self) -> Tensor:
        """(member,): BatchTopK's threshold, in training units, from the batches so far."""
        total, weight = self.state.cutoff.unbind(-1)
        return torch.where(weight > 0, total / weight, 0)


def unfit(batch: Activations) -> str:
    """What of a batch holds NaN or infinities: "", "x", "target", or both."""
    named = [(name, value) for name, value in batch._asdict().items() if value is not None]
    return " and ".join(name for name, value in named if not bool(torch.isfinite(value).all()))


def widened(scale: Tensor, width: int) -> Tensor:
    """(member, layers) -> (member or 1, 1, width); 1 where all members share it, so that rows are scaled once."""
    shared = scale[:1] if bool((scale == scale[:1]).all()) else scale
    return shared.repeat_interleave(width // scale.shape[1], 1)[:, None]


def rows_of(stack: Stack, batch: Activations, like: Tensor) -> tuple[Tensor, Tensor]:
    """Input and target of this stack's members, (member or 1, row, d), in dtype and device of `like`. BadShape."""
    x = _member_axis(stack, batch.x, stack.d_in, like)
    if batch.target is None and stack.transcodes:
        raise BadShape("Some batches have a target and others none. Give all of them one, or none.")
    given = batch.target if stack.transcodes else None
    target = x if given is None else _member_axis(stack, given, stack.d_out, like)
    if target.shape[-2] != x.shape[-2]:
        raise BadShape(f"A batch has {x.shape[-2]} rows of input and {target.shape[-2]} of target. Give as many.")
    return x, target


def _member_axis(stack: Stack, value: Tensor, width: int, like: Tensor) -> Tensor:
    found = tuple(value.shape)
    if stack.recipe.layers > 1 and value.ndim > 2 and value.shape[-1] * value.shape[-2] == width:
        value = value.flatten(-2)
    fits = value.ndim in (2, 3) and value.shape[-1] == width
    if not fits or (value.ndim == 3 and len(value) <= max(stack.places)):
        raise BadShape(
            f"Asked to train dictionaries of {width} dims. A batch holds activations of shape {found}. "
            f"Give (batch, {width}), or (member, batch, {width}) where each dictionary has a site of its own."
        )
    own = value[None] if value.ndim == 2 else value[list(stack.places)]
    return own.to(like)


def fresh_state(stack: Stack, first: Sequence[Activations], like: Tensor) -> StackState:
    """The state before the first step: scale, b_dec and thresholds by the first batches, weights drawn by seed.

    Weights are in the dtype and on the device of `like`. Raises NonFiniteLoss for a batch with NaN.
    """
    x, target = _first_rows(stack, first, like)
    members, n = len(stack.recipes), stack.recipe.n_latents
    scale_in = measured_scale(stack.recipe, x).expand(members, -1).clone()
    scale_out = scale_in.clone()
    if stack.transcodes:
        scale_out = measured_scale(stack.recipe, target).expand(members, -1).clone()
    x, target = x * widened(scale_in, stack.d_in), target * widened(scale_out, stack.d_out)
    drawn = first_weights(stack, target)
    wanted = [each.l0 for each in stack.recipes if each.l0 is not None]
    if wanted and stack.recipe.threshold is None:
        drawn["threshold"] *= level(stack, drawn, [ScaledBatch(x, target, x.shape[-2])], wanted)[:, None]
    weights = stack.layout.join(drawn)
    counts = torch.zeros(members, n, dtype=torch.int64, device=weights.device)
    return StackState(
        step=0,
        weights=weights,
        mean=torch.zeros_like(weights),
        square=torch.zeros_like(weights),
        scale_in=scale_in,
        scale_out=scale_out,
        silent=counts,
        fired=counts.clone(),
        counted=counts[:, 0].clone(),
        cutoff=weights.new_zeros(members, 2),
        coefficient=stack.per_member("coefficient", weights),
        multiplier=weights.new_zeros(members),
        powers=weights.new_zeros(members, 10, 2),
    )


def first_batches(batches: Batches, steps: int) -> list[Activations]:
    """The first batches of a training of so many steps, as many as its start is measured on."""
    found: list[Activations] = []
    rows = values = 0
    while rows < START_ROWS and values < START_VALUES and len(found) < steps:
        found.append(batches(len(found)))
        rows, values = rows + found[-1].x.shape[-2], values + found[-1].x.numel()
    return found


def _first_rows(stack: Stack, first: Sequence[Activations], like: Tensor) -> tuple[Tensor, Tensor]:
    found = [rows_of(stack, batch, like) for batch in first if not unfit(batch)]
    if not found:
        raise NonFiniteLoss(f"The first {len(first)} batches all hold NaN or infinities. Check where they come from.")
    x, target = (torch.cat(each, -2)[:, :START_ROWS] for each in zip(*found))
    return x, target
