"""What a network was trained to do, told by what it answers: every way to read it is run on all pairs.

A guess is a way to read the weights and an operation; its accuracy on all p * p pairs decides. Held against it are
the best constant answer and the network's own accuracy for wrong tasks, the answers shifted by 1 .. p - 1: a guess is
*credible* when it beats both by five standard errors. A network that only memorised is credible too: it answers its
training pairs, far more than chance.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig, UnreadableWeights
from micrographia.core.events import Note, Watch
from micrographia.core.foreign import Candidate
from micrographia.core.metrics import cross_entropy
from micrographia.core.transformer import Transformer
from micrographia.labs.grokking.config import is_prime
from micrographia.labs.grokking.source import modulus_of
from micrographia.labs.grokking.task import OPERATIONS, all_rows

STANDARD_ERRORS = 5.0
CHUNK = 1024  # rows at a time: their activations stay in the cache
SAMPLE = 1000  # pairs on which hopeless ways are sorted out
HOPELESS = 0.1  # accuracy below the best way's
EQUAL = 0.005  # accuracies this near are told apart by the mean probability of the right answer


class Guess(NamedTuple):
    """`probability`: mean probability of the right answer. `baseline`: what a wrong guess would reach at best."""

    way: Candidate
    modulus: int
    operation: str
    accuracy: float
    probability: float
    baseline: float
    pairs: int

    @property
    def credible(self) -> bool:
        error = (self.baseline * (1 - self.baseline) / self.pairs) ** 0.5
        return self.accuracy > self.baseline + STANDARD_ERRORS * error

    def as_json(self) -> dict[str, Any]:
        shown = {name: self.way.choices.get(name, "") for name in ("layout", "norm", "act")}
        numbers = {name: getattr(self, name) for name in ("accuracy", "probability", "baseline", "pairs", "credible")}
        return {**shown, "modulus": self.modulus, "operation": self.operation, **numbers}


class Guesses(NamedTuple):
    """`best` with its rivals: the other operations read the same way, and the best of each other way."""

    best: Guess
    all: list[Guess]


def guess(
    ways: Sequence[Candidate],
    *,
    modulus: int | None,
    operation: str | None,
    generator: Generator,
    watch: Watch,
) -> Guesses:
    """Find the way and the operation that answer most pairs, telling each through `watch`.

    Ways that fall far behind on a sample of pairs are not run on all. Cost: a forward over p * p rows for each other
    way, about half a second at p = 113. Raises UnreadableWeights, BadConfig.
    """
    readable = _readable(ways, modulus)
    likely, unlikely = _sorted_out(readable, operation, generator)
    found = [each for way, p in likely for each in check(way, p, _operations(p, operation))]
    best = choose(found)
    for each in unlikely:
        watch(Note(f"{_way(each)}: {_share(each)} on {each.pairs:,} pairs; not pursued."))
    for way, _ in likely:
        own = [each for each in found if each.way is way]
        said = ", ".join(f"{each.operation} {_share(each)}" for each in own)
        watch(Note(f"{_way(own[0])}: {said} of all {own[0].pairs:,} pairs."))
    watch(Note(sentence(best), "info" if best.credible else "warning"))
    return Guesses(best, [*found, *unlikely])


def check(way: Candidate, p: int, operations: Sequence[str], rows: Tensor | None = None) -> list[Guess]:
    """One way held against each operation, on these rows or on all. One forward."""
    tokens, _ = all_rows(p, operations[0])
    chosen = torch.arange(len(tokens)) if rows is None else rows
    answers = [all_rows(p, operation)[1][chosen] for operation in operations]
    told, probability = [], torch.zeros(len(operations), dtype=torch.float64)
    for logits, part in _logits(way, p, tokens[chosen]):
        told.append(logits.argmax(-1))
        probability += torch.stack([(-cross_entropy(logits, answer[part])).exp().sum() for answer in answers])
    found = []
    for i, operation in enumerate(operations):
        by_shift = ((torch.cat(told) - answers[i]) % p).bincount(minlength=p).double() / len(chosen)
        constant = answers[i].bincount(minlength=p).max().item() / len(chosen)
        baseline = max(constant, by_shift[1:].max().item())
        found.append(
            Guess(way, p, operation, by_shift[0].item(), probability[i].item() / len(chosen), baseline, len(chosen))
        )
    return found


def choose(guesses: Sequence[Guess]) -> Guess:
    """The highest accuracy; among equal ones, the surest of the right answers."""
    top = max(each.accuracy for each in guesses)
    return max((each for each in guesses if each.accuracy >= top - EQUAL), key=lambda each: each.probability)


def pair_losses(way: Candidate, p: int, operation: str) -> Float[Tensor, "pairs"]:
    """Loss in nats at every pair, over the p residues; float64. One forward."""
    tokens, labels = all_rows(p, operation)
    return torch.cat([cross_entropy(logits, labels[part]) for logits, part in _logits(way, p, tokens)])


def sentence(best: Guess) -> str:
    """What was found, and against what."""
    against = f"a wrong guess reaches {best.baseline:.1%}"
    if best.credible:
        return (
            f"Read as {_way(best)}, it does {best.operation} mod {best.modulus}: it is right on {_share(best)} of all "
            f"pairs ({against})."
        )
    return (
        f"No guess is credible: the best, {best.operation} mod {best.modulus} read as {_way(best)}, is right on "
        f"{_share(best)} of all pairs ({against}). What follows takes it for granted."
    )


def _logits(way: Candidate, p: int, tokens: Tensor) -> Iterator[tuple[Tensor, slice]]:
    model = Transformer(way.arch, way.weights)
    for start in range(0, len(tokens), CHUNK):
        logits = model.run(tokens[start : start + CHUNK], logits="last").logits
        assert logits is not None
        yield logits[:, -1, :p], slice(start, start + CHUNK)


def _readable(ways: Sequence[Candidate], modulus: int | None) -> list[tuple[Candidate, int]]:
    """The ways whose widths and context fit the task, with their modulus; an error when there is none."""
    found, errors = [], []
    for way in ways:
        try:
            found.append((_reads_three(way), modulus_of(way, modulus)))
        except UnreadableWeights as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _reads_three(way: Candidate) -> Candidate:
    n_ctx, exact = way.arch.n_ctx, not way.arch.attention
    if n_ctx < 3 or (exact and n_ctx != 3):
        raise UnreadableWeights(
            f"Asked to analyse a network that reads a, b and '='. Found one that reads {n_ctx} tokens. Nothing can be "
            "made of it here."
        )
    return way


def _operations(p: int, asked: str | None) -> list[str]:
    """Those asked for or all; only a prime modulus has a multiplication with characters."""
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
        found.append(choose(check(way, p, _operations(p, operation), rows)))
    top = max(each.accuracy for each in found)
    kept = [each.accuracy >= top - HOPELESS for each in found]
    unlikely = [each for each, keep in zip(found, kept) if not keep]
    return [pair for pair, keep in zip(ways, kept) if keep], unlikely


def _way(each: Guess) -> str:
    choices = each.way.choices
    norm = {"none": "no norm"}.get(choices["norm"], choices["norm"])
    more = [choices[name] for name in choices if name not in ("layout", "norm")]
    return ", ".join([choices["layout"], norm, *more])


def _share(each: Guess) -> str:
    return f"{each.accuracy:.2%}"
