"""Circuit: the parts that carry a behaviour, and how much of it they carry when everything else is ablated.

Members are ranked by edge attribution (nodes by the edges out of them), and judged exactly: faithfulness along a ladder
of sizes with its areas, completeness, minimality, and circuits of the same size drawn at random. They are judged on the
prompts that chose them, which flatters them; other prompts of the same kind, asked anew, tell by how much.
Sources: Wang et al. (2022), section 4; Hanna et al. (2024); Mueller et al. (2025) for the areas.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from torch import Generator, Tensor

from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch
from micrographia.core.figures import Figure
from micrographia.core.graph import Edge
from micrographia.core.graph_figure import LOGITS_PART, drawn, links_between_parts, readers_of
from micrographia.core.model import Model
from micrographia.core.prompts import metric_of
from micrographia.labs.workbench import words
from micrographia.labs.workbench.answer import Answer, Work, head_of
from micrographia.labs.workbench.config import Circuit
from micrographia.labs.workbench.prompts import Ends, read_prompts, refuse_no_gap, refuse_no_wrong
from micrographia.methods.attribution.edges import EdgeAttribution, edge_attribution
from micrographia.methods.circuits.ablate import Ablation, Alone, edges_alone, nodes_alone
from micrographia.methods.circuits.judge import (
    Areas,
    Faithfulness,
    Null,
    areas,
    completeness,
    faithfulness,
    minimality,
    random_null,
    subsets,
    worst_subset,
)
from micrographia.methods.circuits.members import Part, above, edge_scores, greedy_order, parts_of, ranked

SETS = 8  # taken out of circuit and model alike, for completeness
TRIED = 16  # sizes between two rungs of the ladder
DRAWN, TOP = 60, 30


class Judged(NamedTuple):
    """A chosen circuit and everything that was measured of it."""

    chosen: list[Any]
    found: Faithfulness
    along: Areas
    signed: Areas
    gap_of_worst: float
    gap_of_random: float
    adds: Mapping[Any, float]
    null: Null


def ask_circuit(question: Circuit, model: Model) -> Work:
    """Read the prompts; what remains is to score, to choose, and to judge."""
    asked = read_prompts(question.prompts, model)
    refuse_no_wrong(question.prompts, asked.pairs, [question.metric], "--metric")
    metric = metric_of(question.metric, asked.pairs, model)
    ablation = Ablation(question.ablation)

    def work(generator: Generator, watch: Watch) -> Answer:
        heads = True if question.units == "nodes" else None
        scored = edge_attribution(
            model, asked.pairs, metric, mode="noise", method=question.method, heads=heads, watch=watch
        )
        ends = Ends(metric, scored.clean.cpu(), scored.corrupt.cpu())
        refuse_no_gap(ends)
        gap = ends.gap or 1.0
        if question.units == "nodes":
            scores: Mapping[Any, float] = _of_parts(parts_of(model), scored, gap)
            alone = nodes_alone(model, asked.pairs, metric, list(scores), ablation=ablation)
        else:
            scores = edge_scores(scored.graph, -scored.mean().double().cpu() / gap)
            alone = edges_alone(model, asked.pairs, metric, scored.graph, ablation=ablation)
        _refuse_nothing(question, scores)
        greedy = greedy_order(scored.graph, scores) if question.select == "greedy" else None
        judged = _judge(question, alone, scores, greedy or ranked(scores), generator, watch)
        rows = [{"member": str(each), "score": scores[each], "adds": judged.adds.get(each)} for each in judged.chosen]
        results = {
            "question": "circuit",
            "summary": words.of_circuit(question, ends, judged, str(ablation), len(scores), len(asked.texts)),
            **head_of(asked, [ends], model, question.target.model),
            "circuit": _told(judged, str(ablation), len(scores), generator),
            "members": sorted(rows, key=lambda row: -abs(row["score"])),
        }
        return Answer(results, _figures(question, judged, scored, scores, gap), _table(scores, judged))

    return work


def _of_parts(universe: Sequence[Part], scored: EdgeAttribution, gap: float) -> dict[Part, float]:
    """What each head and MLP is worth: the edges out of it together, as a share of the gap that its loss would cost."""
    out = -scored.of_writers().double().mean(0).cpu() / gap
    place = {node: i for i, node in enumerate(scored.graph.writers)}
    return {part: float(out[place[part.node]]) for part in universe}


def _refuse_nothing(question: Circuit, scores: Mapping[Any, float]) -> None:
    """Raise UserError where no score reaches the threshold."""
    largest = max(scores, key=lambda each: abs(scores[each]))
    if question.threshold is not None and abs(scores[largest]) < question.threshold:
        raise UserError(
            f"Asked for the {question.units} whose score is at least {question.threshold:g} of the gap, but the "
            f"largest, that of {largest}, is {scores[largest]:.3g}. Choose a lower threshold, or a number (n)."
        )


def _judge(
    question: Circuit,
    alone: Alone,
    scores: Mapping[Any, float],
    order: list[Any],
    generator: Generator,
    watch: Watch,
) -> Judged:
    steps = ("ladder", "size", "completeness", "minimality", "null")

    def at(step: str) -> None:
        watch(Progress("judge the circuit", steps.index(step), len(steps), "measure"))

    at("ladder")
    everything = list(scores)
    first = frozenset(order)
    order = [*order, *(each for each in ranked(scores) if each not in first)]
    along, signed = areas(alone, order), areas(alone, ranked(scores, signed=True))
    at("size")
    chosen = choose(question, alone, scores, order, along)
    circuit = frozenset(chosen)
    at("completeness")
    random = completeness(alone, circuit, everything, subsets(circuit, SETS, generator))
    worst = completeness(alone, circuit, everything, [worst_subset(alone, circuit, everything, generator)])
    at("minimality")
    adds = minimality(alone, circuit, everything) if question.minimal else {}
    at("null")
    null = random_null(alone, circuit, everything, generator, draws=question.null)
    found = faithfulness(alone, [circuit], everything)
    watch(Progress("judge the circuit", len(steps), len(steps), "measure"))
    return Judged(chosen, found, along, signed, worst.worst, float(random.gaps.mean()), adds, null)


def choose(question: Circuit, alone: Alone, scores: Mapping[Any, float], order: list[Any], along: Areas) -> list[Any]:
    """The members, by number, by threshold, or as few of the order as are faithful enough."""
    if question.threshold is not None:
        kept = above(scores, question.threshold)
        return [each for each in order if each in kept]
    if question.n is not None:
        return order[: question.n]
    slack = 1 - question.faithful  # whichever way: what carries far more than the model is not faithful to it
    enough = [size for size, f in zip(along.sizes, _floats(along.faithfulness.values)) if abs(1 - f) <= slack]
    if not enough:
        return order
    below = max((size for size in along.sizes if size < enough[0]), default=0)
    sizes = np.unique(np.linspace(below + 1, enough[0], TRIED).round().astype(int)).tolist()
    tried = faithfulness(alone, [frozenset(order[:size]) for size in sizes], order)
    faithful = (size for size, f in zip(sizes, _floats(tried.values)) if abs(1 - f) <= slack)
    return order[: next(faithful, enough[0])]  # in another batch rounding may put the rung itself just below


def _floats(values: Tensor) -> list[float]:
    return values.double().cpu().tolist()


def _told(judged: Judged, ablation: str, n_members: int, generator: Generator) -> dict[str, Any]:
    """The figures of the circuit by name; `ablation` goes with them, because it defines the question."""
    low, high = judged.found.interval(generator)[0].tolist()
    value = float(judged.found.values[0])
    interval = {"value": value} if np.isnan(low) else {"value": value, "low": low, "high": high}
    return {
        "ablation": ablation,
        "members": len(judged.chosen),
        "of": n_members,
        "faithfulness": value if np.isnan(low) else interval,
        "score_alone": float(judged.found.scores[0].mean()),
        "score_of_the_model": float(judged.found.model.mean()),
        "score_of_nothing": float(judged.found.empty.mean()),
        "incompleteness_random_sets": judged.gap_of_random,
        "incompleteness_worst_set": judged.gap_of_worst,
        "null_faithfulness": {
            "median": float(judged.null.values.median()),
            "low": judged.null.low,
            "high": judged.null.high,
        },
        "null_p_value": judged.null.at_least,
        "cpr": judged.signed.cpr,
        "cmd": judged.along.cmd,
    }


def _figures(
    question: Circuit, judged: Judged, scored: EdgeAttribution, scores: Mapping[Any, float], gap: float
) -> list[Figure]:
    ladder = Figure(
        name="faithfulness",
        kind="lines",
        group="In pictures",
        title="How much of the behaviour circuits of each size carry",
        source="Mueller et al. (2025), section 3.1",
        caption=f"Members by their score; 1 is the whole model, 0 all replaced by {Ablation(question.ablation)}. Above "
        "1, what was left out works against the behaviour.",
        data={
            "x": np.array([judged.along.sizes, judged.signed.sizes]),
            "y": np.array([_floats(judged.along.faithfulness.values), _floats(judged.signed.faithfulness.values)]),
            "names": ["by size of score", "the most helpful first"],
            "x_label": "members kept",
            "y_label": "faithfulness",
            "log_x": True,
            "marks": [{"name": "the circuit", "x": len(judged.chosen)}],
        },
    )
    figures = [_graph(judged, scored, gap), ladder]
    if judged.adds:
        names = sorted(judged.adds, key=lambda each: -judged.adds[each])[:TOP]
        figures.append(
            Figure(
                name="minimality",
                kind="bars",
                group="In pictures",
                title="What each member adds",
                caption="By what share of the behaviour the circuit changes, whichever way, when this member alone is "
                "left out of it; of several that do the same work, none may seem to add anything.",
                data={
                    "y": np.array([[judged.adds[each] for each in names]]),
                    "names": [str(each) for each in names],
                    "x_label": "member",
                    "y_label": "share of the behaviour",
                },
            )
        )
    return figures


def _graph(judged: Judged, scored: EdgeAttribution, gap: float) -> Figure:
    """The circuit's own edges; of a circuit of nodes, the strongest estimated edges between its members."""
    graph = scored.graph
    edges = [each for each in judged.chosen if isinstance(each, Edge)]
    if not edges:
        inside, parts = {each.node for each in judged.chosen} | {graph.writers[0], LOGITS_PART}, readers_of(graph)
        edges = [edge for edge in graph.edges if edge.writer in inside and inside.intersection(parts[edge.reader])]
    links = links_between_parts(graph, -scored.mean() / gap, edges)
    largest = dict(islice(links.items(), DRAWN))
    rest = "" if len(largest) == len(links) else f" The {len(largest)} strongest of {len(links)}."
    return Figure(
        name="circuit",
        kind="graph",
        group="In pictures",
        title="The circuit",
        caption="Edges by their estimated share of the gap: orange raises the metric, blue lowers it." + rest,
        data=drawn(largest, "estimated share of the gap"),
    )


def _table(scores: Mapping[Any, float], judged: Judged) -> dict[str, list[Any]]:
    inside = set(judged.chosen)
    return {
        "member": [str(each) for each in scores],
        "score": list(scores.values()),
        "chosen": [each in inside for each in scores],
    }
