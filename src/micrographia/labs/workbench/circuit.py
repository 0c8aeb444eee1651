"""Circuit: the components that carry a behaviour, and how much of it they carry when everything else is ablated.

Members are ranked by edge attribution (nodes by the edges out of them), and evaluated exactly (`circuits.evaluate`), on
the prompts that chose them, which flatters them: other prompts of the same kind show by how much.
Sources: Wang et al. (2022), section 4; Hanna et al. (2024); Mueller et al. (2025) for the areas.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Generator

from micrographia.core import figures
from micrographia.core.config import flat
from micrographia.core.errors import UserError
from micrographia.core.events import Note, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.graph import Edge
from micrographia.core.graph_figure import LOGITS_PART, readers_of, strongest_links
from micrographia.core.lab import Findings
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Baselines, LanguageModel, Pairs, metric_of
from micrographia.core.spoken import spoken_members
from micrographia.labs.workbench.config import Circuit
from micrographia.labs.workbench.findings import PICTURES, Compute, baselines_with_gap, findings
from micrographia.labs.workbench.prompts import read_prompts
from micrographia.methods.attribution.edges import EdgeAttribution, edge_attribution
from micrographia.methods.circuits.ablate import Ablation, edges_alone, nodes_alone
from micrographia.methods.circuits.evaluate import FAITHFUL, CircuitEvaluation, Connected, Step, evaluate, ladder
from micrographia.methods.circuits.judge import Null
from micrographia.methods.circuits.members import above, edge_scores, greedy_order, parts_of, ranked
from micrographia.methods.circuits.null import NEEDED, needed, random_members, random_paths
from micrographia.methods.explain import percent

MOST_MEMBERS = 30
COST = (
    "Of {of:,} edges some 45 circuits are scored to choose one, and {judged} and one for each of its edges to judge "
    "it; each takes two to four forward passes."
)
Scores = Mapping[Any, float]


def prepare_circuit(question: Circuit, model: LanguageModel) -> Compute:
    """Read the prompts; what remains is to score, to choose, and to evaluate."""
    prompts = read_prompts(question.prompts, model, [question.metric], "--metric")
    metric = metric_of(question.metric, prompts.pairs, model)
    choices = {name: value for name, value in flat(question).items() if name in CHOICES}

    def work(generator: Generator, watch: Watch) -> Findings:
        found, scores, scored = find_circuit(model, prompts.pairs, metric, generator, watch=watch, **choices)
        rows = [{"member": str(each), "score": scores[each], "adds": found.adds.get(each)} for each in found.members]
        results = {"circuit": found.table(), "members": sorted(rows, key=lambda row: -abs(row["score"]))}
        return findings(
            question,
            model,
            results,
            summary=_summary(question, found, metric.unit),
            figures=[_graph(found, scored), *found.figures(PICTURES), _members(results["members"])],
            prompts=prompts,
            baselines=[Baselines(metric, scored.clean.cpu(), scored.corrupt.cpu())],
            metrics={
                "member": list(map(str, scores)),
                "score": list(scores.values()),
                "chosen": [each in set(found.members) for each in scores],
            },
        )

    return work


CHOICES = ("units", "method", "ablation", "select", "n", "threshold", "faithful", "minimal", "null")


def find_circuit(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    generator: Generator,
    *,
    units: Literal["nodes", "edges"] = "nodes",
    method: Literal["eap", "eap-ig"] = "eap",
    ablation: Literal["other", "zero", "mean"] = "other",
    select: Literal["top", "greedy"] = "top",
    n: int | None = None,
    threshold: float | None = None,
    faithful: float = FAITHFUL,
    minimal: bool = True,
    null: int = 50,
    watch: Watch = silent,
) -> tuple[CircuitEvaluation[Any], Scores, EdgeAttribution]:
    """A circuit with its evaluation, the scores that it was chosen by, and the edge attribution that they come from.

    The choices are the fields of the question `Circuit`. A score estimates the share of the gap that the loss of a
    member would cost; of a node, by the edges out of it together. Raises UserError where prompts have no gap, and where
    no score reaches the threshold.
    """
    heads = True if units == "nodes" else None
    scored = edge_attribution(model, pairs, metric, mode="noise", method=method, heads=heads, watch=watch)
    gap = baselines_with_gap(metric, scored.clean, scored.corrupt).gap or 1.0
    outside = Ablation(ablation)
    scores: Scores
    order: list[Any]
    connected: Connected
    if units == "nodes":
        out = dict(zip(scored.graph.writers, (-scored.of_writers().double().mean(0).cpu() / gap).tolist()))
        scores = {part: out[part.node] for part in parts_of(model)}
        alone = nodes_alone(model, pairs, metric, list(scores), ablation=outside)
        connected = lambda held, size, draw: random_members(list(scores), size, draw, held or strong)  # noqa: E731
    else:
        scores = edge_scores(scored.graph, -scored.mean().double().cpu() / gap)
        alone = edges_alone(model, pairs, metric, scored.graph, ablation=outside)
        connected = lambda held, size, draw: random_paths(scored.graph, size, draw, held or strong)  # noqa: E731
        watch(Note(COST.format(of=len(scores), judged=2 * null + 130)))
    strong = needed({each: abs(score) for each, score in scores.items()})
    first = greedy_order(scored.graph, scores) if select == "greedy" else []
    order = list(dict.fromkeys([*first, *ranked(scores)]))
    circuit = None if n is None else order[:n]
    if threshold is not None:
        circuit = _above(threshold, scores, order)
    minimality: list[Step] = ["minimality"] if minimal else []
    found = evaluate(
        alone,
        order,
        generator,
        circuit=circuit,
        members=list(scores),
        along=ladder(alone, order, ranked(scores, signed=True)),
        faithful=faithful,
        steps=["subsets", "worst", *minimality, "null", "interval", "connected"],
        n_null=null,
        connected=connected,
        ablation=str(outside),
        watch=watch,
    )
    return found, scores, scored


def _above(threshold: float, scores: Scores, order: Sequence[Any]) -> list[Any]:
    if kept := above(scores, threshold):
        return [each for each in order if each in kept]
    largest = max(scores, key=lambda each: abs(scores[each]))
    raise UserError(
        f"Asked for the members whose score is at least {threshold:g} of the gap, but the largest, that of {largest}, "
        f"is {scores[largest]:.3g}. Choose a lower threshold, or a number (n)."
    )


def _summary(question: Circuit, found: CircuitEvaluation[Any], unit: str) -> list[str]:
    """The size of the circuit, its faithfulness, and that of circuits of its size drawn at random."""
    size, of, null = len(found.members), f"{found.of:,} {question.units}", found.null
    if size == found.of:
        every = f"All {of} were kept: this circuit is the whole model, and nothing was found."
        if question.n is not None or question.threshold is not None:
            return [f"{every} Choose a {'smaller n' if question.n is not None else 'higher threshold'}."]
        near = f"No smaller circuit tried comes within {1 - question.faithful:.0%} of the behaviour alone"
        return [f"{every} {near}. Ask for a lower share (faithful), a number (n), or another ablation."]
    assert null is not None
    sentences = [
        f"{size:,} of {of} carry {percent(found.faithfulness, 1)} of the behaviour alone, with everything else "
        f"replaced by {found.ablation}, on the prompts that chose them.",
        f"Random circuits of that size carry {_spread(null)}.",
    ]
    if found.connected is not None:
        sentences.append(f"{HELD[question.units]} carry {_spread(found.connected)}.")
    return [
        *sentences,
        f"With the same members removed from both, circuit and model differ by {found.incomplete_mean:.3g} {unit} over "
        f"random sets, and by {found.incomplete_worst:.3g} for the worst set found, of a gap of {found.gap:.3g}.",
    ]


HELD = {
    "nodes": f"Those that hold the nodes without which {NEEDED:.0%} of it is lost",
    "edges": f"Those that hold the edges without which {NEEDED:.0%} of it is lost, and whose every edge is on a path "
    "from the input to the logits,",
}


def _spread(null: Null) -> str:
    """The faithfulness of random circuits, and how often one is as faithful."""
    median, low, high = (percent(float(x), 1) for x in (null.values.median(), null.low, null.high))
    return f"{median} ({low} to {high}); that one is as faithful: {null.p}"


def _members(rows: Sequence[Mapping[str, Any]]) -> Figure:
    title = "Members of the circuit"
    more = f" The strongest {MOST_MEMBERS} of {len(rows)}." if len(rows) > MOST_MEMBERS else ""
    caption = f"Estimated share of the gap, and the change, up or down, when this member alone is left out.{more}"
    shown = [{**row, "member": spoken_members(row["member"])} for row in rows[:MOST_MEMBERS]]
    return figures.table("members", title, shown, caption=caption, group=title, headline=True)


def _graph(found: CircuitEvaluation[Any], scored: EdgeAttribution) -> Figure:
    """The circuit's own edges; of a circuit of nodes, the strongest estimated edges between its members."""
    graph = scored.graph
    edges = [each for each in found.members if isinstance(each, Edge)]
    if not edges:
        inside, parts = {each.node for each in found.members} | {graph.writers[0], LOGITS_PART}, readers_of(graph)
        edges = [edge for edge in graph.edges if edge.writer in inside and inside.intersection(parts[edge.reader])]
    label = "estimated share of the gap"
    data, n, of = strongest_links(graph, -scored.mean() / (scored.gap or 1.0), label, edges)
    caption = "Edges by their estimated share of the gap: orange raises the metric, blue lowers it."
    caption += "" if n == of else f" The {n} strongest of {of}."
    return figures.graph("circuit-graph", "The circuit", data, caption=caption, group=PICTURES)
