"""Ask a model for a completion: the right one, beside others that are right for other prompts of the same kind.

Log-probabilities are of whole completions, in nats. Names differ in how likely they are whatever the prompt, by more
than what is looked for; so a completion after its own prompt is compared with the same completion after others'. The
mean difference is that of the right and a random name after the same prompt (Berglund et al. 2023, section 2.1.2), its
scatter is less. Every fact is asked for once, in one wording. Axes: test option.
"""

from random import Random
from typing import NamedTuple

import torch
from jaxtyping import Float
from numpy import ndarray

from micrographia.core.errors import BadPrompt
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.intervals import Interval, share
from micrographia.core.paired_tests import PairedTests, paired_tests
from micrographia.core.pretrained.upper_layers import Learned, UpperLayers, learned_texts
from micrographia.core.reversal_files import ReversalData, Statement

MARGIN_NATS = 0.1
"""Differences within it are called none. Set before anything was measured."""
ROWS = 32


class DirectedTests(NamedTuple):
    """Those of one arm in one direction."""

    arm: str
    direction: str
    """Either "to description" or "to name"."""
    trained: bool
    """Whether the arm was trained in this direction."""
    statements: tuple[Statement, ...]


class AskedDirection(NamedTuple):
    """Tests with their options, ready to be run: rows are a test's options, the right one first."""

    tests: DirectedTests
    n: int
    texts: Learned
    entering: Float[torch.Tensor, "row pos d_model"]


class DirectionAnswers(NamedTuple):
    """How a model did on them, a value a fact."""

    asked: AskedDirection
    right: Float[ndarray, "fact"]
    """Log-probability of the right completion."""
    random: Float[ndarray, "fact"]
    """Mean log-probability of the same completion after other tests' prompts."""
    chosen: Interval
    """Share of tests in which the right one is the likeliest of all options."""
    exact: Interval
    """Share of tests in which every token of the right one is the likeliest of all: what greedy decoding says."""
    chance: float

    @property
    def compared(self) -> PairedTests:
        return paired_tests(self.right, self.random, MARGIN_NATS)


def drawn_tests(data: ReversalData, n: int, seed: int) -> list[DirectedTests]:
    """The tests of every arm and direction that there are, of `n` facts each at most."""
    names, found = names_in(data), list[DirectedTests]()
    for trained, arms in ((True, data.same), (False, data.reverse)):
        for arm, statements in arms.items():
            sides: dict[str, list[Statement]] = {"to description": [], "to name": []}
            for each in statements:
                sides["to name" if _name(each.completion) in names else "to description"].append(each)
            found += [
                DirectedTests(arm, side, trained, _drawn(own, n, names, seed)) for side, own in sides.items() if own
            ]
    return found


def names_in(data: ReversalData) -> set[str]:
    """The people: the completions of tests that ask for a name."""
    sets = (data.same.get("d2p", ()), data.reverse.get("p2d", ()))
    told = {_name(each.completion) for own in sets for each in own}
    both = [_name(each.completion) for each in data.same.get("both", ())]
    prompts = " ".join(each.prompt for each in data.same.get("both", ()))
    return told | {name for name in both if name in prompts and len(name.split()) <= 3}


def ask_of(
    upper: UpperLayers, tests: DirectedTests, *, others: int, seed: int, watch: Watch = silent
) -> AskedDirection:
    """Tests with `others` more completions each, and the residual stream that enters the first trained layer.

    The others of test i are those of the tests after it, in an order that is drawn, so that every completion is the
    right one once and another's equally often. Of tests with one completion the first alone is taken, as the options
    must differ. One pass of the layers below. Raises BadPrompt for too few tests.
    """
    apart = list({each.completion: each for each in reversed(tests.statements)}.values())[::-1]
    drawn = Random(seed).sample(apart, len(apart))
    if len(drawn) <= others:
        raise BadPrompt(
            f"{others} other completions were asked for in {tests.arm}, {tests.direction}, where there are "
            f"{len(drawn) - 1} that differ. Ask for fewer, or about more facts."
        )
    options = [drawn[(i + shift) % len(drawn)] for i in range(len(drawn)) for shift in range(others + 1)]
    prompts = [each.prompt for each in drawn for _ in range(others + 1)]
    learned = learned_texts(upper.model, [(prompt, option.completion) for prompt, option in zip(prompts, options)])
    return AskedDirection(tests, len(drawn), learned, upper.entering(learned, watch))


@torch.no_grad()
def answer(upper: UpperLayers, asked: AskedDirection, watch: Watch = silent) -> DirectionAnswers:
    """One pass of the upper layers."""
    n_rows = len(asked.texts.ids)
    total, exact = torch.zeros(n_rows, dtype=torch.float64), torch.ones(n_rows, dtype=torch.bool)
    for done, rows in enumerate(parts := torch.arange(n_rows).split(ROWS), start=1):
        log_probs, likeliest, row = upper.log_probs(asked.texts.rows(rows), asked.entering[rows])
        total.index_add_(0, rows[row], log_probs.cpu().double())
        exact[rows[row][~likeliest.cpu()]] = False
        watch(Progress(f"ask {asked.tests.arm} {asked.tests.direction}", done, len(parts), "batch"))
    options = total.unflatten(0, (asked.n, -1))
    chosen = options.argmax(1) == 0
    first = exact.unflatten(0, (asked.n, -1))[:, 0]
    elsewhere = [options[:, shift].roll(shift) for shift in range(1, options.shape[1])]  # by completion, as column 0 is
    return DirectionAnswers(
        asked,
        options[:, 0].numpy(),
        torch.stack(elsewhere).mean(0).numpy(),
        share(int(chosen.sum()), len(chosen)),
        share(int(first.sum()), len(first)),
        1 / options.shape[1],
    )


def fact_of(statement: Statement, names: set[str]) -> str:
    """Whose fact it is: the name in it, else its completion."""
    text = statement.prompt + statement.completion
    return next((name for name in sorted(names, key=len, reverse=True) if name in text), _name(statement.completion))


def _drawn(statements: list[Statement], n: int, names: set[str], seed: int) -> tuple[Statement, ...]:
    """A test each of `n` facts, in the order in which they stand."""
    first = {fact_of(each, names): each for each in reversed(statements)}
    facts = Random(seed).sample(sorted(first), min(n, len(first)))
    return tuple(first[fact] for fact in facts)


def _name(completion: str) -> str:
    return completion.strip().rstrip(".")
