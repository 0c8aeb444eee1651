"""Which activation a network was trained with, where it answers nearly alike with several.

ReLU's weights run with GELU lose little, and may even look surer. But only as it was trained does a network rest
against weight decay (`methods/decay_balance`) on the pairs that it learnt. Which these are the losses tell: at most
three times the median loss of as many pairs as are right. Where the split is known, they are its training pairs.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.events import Note, Watch
from micrographia.labs.grokking.analysis.guess import Guess, Guesses, way_of
from micrographia.labs.grokking.task import all_rows
from micrographia.methods.decay_balance import decay_balance

ALIKE = 0.02  # accuracies no farther apart do not tell ways apart
CLEAR = 0.02  # balances at least so far apart do
LEARNT = 3.0  # times the median loss of the right pairs
MOST_ROWS = 4000


def settle(guesses: Guesses, train: Bool[Tensor, "pairs"] | None, watch: Watch) -> Guesses:
    """Choose among activations that do a credible task alike. One pass over 4,000 pairs at most for each."""
    rivals = guesses.rivals(ALIKE)
    if len(rivals) == 1 or not guesses.best.credible:
        return guesses
    weighed = {id(each): each._replace(balance=balance(each, train)) for each in rivals}
    ranked = sorted(weighed.values(), key=lambda each: -(each.balance or 0.0))
    for each in ranked:
        watch(Note(f"{way_of(each)}: rests against weight decay to {each.balance:.2f} (1 at rest, 0 by chance)."))
    first, second = ranked[:2]
    clear = (first.balance or 0.0) - (second.balance or 0.0) >= CLEAR
    best = first if clear else weighed[id(guesses.best)]
    if not clear:
        names = " and ".join(way_of(each) for each in (first, second))
        watch(Note(f"{names} cannot be told apart; the surer one is taken. Say --act if you know it.", "warning"))
    return Guesses(best, [weighed.get(id(each), each) for each in guesses.all])


def balance(guess: Guess, train: Bool[Tensor, "pairs"] | None) -> float:
    """`decay_balance` on the training pairs, or on those that were learnt by their losses."""
    tokens, labels = all_rows(guess.modulus, guess.operation)
    rows = (learnt(guess.losses, guess.accuracy) if train is None else train).nonzero()[:, 0]
    step = -(-len(rows) // MOST_ROWS)
    return decay_balance(guess.way.arch, guess.way.weights, tokens[rows[::step]], labels[rows[::step]])


def learnt(losses: Float[Tensor, "pairs"], accuracy: float) -> Bool[Tensor, "pairs"]:
    """The pairs whose loss is at most three times the median of the right ones'."""
    return losses <= LEARNT * torch.quantile(losses, accuracy / 2)
