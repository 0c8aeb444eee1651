"""Circuits of one behaviour, chosen by each method on some prompts and judged on others.

Everything outside a circuit takes its value from the corrupt prompt of the pair. Members are heads and MLPs by
position, but only those that can reach the answer (`candidates`): others would make every share small and every random
circuit bad. Edges run between heads, MLPs and the logits. The null are random orders.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from torch import Generator

from micrographia.core.graph import graph_of
from micrographia.core.graph_figure import Link, links_between_parts
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, first_difference, metric_of
from micrographia.core.tokens import ids_of
from micrographia.labs.ioi.estimates import METHODS, Comparison, compare
from micrographia.labs.ioi.task import Case
from micrographia.methods.attribution.edges import Method, edge_attribution
from micrographia.methods.circuits.ablate import Ablation, edges_alone, nodes_alone
from micrographia.methods.circuits.evaluate import CircuitEvaluation, Ladder, evaluate, ladder, random_ladder, size_grid
from micrographia.methods.circuits.members import Part, edge_scores, greedy_order, parts_of, ranked

RANDOM = "random"
EDGE_METHODS: tuple[Method, ...] = ("eap", "eap-ig")
N_ORDERS, N_EDGE_ORDERS, N_RANDOM, N_SUBSETS, N_EDGE_PAIRS, N_LINKS = 6, 3, 50, 10, 16, 40
GRID = {"first": 12, "parts": 20}
"""Sizes tried for the smallest circuit: each of the first few, then twentieths of all members."""


class Circuits(NamedTuple):
    """The ladders of each method, and the smallest faithful circuit of the method with the smallest CMD.

    Which members come first is settled on the pairs that scores are taken on; method and size are picked on the pairs
    that it is judged on, which flatters its faithfulness a little: the null is not picked so.
    """

    nodes: dict[str, Ladder]
    edges: dict[str, Ladder]
    method: str
    smallest: CircuitEvaluation[Part]
    links: dict[Link, float]
    """The strongest edges between parts, as shares of the gap."""


def circuits(model: Model, case: Case, draw: Generator) -> Circuits:
    """Scores on `case.pairs`, judgement on `case.others`."""
    ablation = Ablation("other")
    m, judged = (metric_of("logit-diff", pairs, model) for pairs in (case.pairs, case.others))
    kinds = ("z", "mlp_out")
    found = compare(model, case.pairs, m, kinds, mode="noise", most=None, draw=draw)
    parts = candidates(model, case.pairs, case.others)
    alone = nodes_alone(model, case.others, judged, parts, ablation=ablation)
    scores = part_scores(parts, found)
    nodes = {name: ladder(alone, ranked(own), ranked(own, signed=True)) for name, own in scores.items()}
    best = min(scores, key=lambda name: nodes[name].cmd)
    nodes[RANDOM] = random_ladder(alone, parts, draw, orders=N_ORDERS)
    smallest = evaluate(
        alone,
        ranked(scores[best]),
        draw,
        along=nodes[best],
        sizes=size_grid(len(parts), **GRID),
        steps=("interval", "subsets", "minimality", "null", "orders"),
        n_subsets=N_SUBSETS,
        n_null=N_RANDOM,
        n_orders=N_ORDERS,
        ablation=str(ablation),
    )
    edges, links = _edges(model, case, draw)
    return Circuits(nodes, edges, best, smallest, links)


def candidates(model: Model, *sides: Pairs) -> tuple[Part, ...]:
    """Heads and MLPs by position, where they can reach the answer.

    None before the first word that differs; in the last layer, which nothing but the last position reads, that alone.
    """
    begin, n_pos = min(map(first_difference, sides)), ids_of(sides[0].clean).shape[1]
    early = range(begin, n_pos)
    late = {model.shape.n_layers - 1: range(n_pos - 1, n_pos)}
    return tuple(p for p in parts_of(model, n_pos=n_pos) if p.pos in late.get(p.node.site.layer or 0, early))


def part_scores(parts: Sequence[Part], found: Mapping[str, Comparison]) -> dict[str, dict[Part, float]]:
    """How much each of these helps, by every method: its effect when noised, with the sign turned round."""
    names = {(part.node.site, part.node.head, part.pos): part for part in parts}
    scores = {name: dict.fromkeys(parts, 0.0) for name in ("exact", *METHODS)}
    for each in found.values():
        for name, values in each.effects.items():
            for place, value in zip(each.places, values.mean(1).tolist()):
                part = names.get((place.site, place.where.get("head"), place.where["pos"]))  # type: ignore[arg-type]  # single cells
                if part is not None:
                    scores[name][part] = -value
    return scores


def _edges(model: Model, case: Case, draw: Generator) -> tuple[dict[str, Ladder], dict[Link, float]]:
    """EAP and EAP-IG beside random orders, on fewer prompts, since every reader gets an input of its own."""
    few, others = (pairs.rows(slice(0, N_EDGE_PAIRS)) for pairs in (case.pairs, case.others))
    m, judged = (metric_of("logit-diff", pairs, model) for pairs in (few, others))
    scored = {method: edge_attribution(model, few, m, mode="noise", method=method) for method in EDGE_METHODS}
    alone = edges_alone(model, others, judged, graph_of(model))
    orders = {method: greedy_order(each.graph, edge_scores(each.graph, each.mean())) for method, each in scored.items()}
    found = {method: ladder(alone, order) for method, order in orders.items()}
    best = scored[min(scored, key=lambda method: found[method].cmd)]
    found[RANDOM] = random_ladder(alone, graph_of(model).edges, draw, orders=N_EDGE_ORDERS)
    gap = float((best.clean - best.corrupt).mean())
    links = links_between_parts(best.graph, -best.mean() / gap)
    return found, dict(islice(links.items(), N_LINKS))
