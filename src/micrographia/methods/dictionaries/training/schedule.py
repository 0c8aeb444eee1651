"""What changes from step to step: the penalty's coefficient, what keeps L0 at its target, p-annealing.

Rates are `adam.rate_share`.
"""

import torch

from micrographia.core.distributed import Ranks
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import Now, Stack, StackState

MULTIPLIER_RATE = 0.01
"""A step's growth of l0-target's multiplier, for each relative excess of L0."""
THRESHOLD_GAIN = 0.1
"""How much more thresholds rise in a step, in logarithms, for each relative excess of L0. L0 falls with about the
second to fourth power of thresholds, so this corrects a quarter of the excess, and cannot swing."""


def now(stack: Stack, state: StackState, group: Ranks) -> Now:
    recipe, step = stack.recipe, state.step
    share = min(1.0, (step + 1) / max(recipe.chosen_sparsity_warmup, 1))
    target = state.coefficient  # of the others nothing reads it
    if recipe.l0 is not None:
        target = stack.per_member("l0", state.weights)
    change = changes_done(recipe, step)
    dead = None
    if recipe.revival in ("auxk", "ghost"):
        dead = state.silent >= recipe.dead_after
        dead = dead if bool(dead.any()) else None
    power, later = power_after(recipe, change), power_after(recipe, change + 1)
    return Now(step, state.coefficient * share, target, state.multiplier, power, later, dead, group)


def changes_done(recipe: Recipe, step: int) -> int:
    """How many of the equal falls of p there were before this step: evenly from `p_start_at` to the end of steps."""
    start = round(recipe.p_start_at * recipe.steps)
    every = max(1, (recipe.steps - start) // (recipe.p_changes + 1))
    return min(recipe.p_changes, max(0, (step - start) // every))


def power_after(recipe: Recipe, changes: int) -> float:
    return 1 - (1 - recipe.p_end) * min(changes, recipe.p_changes) / recipe.p_changes


def annealed(stack: Stack, before: Now, state: StackState) -> torch.Tensor:
    """(member,): the coefficient for the next step: where p falls, such that the penalty stays what it was.

    It is multiplied by mean sum f^p / mean sum f^p' over the last ten batches, p before and p' after the fall
    (dictionary_learning's PAnneal; Karvonen et al. 2024, arXiv 2408.00113, section 3.2).
    """
    if changes_done(stack.recipe, state.step) == changes_done(stack.recipe, before.step):
        return state.coefficient
    present, later = state.powers.sum(1).unbind(-1)
    return torch.where(later > 0, state.coefficient * present / later, state.coefficient)


def multiplied(at: Now, state: StackState, l0: torch.Tensor) -> torch.Tensor:
    """(member,): the multiplier of l0-target for the next step, from the mean L0 (member,) of this one."""
    return (state.multiplier + MULTIPLIER_RATE * relative(at, l0)).clamp_min(0)


def pressed(at: Now, l0: torch.Tensor) -> torch.Tensor:
    """(member,): what all thresholds are multiplied by after a step, so that L0 stays near what was asked for.

    Gradients alone are slow at it: the large ones of the first steps keep Adam's steps small for thousands of steps.
    The multiplier grows until they and this balance, so that latents are still weighed against each other by the loss.
    """
    return (THRESHOLD_GAIN * relative(at, l0)).exp()


def relative(at: Now, l0: torch.Tensor) -> torch.Tensor:
    """How far L0 is from its target, as a share of it and at most 1."""
    return (l0 / at.target_l0 - 1).clamp(-1, 1)
