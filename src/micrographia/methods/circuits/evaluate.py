"""One evaluation of a circuit: from members in order to the smallest faithful circuit, and all that is measured of it.

`ladder` follows circuits as they grow and gives both areas; `random_ladder` is its null. `evaluate` takes the first
members of an order, or a circuit that is given, and measures faithfulness with its interval, completeness over random
sets and over a set searched to be bad, minimality, circuits of the same size drawn at random, and the size that random
orders need. Everything is exact: `alone` (see `ablate`) scores sets of members.
Sources: Wang et al., "Interpretability in the wild" (2022), section 4; Mueller et al., "MIB" (2025), section 3.1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.errors import BadConfig
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.spoken import spoken_members
from micrographia.methods.circuits.ablate import Alone
from micrographia.methods.circuits.judge import (
    Faithfulness,
    Null,
    completeness,
    faithfulness,
    minimality,
    random_null,
    subsets,
    worst_subset,
)
from micrographia.methods.circuits.members import Member
from micrographia.methods.circuits.null import needed

LADDER = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The fractions of all members at which MIB evaluates circuits."""
FAITHFUL = 0.9
"""A circuit is faithful when its faithfulness is within 1 - FAITHFUL of 1, on either side. Our choice."""
BETWEEN = 16
"""Sizes tried between two rungs of the ladder."""
SHOWN = 30
STAGE = "evaluate the circuit"
ROWS = {
    "faithfulness": "faithfulness, 1 is the whole model",
    "null_faithfulness": "faithfulness of random circuits of that size",
    "null_p_value": "p-value against random circuits",
    "connected_faithfulness": "that of random circuits that hold together",
    "connected_p_value": "p-value against those",
    "score_of_the_model": "metric of the model",
    "score_alone": "metric of the circuit alone",
    "score_of_nothing": "metric with all members ablated",
    "incompleteness_random_sets": "incompleteness, random sets removed",
    "incompleteness_worst_set": "incompleteness, worst set found",
    "cpr": "CPR, area under faithfulness (more is better)",
    "cmd": "CMD, area between it and 1 (less is better)",
}
"""The figures of `CircuitEvaluation.table` in words."""

ORDERS = {"cpr": ", by signed score", "cmd": ", by absolute score"}
"""What the two areas order members by, where that is not one order."""

Step = Literal["interval", "subsets", "worst", "minimality", "null", "connected", "orders"]
STEPS: tuple[Step, ...] = ("interval", "subsets", "worst", "minimality", "null")


Connected = Callable[[frozenset, int, Generator], frozenset]
"""A random circuit that holds these members, of this size."""


class Ladder(NamedTuple):
    """How faithful circuits of one order are as they grow. Areas are over the share of members kept, by trapezoids."""

    sizes: tuple[int, ...]
    shares: tuple[float, ...]
    """The same as shares of all members."""
    faithfulness: list[float]
    helpful: list[float]
    """That of circuits of the most helpful members, by signed score; the same where one order serves both."""
    cpr: float
    """Circuit performance ratio, the area under `helpful`: the larger, the better."""
    cmd: float
    """Circuit-model distance, the area between `faithfulness` and 1: the smaller, the better."""

    def min_share(self, faithful: float = FAITHFUL) -> float:
        """The least share from which on every circuit tried is faithful; NaN where none is.

        >>> Ladder((1, 2, 4), (0.25, 0.5, 1.0), [0.95, 0.2, 1.0], [0.95, 0.2, 1.0], 0.0, 0.0).min_share()
        1.0
        """
        faithful_from = [_is_faithful(value, faithful) for value in self.faithfulness]
        return next((share for i, share in enumerate(self.shares) if all(faithful_from[i:])), math.nan)


def ladder(
    alone: Alone, order: Sequence[Member], helpful: Sequence[Member] | None = None, *, shares: Sequence[float] = LADDER
) -> Ladder:
    """Circuits of the first members of `order` (all, best first), at these shares of their number.

    `order` by size of score is meant for the CMD; `helpful`, by signed score, for the CPR. A rung is rounded to whole
    members, at least one; unlike MIB, edges are not weighted and disconnected ones are not pruned. Cost: for each order
    a score per rung, and two.
    """
    if len(shares) < 2 or sorted(set(shares)) != list(shares) or not 0 < shares[0] <= shares[-1] <= 1:
        raise BadConfig(f"A ladder of fractions must rise within (0, 1] by two steps or more. Found {tuple(shares)}.")
    sizes = tuple(max(1, round(share * len(order))) for share in shares)
    orders = [order] if helpful is None else [order, helpful]
    found = [faithfulness(alone, [frozenset(each[:n]) for n in sizes], order).values.double().cpu() for each in orders]
    by_size, by_help = found[0], found[-1]
    along = torch.tensor(list(shares), dtype=torch.float64)
    cpr, cmd = (float(torch.trapezoid(y, along)) for y in (by_help, (1 - by_size).abs()))
    return Ladder(sizes, tuple(shares), by_size.tolist(), by_help.tolist(), cpr, cmd)


def random_ladder(alone: Alone, members: Sequence[Member], generator: Generator, *, orders: int) -> Ladder:
    """The mean over so many random orders: what a ladder shows without any score."""
    each = [ladder(alone, shuffled(members, generator)) for _ in range(orders)]
    mean: list[float] = np.mean([one.faithfulness for one in each], axis=0).tolist()
    cpr, cmd = (float(np.mean(areas)) for areas in zip(*((one.cpr, one.cmd) for one in each)))
    return Ladder(each[0].sizes, each[0].shares, mean, mean, cpr, cmd)


def shuffled(members: Sequence[Member], generator: Generator) -> list[Member]:
    """All of them in a random order."""
    return [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]


def size_grid(n: int, *, first: int, parts: int) -> list[int]:
    """Sizes to try: every one below `first`, then the multiples of n / `parts`, up to n.

    >>> size_grid(20, first=4, parts=4)
    [1, 2, 3, 5, 10, 15, 20]
    """
    sizes = {*range(1, first), *(round(n * part / parts) for part in range(1, parts + 1))} - {0}
    return sorted(size for size in sizes if size <= n)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class CircuitEvaluation(Generic[Member]):
    """A circuit and what was measured of it; a figure that was not asked for is NaN, or empty."""

    members: tuple[Member, ...]
    of: int
    """Members that the circuit is cut from."""
    ablation: str
    """What stands in for everything outside. It defines the question, so it goes with every figure."""
    faithfulness: float
    interval: tuple[float, float]
    """Of 95 %, over prompts; NaN for a single prompt."""
    score: float
    """The metric of the circuit alone, mean over prompts; below that of the model, and with everything ablated."""
    model_score: float
    empty_score: float
    gap: float
    """How far the model and nothing are apart, in the metric's unit."""
    ladder: Ladder | None
    incomplete_mean: float
    """|F(C - K) - F(M - K)| over random sets K, in the metric's unit: the mean, then the worst of them."""
    incomplete_max: float
    incomplete_worst: float
    """The same for a set K that was searched to be bad."""
    adds: Mapping[Member, float] = field(default_factory=dict)
    """What each member adds, as a share of the gap between the model and nothing."""
    null: Null | None
    """Circuits of the same size drawn at random."""
    connected: Null | None = None
    """Such that could carry something: with the members that `needed` names, and on paths (see `null`)."""
    random_size: float
    """The size at which random orders are first as faithful; the median order."""

    def __repr__(self) -> str:
        part = f"{len(self.members)} of {self.of} members"
        return f"CircuitEvaluation({part}, faithfulness {self.faithfulness:.3f}, outside: {self.ablation})"

    def __str__(self) -> str:
        null = self.null and f"random circuits of that size: {float(self.null.values.median()):.3f} (median)"
        added = {each: f"  {self.adds[each]:+.3f}" for each in self.members if each in self.adds}
        shown = [f"  {each!s:<32}{added.get(each, '')}".rstrip() for each in self.members[:SHOWN]]
        more = len(self.members) - len(shown)
        return "\n".join([repr(self), *([null] if null else []), *shown, *([f"  and {more} more"] if more else [])])

    @property
    def share(self) -> float:
        return len(self.members) / self.of

    @property
    def nearest_random(self) -> float:
        """The faithfulness nearest 1 among the circuits drawn at random."""
        values = None if self.null is None else self.null.values
        return math.nan if values is None else float(values[(1 - values).abs().argmin()])

    def n_non_minimal(self, below: float) -> int:
        """How many members change less than this share of the gap when they alone are left out."""
        return sum(value < below for value in self.adds.values())

    def table(self) -> dict[str, Any]:
        """The figures by name, with the ablation that they depend on."""
        low, high = self.interval
        value = self.faithfulness
        null, connected = (
            each and {"median": float(each.values.median()), "low": each.low, "high": each.high}
            for each in (self.null, self.connected)
        )
        return {
            "ablation": self.ablation,
            "members": len(self.members),
            "of": self.of,
            "faithfulness": value if math.isnan(low) else {"value": value, "low": low, "high": high},
            "score_alone": self.score,
            "score_of_the_model": self.model_score,
            "score_of_nothing": self.empty_score,
            "incompleteness_random_sets": self.incomplete_mean,
            "incompleteness_worst_set": self.incomplete_worst,
            "null_faithfulness": null,
            "null_p_value": self.null and self.null.at_least,
            "connected_faithfulness": connected,
            "connected_p_value": self.connected and self.connected.at_least,
            "cpr": self.ladder and self.ladder.cpr,
            "cmd": self.ladder and self.ladder.cmd,
        }

    def figures(self, group: str = "") -> list[Figure]:
        """The table; faithfulness along the ladder, and what each member adds, as far as they were measured."""
        return [self._table(), *self._ladder(group), *self._minimality(group)]

    def _table(self) -> Figure:
        found = self.table()
        rows: list[list[Any]] = [["members", f"{len(self.members):,} of {self.of:,}"]]
        apart = self.ladder is not None and self.ladder.helpful != self.ladder.faithfulness
        orders = ORDERS if apart else {}
        rows += [[name + orders.get(key, ""), found[key]] for key, name in ROWS.items() if found[key] is not None]
        caption = f"Everything else is replaced by {self.ablation}, which defines what is measured."
        return figures.table(
            "circuit", "The circuit", rows, columns=["what", "value"], caption=caption, group="The circuit"
        )

    def _ladder(self, group: str) -> list[Figure]:
        if self.ladder is None:
            return []
        return [
            figures.lines(
                "faithfulness",
                "Faithfulness of circuits by size",
                np.array([self.ladder.sizes] * 2),
                np.array([self.ladder.faithfulness, self.ladder.helpful]),
                names=["by absolute score", "by signed score"],
                x_label="members kept",
                y_label="faithfulness",
                log_x=True,
                marks=[{"name": "the circuit", "x": len(self.members)}],
                caption=f"1 is the whole model, 0 all members replaced by {self.ablation}. Above 1, what is left out "
                "works against the behaviour.",
                source="Mueller et al. (2025), section 3.1",
                group=group,
            )
        ]

    def _minimality(self, group: str) -> list[Figure]:
        if not self.adds:
            return []
        names = sorted(self.adds, key=lambda each: -self.adds[each])[:SHOWN]
        return [
            figures.bars(
                "minimality",
                "What each member adds",
                np.array([[self.adds[each] for each in names]]),
                names=[spoken_members(str(each)) for each in names],
                x_label="member",
                y_label="share of the behaviour",
                caption="By what share of the behaviour the circuit changes, up or down, when this member alone is "
                "left out. Of several that do the same work, none may seem to add anything.",
                group=group,
            )
        ]


def evaluate(
    alone: Alone,
    order: Sequence[Member],
    generator: Generator,
    *,
    circuit: Sequence[Member] | None = None,
    members: Sequence[Member] | None = None,
    along: Ladder | None = None,
    faithful: float = FAITHFUL,
    sizes: Sequence[int] | None = None,
    steps: Sequence[Step] = STEPS,
    n_subsets: int = 8,
    n_null: int = 100,
    n_orders: int = 6,
    connected: Connected | None = None,
    ablation: str = "",
    watch: Watch = silent,
) -> CircuitEvaluation[Member]:
    """Evaluate the smallest faithful circuit of an order (all members, best first), or a `circuit` that is given.

    The smallest is looked for at `sizes`; without them at the rungs of `along` (a ladder of this order, climbed here if
    it is not given), then between the last rung that is not faithful and the first that is. `members` are all members
    in the order in which random circuits count them. `steps` says what is measured, in the order in which it draws from
    the generator; minimality draws nothing. Cost in scores: a dozen for a ladder, one a size, 2 `n_subsets`, 100 for
    the worst set, one a member for minimality, `n_null`, and for "orders" one for each size and order.
    """
    everything = list(order if members is None else members)
    if along is None and (sizes is None or circuit is not None):
        along = ladder(alone, order)
    if circuit is None:
        circuit, tried, at = _smallest(alone, order, faithful, sizes, along)
    else:
        tried, at = faithfulness(alone, [frozenset(circuit)], everything), 0
    inside = frozenset(circuit)

    def orders() -> float:
        random = (shuffled(order, generator) for _ in range(n_orders))
        return float(np.median([len(_smallest(alone, each, faithful, sizes, None)[0]) for each in random]))

    def bad_set() -> float:
        return completeness(alone, inside, everything, [worst_subset(alone, inside, everything, generator)]).worst

    def connected_null() -> Null | None:
        held = needed(found.get("minimality", {}))
        if connected is None:
            return None
        one = partial(connected, held, len(inside))
        return random_null(alone, inside, everything, generator, draws=n_null, draw=one)

    measures: Mapping[Step, Callable[[], Any]] = {
        "interval": lambda: tuple(tried.interval(generator)[at].tolist()),
        "subsets": lambda: completeness(alone, inside, everything, subsets(inside, n_subsets, generator)).gaps,
        "worst": bad_set,
        "minimality": lambda: minimality(alone, inside, everything),
        "null": lambda: random_null(alone, inside, everything, generator, draws=n_null),
        "connected": connected_null,
        "orders": orders,
    }
    costs = {"subsets": 2 * n_subsets, "worst": 102, "minimality": len(inside) + 3, "null": n_null + 3}
    costs |= {"connected": n_null + 3} if connected else {}
    total, done, found = sum(costs.get(step, 1) for step in steps), 0, dict[str, Any]()
    for step in steps:
        watch(Progress(STAGE, done, total, "circuit"))
        found[step] = measures[step]()
        done += costs.get(step, 1)
    watch(Progress(STAGE, total, total, "circuit"))
    gaps: Tensor = found.get("subsets", torch.tensor([math.nan]))
    return CircuitEvaluation(
        members=tuple(circuit),
        of=len(everything),
        ablation=ablation,
        faithfulness=float(tried.values[at]),
        interval=found.get("interval", (math.nan, math.nan)),
        score=float(tried.scores[at].mean()),
        model_score=float(tried.model.mean()),
        empty_score=float(tried.empty.mean()),
        gap=float((tried.model.mean() - tried.empty.mean()).abs()),
        ladder=along,
        incomplete_mean=float(gaps.mean()),
        incomplete_max=float(gaps.max()),
        incomplete_worst=found.get("worst", math.nan),
        adds=found.get("minimality", {}),
        null=found.get("null"),
        connected=found.get("connected"),
        random_size=found.get("orders", math.nan),
    )


def _smallest(
    alone: Alone, order: Sequence[Member], faithful: float, sizes: Sequence[int] | None, along: Ladder | None
) -> tuple[Sequence[Member], Faithfulness, int]:
    """The smallest faithful circuit of those tried, or all members; their faithfulness; which of them it is."""
    if sizes is not None:
        tried = faithfulness(alone, [frozenset(order[:size]) for size in sizes], order)
        at = next((i for i, f in enumerate(_floats(tried.values)) if _is_faithful(f, faithful)), len(sizes) - 1)
        return order[: sizes[at]], tried, at
    along = along or ladder(alone, order)
    rungs = [size for size, f in zip(along.sizes, along.faithfulness) if _is_faithful(f, faithful)]
    size = len(order)
    if rungs:
        below = max((rung for rung in along.sizes if rung < rungs[0]), default=0)
        between = np.unique(np.linspace(below + 1, rungs[0], BETWEEN).round().astype(int)).tolist()
        values = _floats(faithfulness(alone, [frozenset(order[:n]) for n in between], order).values)
        # in another batch rounding may put the rung itself just below
        size = next((n for n, f in zip(between, values) if _is_faithful(f, faithful)), rungs[0])
    return order[:size], faithfulness(alone, [frozenset(order[:size])], order), 0


def _is_faithful(value: float, faithful: float) -> bool:
    """Within the slack of 1 on either side: a circuit that carries far more than the model is not faithful to it."""
    return abs(1 - value) <= 1 - faithful


def _floats(values: Tensor) -> list[float]:
    return values.double().cpu().tolist()
