"""What a network was trained to do, from its answers: every reading of the weights is run on all pairs.

A guess is a reading of the weights and an operation; its accuracy on all p * p pairs decides. It is compared with the
best constant answer and with the network's accuracy for wrong tasks, the answers shifted by 1 .. p - 1: a guess is
*credible* when it beats both by five standard errors. A network that only memorised is credible too: its training
pairs are right, far more than by chance.
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
from micrographia.labs.grokking.config import is_prime
from micrographia.labs.grokking.identify.source import RowFormat, tasks_of
from micrographia.labs.grokking.task import OPERATIONS, all_rows

STANDARD_ERRORS = 5.0
CHUNK = 1024  # rows at a time: their activations stay in the cache
SAMPLE = 1000  # pairs on which hopeless candidates are dropped
HOPELESS = 0.1  # accuracy below the best candidate's
EQUAL = 0.005  # accuracies so near are equal


class Guess(NamedTuple):
    """`losses`: nats at each pair, over the p residues. `probability`: mean probability of the right answer.

    `baseline`: the best accuracy of a wrong guess. `balance`: how far gradient and weight decay balance, where rival
    activations were separated by it.
    """

    candidate: Candidate
    task: RowFormat
    operation: str
    losses: Float[Tensor, "pairs"]
    accuracy: float
    probability: float
    baseline: float
    pairs: int
    balance: float | None = None

    @property
    def modulus(self) -> int:
        return self.task.modulus

    @property
    def last(self) -> tuple[int, ...]:
        return self.task.last

    @property
    def credible(self) -> bool:
        error = (self.baseline * (1 - self.baseline) / self.pairs) ** 0.5
        return self.accuracy > self.baseline + STANDARD_ERRORS * error

    @property
    def reading(self) -> str:
        """How the weights are read: "TransformerLens, no norm, relu"."""
        choices = dict(self.candidate.choices)
        layout, norm = choices.pop("layout"), choices.pop("norm")
        row = [] if self.last else ["rows of two tokens"]
        return ", ".join([layout, "no norm" if norm == "none" else norm, *choices.values(), *row])

    def as_json(self) -> dict[str, Any]:
        choices = {name: self.candidate.choices.get(name, "") for name in ("layout", "norm", "act")}
        names = ("modulus", "operation", "accuracy", "baseline", "probability", "balance", "pairs", "credible")
        return choices | {name: getattr(self, name) for name in names}

    @property
    def task_name(self) -> str:
        return f"{self.operation} mod {self.modulus}"


class Guesses(NamedTuple):
    """`best`, and all that were made: each operation of each likely candidate, the best one of each other.

    `alike`: readings that differ from the best in the activation alone and could not be separated from it.
    """

    best: Guess
    all: list[Guess]
    alike: Sequence[Guess] = ()


def guess(
    candidates: Sequence[Candidate],
    *,
    modulus: int | None,
    operation: str | None,
    generator: Generator,
    watch: Watch,
) -> Guesses:
    """Find the candidate and the operation with the highest accuracy, reporting each through `watch`.

    Candidates that fall far behind on a sample of pairs are not run on all. Where no guess is credible their order is
    noise, and the first candidate, the plainest, is taken. Cost: a forward over p * p rows for each other candidate,
    about half a second at p = 113. Raises UnreadableWeights, BadConfig.
    """
    likely, unlikely = _likely(_readable(candidates, modulus), operation, generator)
    for each in unlikely:
        watch(Note(f"{each.reading}: {each.accuracy:.2%} of {each.pairs:,} pairs at best; not pursued."))
    found: list[Guess] = []
    for candidate, task in likely:
        own = check(candidate, task, _operations(task.modulus, operation))
        accuracies = ", ".join(f"{each.operation} {each.accuracy:.2%}" for each in own)
        watch(Note(f"{own[0].reading}: {accuracies} of all {own[0].pairs:,} pairs."))
        found += own
    best = _best(found)
    plainest = [each for each in found if each.candidate is found[0].candidate]
    return Guesses(best if best.credible else _best(plainest), [*found, *unlikely])


def check(candidate: Candidate, task: RowFormat, operations: Sequence[str], rows: Tensor | None = None) -> list[Guess]:
    """One candidate against each operation, on these rows or on all. One forward."""
    p, last = task
    tokens, _ = all_rows(p, operations[0], last)
    chosen = torch.arange(len(tokens)) if rows is None else rows
    answers = torch.stack([all_rows(p, operation)[1][chosen] for operation in operations])
    predicted, losses = _predictions(candidate, p, tokens[chosen], answers)
    n, found = len(chosen), []
    for answer, loss, operation in zip(answers, losses, operations):
        by_shift = ((predicted - answer) % p).bincount(minlength=p).double() / n
        constant = answer.bincount(minlength=p).max().item() / n
        baseline, probability = max(constant, by_shift[1:].max().item()), loss.neg().exp().mean().item()
        found.append(Guess(candidate, task, operation, loss, by_shift[0].item(), probability, baseline, n))
    return found


def _predictions(
    candidate: Candidate, p: int, tokens: Tensor, answers: Int[Tensor, "operation rows"]
) -> tuple[Int[Tensor, "rows"], Float[Tensor, "operation rows"]]:
    """The residue predicted at each row, and the loss of each operation's answer, over the p residues; float64."""
    model = Transformer(candidate.arch, candidate.weights)
    predicted, losses = [], []
    for rows, right in zip(tokens.split(CHUNK), answers.split(CHUNK, dim=1)):
        log_probability = model.run(rows, logits="last").logits[:, -1, :p].double().log_softmax(-1)
        predicted.append(log_probability.argmax(-1))
        losses.append(-log_probability.gather(-1, right.T).T)
    return torch.cat(predicted), torch.cat(losses, 1)


def _best(guesses: Sequence[Guess]) -> Guess:
    """The most accurate; among those that are equally so, the surest of the right answers."""
    top = max(each.accuracy for each in guesses)
    return max((each for each in guesses if each.accuracy >= top - EQUAL), key=lambda each: each.probability)


def _readable(candidates: Sequence[Candidate], modulus: int | None) -> list[tuple[Candidate, RowFormat]]:
    """The candidates whose widths and context fit the task, with each task; an error when there is none."""
    found, errors = [], []
    for candidate in candidates:
        try:
            found += [(candidate, task) for task in tasks_of(candidate.arch, modulus)]
        except UnreadableWeights as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _operations(p: int, given: str | None) -> list[str]:
    """The one given or all; only a prime modulus has a multiplication with characters."""
    if given is not None and given not in OPERATIONS:
        raise BadConfig(f"Asked for the operation {given!r}. Known are {', '.join(OPERATIONS)}. Choose one of them.")
    if given == "multiply" and not is_prime(p):
        raise BadConfig(f"Asked for multiply mod {p}. It is cyclic for a prime modulus only. Choose another operation.")
    return [given] if given else [name for name in OPERATIONS if name != "multiply" or is_prime(p)]


def _likely(
    candidates: list[tuple[Candidate, RowFormat]], operation: str | None, generator: Generator
) -> tuple[list[tuple[Candidate, RowFormat]], list[Guess]]:
    """Candidates worth a run on all pairs, and the best guess of each other one on a sample."""
    if len(candidates) == 1 or min(task.modulus for _, task in candidates) ** 2 <= 2 * SAMPLE:
        return candidates, []
    found = []
    for candidate, task in candidates:
        p = task.modulus
        rows = torch.randperm(p * p, generator=generator)[:SAMPLE]
        found.append(_best(check(candidate, task, _operations(p, operation), rows)))
    top = max(each.accuracy for each in found)
    likely = [pair for pair, each in zip(candidates, found) if each.accuracy >= top - HOPELESS]
    return likely, [each for each in found if each.accuracy < top - HOPELESS]
