"""A graph's edges as a picture shows them: between components, on levels from the input to the logits.

A head reads by its query, key and value, each of them a reader of its own; for the eye they are one component, so edges
into them are summed. What is drawn is the data of a Figure of kind "graph"; title, caption and group are the caller's.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from jaxtyping import Float
from torch import Tensor

from micrographia.core.graph import INPUT, LOGITS, Edge, Graph, Node
from micrographia.core.spoken import head_name

Link = tuple[Node, Node]
"""A part, and the part that reads what it writes."""
LOGITS_PART = Node(LOGITS)
DRAWN = 60
"""Links in a picture."""
TOP = 1e6
"""The level of the logits, above every layer."""


def readers_of(graph: Graph) -> dict[Node, tuple[Node, ...]]:
    """The parts that read by each reader: a head, under grouped-query attention several; an MLP; the logits."""
    return {reader: graph.outlets(reader) or (LOGITS_PART,) for reader in graph.readers}


def links_between_parts(
    graph: Graph, values: Float[Tensor, "writer reader"], edges: Iterable[Edge] | None = None
) -> dict[Link, float]:
    """The values of these edges, by default of all, summed between parts; the largest in absolute value first.

    Where several heads share a key or value, each takes an equal part of the edge into it.
    """
    rows, parts = values.double().cpu().tolist(), readers_of(graph)
    links: dict[Link, float] = {}
    for edge in graph.edges if edges is None else edges:
        i, j = graph.place(edge)
        for part in parts[edge.reader]:
            links[edge.writer, part] = links.get((edge.writer, part), 0.0) + rows[i][j] / len(parts[edge.reader])
    return {link: links[link] for link in sorted(links, key=lambda link: -abs(links[link]))}


def strongest_links(
    graph: Graph, values: Float[Tensor, "writer reader"], weight_label: str, edges: Iterable[Edge] | None = None
) -> tuple[dict[str, Any], int, int]:
    """The `DRAWN` strongest links of these edges as a Figure's data, how many those are, and of how many."""
    links = links_between_parts(graph, values, edges)
    largest = dict(islice(links.items(), DRAWN))
    return drawn(largest, weight_label), len(largest), len(links)


def drawn(links: Mapping[Link, float], weight_label: str) -> dict[str, Any]:
    """Parts on their levels and the links between them, as the data of a Figure of kind "graph"."""
    nodes = sorted({node for link in links for node in link}, key=lambda node: (level(node), str(node)))
    place = {node: i for i, node in enumerate(nodes)}
    layers = {level(node): f"layer {node.site.layer}" for node in nodes if node.site.kind in ("z", "attn_out")}
    return {
        "nodes": [short_name(node) for node in nodes],
        "levels": [level(node) for node in nodes],
        "sources": [place[writer] for writer, _ in links],
        "targets": [place[part] for _, part in links],
        "weights": list(links.values()),
        "level_names": [{"level": at, "name": name} for at, name in sorted(layers.items())],
        "weight_label": weight_label,
    }


def level(part: Node) -> float:
    """The height of a part: the input, then attention and MLP of each layer, then the logits."""
    if part.site == INPUT:
        return 0.0
    return TOP if part.site.layer is None else 1.0 + 2 * part.site.layer + (part.site.kind == "mlp_out")


def short_name(part: Node) -> str:
    """A part as it is written in a picture: L9H6 a head, L9 attn all heads of a layer, L3 MLP.

    >>> short_name(Node.parse("L9.z[6]"))
    'L9H6'
    """
    if part.site in (INPUT, LOGITS):
        return "input" if part.site == INPUT else "logits"
    if part.head is not None:
        return head_name(part.site.layer, part.head)
    return f"L{part.site.layer} {'MLP' if part.site.kind == 'mlp_out' else 'attn'}"
