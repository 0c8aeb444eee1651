"""The sentence on what a network was read as. It says "it does" only where at least nine pairs in ten are right.

A reading that is credible, above any wrong guess, may still be wrong in what weights do not show: the activation, a
norm, a scale. Then accuracy stays in between, or another activation fits nearly as well, and the sentence says so.
"""

import math
from typing import NamedTuple

from jaxtyping import Bool
from torch import Tensor

from micrographia.labs.grokking.identify.activation import others
from micrographia.labs.grokking.identify.guess import Guess, Guesses

SURE = 0.99  # accuracy, on all pairs or on the training pairs
MOSTLY = 0.9
NEAR = 0.1  # accuracies no farther apart are a little better, below SURE


class Verdict(NamedTuple):
    says: str
    doubted: bool


def judge(guesses: Guesses, train: Bool[Tensor, "pairs"] | None) -> Verdict:
    """What the best guess is taken as, and whether that is doubtful. `train`: the credible split, if there is one."""
    best = guesses.best
    right = f"right on {best.accuracy:.2%} of all pairs (the best wrong guess would reach {best.baseline:.1%})"
    if not best.credible:
        plain = f"Read plainly as {best.reading}, it comes nearest to {best.task_name}: {right}."
        return Verdict(f"No guess is credible. {plain} What follows takes this for granted.", True)
    doubts = _doubts(guesses, train)
    if best.accuracy >= SURE:
        said = f"Read as {best.reading}, it does {best.task_name}: it is {right}."
    elif best.accuracy >= MOSTLY:
        said = f"Read as {best.reading}, it does {best.task_name} for the most part: it is {right}."
    elif train is not None and not doubts:
        said = f"Read as {best.reading}, it has learned its training pairs of {best.task_name}: it is {right}."
    else:
        said = f"Read as {best.reading}, it comes nearest to {best.task_name}: it is {right}."
    return Verdict(" ".join([said, *doubts]), bool(doubts))


def _doubts(guesses: Guesses, train: Bool[Tensor, "pairs"] | None) -> list[str]:
    best, found = guesses.best, []
    known = [best.accuracy] if train is None else [best.accuracy, _surely_right(best, train)]
    sure = max(known) >= SURE
    # Where the balance of gradient and decay decided, it decided between those that are alike.
    near = guesses.alike or ([] if sure or best.balance is not None else others(guesses, within=NEAR))
    if near:
        act = best.candidate.choices["act"]
        rivals = ", ".join(f"{each.candidate.choices['act']} {each.accuracy:.2%}" for each in near)
        found.append(f"Doubtful: {act} fits hardly better than another activation ({rivals}).")
    if not sure and best.accuracy < MOSTLY:
        why = "may be unfinished, or have an activation or a norm that was not tried"
        found.append(
            f"Doubtful: it is not right on nearly all of its training pairs, so it {why}."
            if train is not None
            else f"Doubtful: it may know its training pairs alone, which are not known here; or it {why}."
        )
    return [*found, "Give --act if you know it."] if found else []


def _surely_right(guess: Guess, pairs: Bool[Tensor, "pairs"]) -> float:
    """The share of these pairs whose answer has more than half of the probability."""
    return (guess.losses[pairs] < math.log(2)).double().mean().item()
