"""Which activation a network was trained with, where several give nearly the same accuracy.

ReLU's weights run with GELU lose little, and may even look surer. But only as it was trained does a network's gradient
balance weight decay (`methods/decay_balance`) on the pairs that it learnt. Without the split these are identified by
their losses: at most three times, or ten times, the median loss of as many pairs as are right, whichever balances
better, as the true set of pairs does.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.events import Note, Watch
from micrographia.labs.grokking.identify.guess import Guess, Guesses
from micrographia.labs.grokking.task import all_rows
from micrographia.methods.decay_balance import decay_balance

ALIKE = 0.02  # accuracies no farther apart do not separate activations
CLEAR = 0.02  # balances at least so far apart do
LEARNT = (3.0, 10.0)  # times the median loss of the right pairs
MOST_ROWS = 4000


def choose_activation(guesses: Guesses, train: Bool[Tensor, "pairs"] | None, watch: Watch) -> Guesses:
    """Choose among activations with which a credible task is done alike. One pass over 4,000 pairs at most for each."""
    best, near = guesses.best, rivals(guesses)
    if len(near) == 1 or not best.credible:
        return guesses
    weighed = {id(each): each._replace(balance=balance(each, train)) for each in near}
    ranked = sorted(weighed.values(), key=lambda each: -(each.balance or 0.0))
    for each in ranked:
        watch(Note(f"{each.reading}: gradient and weight decay balance to {each.balance:.2f} (1 fully, 0 by chance)."))
    first, second = ranked[:2]
    clear = (first.balance or 0.0) - (second.balance or 0.0) >= CLEAR
    if not clear:
        text = f"{first.reading} and {second.reading} cannot be separated; the surer one is taken."
        watch(Note(f"{text} Give --act if you know it.", "warning"))
    chosen = first if clear else weighed[id(best)]
    alike = [] if clear else [each for each in (first, second) if each is not chosen]
    return Guesses(chosen, [weighed.get(id(each), each) for each in guesses.all], alike)


def rivals(guesses: Guesses) -> list[Guess]:
    """Guesses that differ from the best in the activation alone and are nearly as accurate; the best one first."""
    best = guesses.best
    return [best, *others(guesses, within=ALIKE)]


def others(guesses: Guesses, *, within: float) -> list[Guess]:
    """Guesses that differ from the best in the activation alone and are less accurate by this much at most."""
    best = guesses.best
    near = [each for each in guesses.all if each.accuracy >= best.accuracy - within]
    return [each for each in near if each is not best and _but_act(each) == _but_act(best)]


def balance(guess: Guess, train: Bool[Tensor, "pairs"] | None) -> float:
    """`decay_balance` on the training pairs, or on those that were learnt by their losses."""
    tokens, labels = all_rows(guess.modulus, guess.operation, guess.last)
    found = []
    for mask in [learnt(guess.losses, guess.accuracy, times) for times in LEARNT] if train is None else [train]:
        rows = mask.nonzero()[:, 0]
        rows = rows[:: -(-len(rows) // MOST_ROWS)]
        found.append(decay_balance(guess.candidate.arch, guess.candidate.weights, tokens[rows], labels[rows]))
    return max(found)


def learnt(losses: Float[Tensor, "pairs"], accuracy: float, times: float = LEARNT[0]) -> Bool[Tensor, "pairs"]:
    """The pairs whose loss is at most this many times the median of the right ones'."""
    return losses <= times * torch.quantile(losses, accuracy / 2)


def _but_act(guess: Guess) -> tuple[str, int, int, dict[str, str]]:
    choices = {name: choice for name, choice in guess.candidate.choices.items() if name != "act"}
    return guess.operation, guess.pairs, len(guess.last), choices
