"""Circuit metrics: faithfulness, completeness, minimality, and a random-circuit null.

Everything is computed from scores of circuits, whatever their members and ablation: `alone` (see `ablate`) scores sets,
F is its mean over prompts, C a circuit, M all members, the empty set the fully ablated model.
Source: Wang et al., "Interpretability in the wild" (2022), section 4.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.errors import UserError
from micrographia.core.intervals import CONFIDENCE
from micrographia.methods.circuits.ablate import Alone
from micrographia.methods.circuits.members import Member
from micrographia.methods.circuits.null import random_members

ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
ZERO_GAP = 1e-6
"""Gaps below this fraction of the scores' size are rounding."""


class Faithfulness(NamedTuple):
    """(F(C) - F(empty)) / (F(M) - F(empty)) of each circuit: 1 for the whole model, 0 for the empty circuit."""

    values: Float[Tensor, "circuit"]
    scores: Float[Tensor, "circuit prompt"]
    model: Float[Tensor, "prompt"]
    empty: Float[Tensor, "prompt"]

    def interval(self, generator: Generator, *, draws: int = 2000) -> Float[Tensor, "circuit 2"]:
        """The percentile bootstrap interval of 95 % over prompts; NaN for a single prompt."""
        n = len(self.model)
        if n < 2:
            return torch.full((len(self.values), 2), math.nan)
        drawn = torch.randint(n, (draws, n), generator=generator)
        weight = torch.zeros(draws, n).scatter_add_(1, drawn, torch.ones(draws, n)).double() / n
        scores, model, empty = (x.double().cpu() @ weight.T for x in (self.scores, self.model, self.empty))
        shares = (scores - empty) / (model - empty)
        return shares.quantile(torch.tensor(ENDS, dtype=torch.float64), dim=1).T


def faithfulness(alone: Alone, circuits: Sequence[frozenset[Member]], members: Iterable[Member]) -> Faithfulness:
    """The faithfulness of each circuit: the ratio of means over prompts.

    Wang et al.'s own criterion is |F(M) - F(C)|, which `scores` and `model` give too. Cost: a score of each circuit, of
    all members, and of none. Raises UserError where the ablated model scores the same.
    """
    scores = alone([*circuits, frozenset(members), frozenset()])
    found, model, empty = scores[:-2], scores[-2], scores[-1]
    gap = float(model.mean() - empty.mean())
    if abs(gap) <= ZERO_GAP * max(float(model.abs().mean()), float(empty.abs().mean()), ZERO_GAP):
        raise UserError(
            f"The model scores {float(model.mean()):.4g} and, all ablated, {float(empty.mean()):.4g}: there is nothing "
            "to be faithful to. Choose prompts, metric or ablation that differ."
        )
    return Faithfulness((found.mean(1) - empty.mean()) / gap, found, model, empty)


class Completeness(NamedTuple):
    """For each removed set K: F(C \\ K) and F(M \\ K). A complete circuit gives the same."""

    taken: Sequence[frozenset]
    circuit: Float[Tensor, "set prompt"]
    model: Float[Tensor, "set prompt"]

    @property
    def gaps(self) -> Float[Tensor, "set"]:
        """|F(C \\ K) - F(M \\ K)|, in the metric's unit."""
        return (self.circuit.mean(1) - self.model.mean(1)).abs()

    @property
    def worst(self) -> float:
        return float(self.gaps.max())


def completeness(
    alone: Alone, circuit: frozenset[Member], members: Iterable[Member], taken: Sequence[frozenset[Member]]
) -> Completeness:
    """Remove the same sets from circuit and model. `subsets` samples sets; `worst_subset` searches for a bad one.

    Cost: two scores per set. Raises UserError for sets outside the circuit.
    """
    for k in taken:
        if k - circuit:
            raise UserError(f"Asked to remove {next(iter(k - circuit))}, which is not in the circuit. Choose members.")
    everything = frozenset(members)
    scores = alone([*(circuit - k for k in taken), *(everything - k for k in taken)])
    return Completeness(taken, scores[: len(taken)], scores[len(taken) :])


def subsets(circuit: frozenset[Member], n: int, generator: Generator) -> list[frozenset[Member]]:
    """n random subsets, each with every member independently with probability 1/2."""
    ordered = _ordered(circuit)
    coins = torch.rand(n, len(ordered), generator=generator) < 0.5
    return [frozenset(m for m, coin in zip(ordered, row) if coin) for row in coins.tolist()]


def worst_subset(
    alone: Alone,
    circuit: frozenset[Member],
    members: Iterable[Member],
    generator: Generator,
    *,
    rounds: int = 10,
    candidates: int = 5,
) -> frozenset[Member]:
    """A set whose removal affects circuit and model differently, grown greedily: each round adds, of a few random
    members, the one that increases |F(C \\ K) - F(M \\ K)| most, if any.

    Source: Wang et al. (2022), appendix on completeness. Cost: 2 `candidates` scores a round.
    """
    everything, taken, best = frozenset(members), frozenset[Member](), -1.0
    for _ in range(rounds):
        left = _ordered(circuit - taken)
        if not left:
            break
        drawn = torch.randperm(len(left), generator=generator)[:candidates].tolist()
        trials = [taken | {left[i]} for i in drawn]
        gaps = completeness(alone, circuit, everything, trials).gaps
        if float(gaps.max()) <= best:
            continue
        best, taken = float(gaps.max()), trials[int(gaps.argmax())]
    return taken


def minimality(
    alone: Alone,
    circuit: frozenset[Member],
    members: Iterable[Member],
    *,
    contexts: Mapping[Member, frozenset[Member]] | None = None,
) -> dict[Member, float]:
    """The minimality score of each member v: |F(C \\ (K + v)) - F(C \\ K)| / |F(M) - F(empty)|, with K removed.

    `contexts` gives K for each member, since one of several redundant members adds nothing while the others are
    present; empty by default. Cost: a score per member and per K. (Wang et al. divide by F(M) alone; with an ablation
    under which F(empty) is not 0 the gap is the natural unit.)
    """
    ordered = _ordered(circuit)
    contexts = contexts or {}
    without = [contexts.get(v, frozenset()) - {v} for v in ordered]
    backgrounds = list(dict.fromkeys(circuit - k for k in without))
    sets = backgrounds + [circuit - k - {v} for v, k in zip(ordered, without)]
    scores = alone([*sets, frozenset(members), frozenset()]).mean(1)
    gap = float((scores[-2] - scores[-1]).abs())
    if not gap > ZERO_GAP * max(float(scores[-2].abs()), float(scores[-1].abs()), ZERO_GAP):
        raise UserError("The model scores as if fully ablated, so no member can add a fraction of its score.")
    kept = scores[[backgrounds.index(circuit - k) for k in without]]
    lost = scores[len(backgrounds) : len(sets)]
    return dict(zip(ordered, ((kept - lost).abs() / gap).tolist()))


class Null(NamedTuple):
    """Faithfulness of random circuits of the same size, and a p-value."""

    values: Float[Tensor, "draw"]
    low: float
    high: float
    at_least: float
    """p-value: (1 + number of draws with faithfulness at least as near to 1) / (1 + draws); never 0."""

    @property
    def p(self) -> str:
        """The p-value in words: where no draw is as faithful it is the least that so many draws can show."""
        if self.at_least <= 1 / (1 + len(self.values)):
            return f"p ≤ {self.at_least:.2g}, the least that {len(self.values)} draws can show"
        return f"p = {self.at_least:.2g} over {len(self.values)} draws"


def random_null(
    alone: Alone,
    circuit: frozenset[Member],
    members: Iterable[Member],
    generator: Generator,
    *,
    draws: int = 100,
    draw: Callable[[Generator], frozenset[Member]] | None = None,
) -> Null:
    """Sample circuits of this circuit's size uniformly from all members, or as `draw` does (see `null`). Cost: one
    score per draw, and three.

    A draw counts where |1 - f| is no larger: a circuit with faithfulness 1.8 is not faithful.
    """
    ordered = list(members)
    nothing = frozenset[Member]()
    one = draw or (lambda generator: random_members(ordered, len(circuit), generator, nothing))
    found = faithfulness(alone, [circuit, *(one(generator) for _ in range(draws))], ordered).values
    null = found[1:].double().cpu()
    low, high = null.quantile(torch.tensor(ENDS, dtype=torch.float64)).tolist()
    as_good = int(((1 - null).abs() <= abs(1 - float(found[0]))).sum())
    return Null(null, low, high, (1 + as_good) / (1 + draws))


def _ordered(circuit: frozenset[Member]) -> list[Member]:
    """In an order that is the same in every process, which sets do not have."""
    return sorted(circuit, key=str)
