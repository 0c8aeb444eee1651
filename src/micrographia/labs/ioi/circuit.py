"""Circuits of one behaviour, chosen by each method and judged on other prompts than those they were chosen on.

Everything outside a circuit takes its value from the corrupt prompt of the pair. Parts are heads and MLPs by position,
but only live ones, which can reach the answer (`measure.universe`): dead ones would make every share small and every
circuit drawn at random bad. Edges run between heads, MLPs and the logits. The null are orders drawn at random.
"""

import math
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Generator

from micrographia.core.graph import graph_of
from micrographia.core.graph_figure import links_between_parts
from micrographia.core.model import Model
from micrographia.core.prompts import metric_of
from micrographia.labs.ioi import measure
from micrographia.labs.ioi.cases import Case
from micrographia.methods.attribution.edges import Method, edge_attribution
from micrographia.methods.circuits.ablate import Ablation, Alone, edges_alone
from micrographia.methods.circuits.judge import (
    LADDER,
    Areas,
    Faithfulness,
    areas,
    completeness,
    faithfulness,
    minimality,
    random_null,
    subsets,
)
from micrographia.methods.circuits.members import Member, Part, ranked

M = TypeVar("M")
FAITHFUL = 0.9
"""A circuit is called faithful when its faithfulness is within 1 - FAITHFUL of 1. Our choice."""
RANDOM_ORDERS, RANDOM_EDGE_ORDERS, RANDOM_CIRCUITS, SUBSETS, EDGE_PAIRS, DRAWN = 6, 3, 50, 10, 16, 40
IDLE = 0.01
"""A member whose removal changes less than this share of the gap is idle. Our choice."""


class Curve(NamedTuple):
    """One method along the ladder of shares."""

    faithfulness: list[float]
    cpr: float
    cmd: float
    needed: float
    """The least share of members, of those tried, from which the circuit stays faithful."""


class Chosen(NamedTuple):
    """The smallest faithful circuit of the method with the smallest CMD.

    Which members come first was settled on the pairs that scores are taken on. Method and size are picked by the pairs
    that it is judged on, so its faithfulness is a little flattered: the null is not picked so.
    """

    method: str
    members: list[str]
    of: int
    faithfulness: float
    interval: tuple[float, float]
    """Of 95 %, over prompts."""
    null: float
    """The faithfulness nearest 1 among random circuits of this size."""
    by_lot: float
    """The size at which orders drawn at random are first as faithful, of the same sizes tried; the median order."""
    incomplete: float
    """The worst |F(C - K) - F(M - K)| over subsets K by the toss of a coin, as a share of the gap."""
    idle: int
    """Members whose removal, one at a time, changes less than `IDLE` of the gap."""

    @property
    def share(self) -> float:
        return len(self.members) / self.of


class Circuits(NamedTuple):
    ablation: str
    nodes: dict[str, Curve]
    edges: dict[str, Curve]
    chosen: Chosen
    links: list[tuple[str, str, float]]
    """The strongest edges between parts, as (writer, the part that reads it, share of the gap)."""
    shares: tuple[float, ...] = LADDER


def circuits(model: Model, case: Case, draw: Generator) -> Circuits:
    """Scores on `case.pairs`, judgement on `case.others`."""
    ablation = Ablation("other")
    m, judged = (metric_of("logit-diff", pairs, model) for pairs in (case.pairs, case.others))
    found = measure.estimates(model, case.pairs, m, ("z", "mlp_out"), mode="noise", most=EVERY, generator=draw)
    parts = measure.universe(model, case.pairs, case.others)
    alone = measure.node_game(model, case.others, judged, parts, ablation)
    scores = measure.part_scores(parts, found)
    nodes = {name: curve(*measure.ladder(alone, own)) for name, own in scores.items()}
    nodes[RANDOM] = by_chance(alone, parts, draw)
    best = min(scores, key=lambda name: nodes[name].cmd)
    chosen = choose(best, alone, ranked(scores[best]), draw)
    edges, links = edge_circuits(model, case, draw)
    return Circuits(str(ablation), nodes, edges, chosen, links)


def curve(by_size: Areas, by_help: Areas) -> Curve:
    """Faithfulness and CMD are those of circuits by size of score, CPR that of the most helpful."""
    values = by_size.faithfulness.values.double().cpu().tolist()
    return Curve(values, by_help.cpr, by_size.cmd, needed(values, by_size.shares))


def needed(values: Sequence[float], shares: Sequence[float]) -> float:
    """The least share from which on every circuit tried is faithful."""
    for i, share in enumerate(shares):
        if all(abs(1 - value) <= 1 - FAITHFUL for value in values[i:]):
            return share
    return math.nan


def by_chance(alone: Alone, members: Sequence[Member], draw: Generator, orders: int = RANDOM_ORDERS) -> Curve:
    """The mean over orders drawn at random."""
    every = []
    for _ in range(orders):
        along = areas(alone, shuffled(members, draw))
        every.append(curve(along, along))
    mean = np.mean([each.faithfulness for each in every], axis=0).tolist()
    cpr, cmd = (float(np.mean([getattr(each, name) for each in every])) for name in ("cpr", "cmd"))
    return Curve(mean, cpr, cmd, needed(mean, LADDER))


def shuffled(members: Sequence[M], draw: Generator) -> list[M]:
    """All of them in an order drawn at random."""
    return [members[i] for i in torch.randperm(len(members), generator=draw).tolist()]


def first_faithful(alone: Alone, order: Sequence[Part]) -> tuple[int, int, Faithfulness]:
    """The size of the smallest circuit of this order that is faithful, which of those tried it is, and all tried.

    At worst it is all members, which are tried last.
    """
    sizes = sorted({*range(1, FEW), *(round(len(order) * share / FINE) for share in range(1, FINE + 1))} - {0})
    sizes = [size for size in sizes if size <= len(order)]
    tried = faithfulness(alone, [frozenset(order[:n]) for n in sizes], order)
    at = next(i for i, value in enumerate(tried.values.tolist()) if abs(1 - value) <= 1 - FAITHFUL)
    return sizes[at], at, tried


def choose(method: str, alone: Alone, order: Sequence[Part], draw: Generator) -> Chosen:
    """The smallest circuit of this order that is faithful, and what can be said of it."""
    size, at, tried = first_faithful(alone, order)
    circuit = frozenset(order[:size])
    gap = float((tried.model.mean() - tried.empty.mean()).abs())
    low, high = tried.interval(draw)[at].tolist()
    without = completeness(alone, circuit, order, subsets(circuit, SUBSETS, draw)).worst / gap
    idle = sum(value < IDLE for value in minimality(alone, circuit, order).values())
    null = random_null(alone, circuit, order, draw, draws=RANDOM_CIRCUITS)
    nearest = float(null.values[(1 - null.values).abs().argmin()])
    lot = float(np.median([first_faithful(alone, shuffled(order, draw))[0] for _ in range(RANDOM_ORDERS)]))
    value = float(tried.values[at])
    names = sorted(map(str, circuit))
    return Chosen(method, names, len(order), value, (low, high), nearest, lot, without, idle)


def edge_circuits(model: Model, case: Case, draw: Generator) -> tuple[dict[str, Curve], list[tuple[str, str, float]]]:
    """EAP and EAP-IG beside chance, on fewer prompts, since every reader gets an input of its own."""
    few, others = (pairs.rows(slice(0, EDGE_PAIRS)) for pairs in (case.pairs, case.others))
    m, judged = (metric_of("logit-diff", pairs, model) for pairs in (few, others))
    scored = {method: edge_attribution(model, few, m, mode="noise", method=method) for method in EDGE_METHODS}
    alone = edges_alone(model, others, judged, graph_of(model))
    ladders = {method: measure.edge_ladder(alone, each) for method, each in scored.items()}
    found = {method: curve(along, along) for method, along in ladders.items()}
    found[RANDOM] = by_chance(alone, graph_of(model).edges, draw, RANDOM_EDGE_ORDERS)
    best = min(scored, key=lambda method: found[method].cmd)
    gap = float((scored[best].clean - scored[best].corrupt).mean())
    links = links_between_parts(scored[best].graph, -scored[best].mean() / gap)
    return found, [(str(writer), str(part), share) for (writer, part), share in islice(links.items(), DRAWN)]


EDGE_METHODS: tuple[Method, ...] = ("eap", "eap-ig")
RANDOM = "random"
EVERY = 10**9
FEW, FINE = 12, 20
"""Sizes tried for the chosen circuit: each of the first few, then twentieths of all members."""
