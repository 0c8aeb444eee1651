"""What a network was trained to do, told by what it answers: every way to read it is run on all pairs.

A guess is a way to read the weights and an operation; its accuracy on all p * p pairs decides. Held against it are
the best constant answer and the network's own accuracy for wrong tasks, the answers shifted by 1 .. p - 1: a guess is
*credible* when it beats both by five standard errors. A network that only memorised is credible too: it answers its
training pairs, far more than chance.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig, UnreadableWeights
from micrographia.core.events import Note, Watch
from micrographia.core.small.transformer import Transformer
from micrographia.core.state_dicts.foreign import Candidate
from micrographia.labs.grokking.analysis.source import modulus_of
from micrographia.labs.grokking.config import is_prime
from micrographia.labs.grokking.task import OPERATIONS, all_rows

STANDARD_ERRORS = 5.0
CHUNK = 1024  # rows at a time: their activations stay in the cache
SAMPLE = 1000  # pairs on which hopeless ways are sorted out
HOPELESS = 0.1  # accuracy below the best way's
EQUAL = 0.005  # accuracies so near are equal


class Guess(NamedTuple):
    """`losses`: nats at each pair, over the p residues. `probability`: mean probability of the right answer.

    `baseline`: what a wrong guess would reach at best. `balance`: how far the network rests against weight decay, where
    rival ways were told apart by it.
    """

    way: Candidate
    modulus: int
    operation: str
    losses: Float[Tensor, "pairs"]
    accuracy: float
    probability: float
    baseline: float
    pairs: int
    balance: float | None = None

    @property
    def credible(self) -> bool:
        error = (self.baseline * (1 - self.baseline) / self.pairs) ** 0.5
        return self.accuracy > self.baseline + STANDARD_ERRORS * error

    def as_json(self) -> dict[str, Any]:
        shown = {name: self.way.choices.get(name, "") for name in ("layout", "norm", "act")}
        names = ("modulus", "operation", "accuracy", "baseline", "probability", "balance", "pairs", "credible")
        return shown | {name: getattr(self, name) for name in names}


class Guesses(NamedTuple):
    """`best`, and all that were made: each operation in each way worth it, the best one of each other way."""

    best: Guess
    all: list[Guess]

    def rivals(self, within: float) -> list[Guess]:
        """Guesses that differ from the best in the activation alone and are nearly as accurate; the best one first."""
        near = [each for each in self.all if each.accuracy >= self.best.accuracy - within]
        same = [each for each in near if _but_for_act(each) == _but_for_act(self.best)]
        return sorted(same, key=lambda each: each is not self.best)


def guess(
    ways: Sequence[Candidate],
    *,
    modulus: int | None,
    operation: str | None,
    generator: Generator,
    watch: Watch,
) -> Guesses:
    """Find the way and the operation that answer most pairs, telling each through `watch`.

    Ways that fall far behind on a sample of pairs are not run on all. Where no guess is credible their order is noise,
    and the first way, the plainest, is taken. Cost: a forward over p * p rows for each other way, about half a second
    at p = 113. Raises UnreadableWeights, BadConfig.
    """
    likely, unlikely = _sorted_out(_readable(ways, modulus), operation, generator)
    for each in unlikely:
        watch(Note(f"{way_of(each)}: {share(each)} of {each.pairs:,} pairs at best; not pursued."))
    found: list[Guess] = []
    for way, p in likely:
        own = check(way, p, _operations(p, operation))
        said = ", ".join(f"{each.operation} {share(each)}" for each in own)
        watch(Note(f"{way_of(own[0])}: {said} of all {own[0].pairs:,} pairs."))
        found += own
    best = _best(found)
    plainest = [each for each in found if each.way is found[0].way]
    return Guesses(best if best.credible else _best(plainest), [*found, *unlikely])


def check(way: Candidate, p: int, operations: Sequence[str], rows: Tensor | None = None) -> list[Guess]:
    """One way held against each operation, on these rows or on all. One forward."""
    tokens, _ = all_rows(p, operations[0])
    chosen = torch.arange(len(tokens)) if rows is None else rows
    answers = torch.stack([all_rows(p, operation)[1][chosen] for operation in operations])
    told, losses = _answers(way, p, tokens[chosen], answers)
    n, found = len(chosen), []
    for answer, loss, operation in zip(answers, losses, operations):
        by_shift = ((told - answer) % p).bincount(minlength=p).double() / n
        constant = answer.bincount(minlength=p).max().item() / n
        baseline = max(constant, by_shift[1:].max().item())
        found.append(Guess(way, p, operation, loss, by_shift[0].item(), loss.neg().exp().mean().item(), baseline, n))
    return found


def sentence(best: Guess) -> str:
    """What was found, and against what."""
    against = f"the best wrong guess would reach {best.baseline:.1%}"
    if best.credible:
        return (
            f"Read as {way_of(best)}, it does {best.operation} mod {best.modulus}: it is right on {share(best)} of all "
            f"pairs ({against})."
        )
    return (
        f"No guess is credible. Read plainly as {way_of(best)}, it comes nearest to {best.operation} mod "
        f"{best.modulus}: right on {share(best)} of all pairs ({against}). What follows takes this for granted."
    )


def way_of(guess: Guess) -> str:
    choices = guess.way.choices
    norm = {"none": "no norm"}.get(choices["norm"], choices["norm"])
    return ", ".join([choices["layout"], norm, *(choices[name] for name in choices if name not in ("layout", "norm"))])


def share(guess: Guess) -> str:
    return f"{guess.accuracy:.2%}"


def _best(guesses: Sequence[Guess]) -> Guess:
    """The most accurate; among those that are equally so, the surest of the right answers."""
    top = max(each.accuracy for each in guesses)
    return max((each for each in guesses if each.accuracy >= top - EQUAL), key=lambda each: each.probability)


def _but_for_act(guess: Guess) -> tuple[str, int, dict[str, str]]:
    return guess.operation, guess.pairs, {name: each for name, each in guess.way.choices.items() if name != "act"}


def _answers(
    way: Candidate, p: int, tokens: Tensor, answers: Int[Tensor, "operation rows"]
) -> tuple[Int[Tensor, "rows"], Float[Tensor, "operation rows"]]:
    """The residue that each row is given, and the loss of each operation's answer, over the p residues; float64."""
    model = Transformer(way.arch, way.weights)
    told, losses = [], []
    for rows, right in zip(tokens.split(CHUNK), answers.split(CHUNK, dim=1)):
        logits = model.run(rows, logits="last").logits
        log_probability = logits[:, -1, :p].double().log_softmax(-1)
        told.append(log_probability.argmax(-1))
        losses.append(-log_probability.gather(-1, right.T).T)
    return torch.cat(told), torch.cat(losses, 1)


def _readable(ways: Sequence[Candidate], modulus: int | None) -> list[tuple[Candidate, int]]:
    """The ways whose widths and context fit the task, with their modulus; an error when there is none."""
    found, errors = [], []
    for way in ways:
        try:
            found.append((way, modulus_of(way, modulus)))
        except UnreadableWeights as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _operations(p: int, asked: str | None) -> list[str]:
    """Those asked for or all; only a prime modulus has a multiplication with characters."""
    if asked is not None and asked not in OPERATIONS:
        raise BadConfig(f"Asked for the operation {asked!r}. Known are {', '.join(OPERATIONS)}. Choose one of them.")
    if asked == "multiply" and not is_prime(p):
        raise BadConfig(f"Asked for multiply mod {p}. It is cyclic for a prime modulus only. Choose another operation.")
    return [asked] if asked else [name for name in OPERATIONS if name != "multiply" or is_prime(p)]


def _sorted_out(
    ways: list[tuple[Candidate, int]], operation: str | None, generator: Generator
) -> tuple[list[tuple[Candidate, int]], list[Guess]]:
    """Ways worth a run on all pairs, and the best guess of each other one on a sample."""
    if len(ways) == 1 or min(p for _, p in ways) ** 2 <= 2 * SAMPLE:
        return ways, []
    found = []
    for way, p in ways:
        rows = torch.randperm(p * p, generator=generator)[:SAMPLE]
        found.append(_best(check(way, p, _operations(p, operation), rows)))
    top = max(each.accuracy for each in found)
    kept = [each.accuracy >= top - HOPELESS for each in found]
    unlikely = [each for each, keep in zip(found, kept) if not keep]
    return [pair for pair, keep in zip(ways, kept) if keep], unlikely
