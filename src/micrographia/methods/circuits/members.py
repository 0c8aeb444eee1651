"""The members of circuits (components or edges), and their selection by score: ranked, threshold, greedy.

A circuit is a set of members: Parts (a head or an MLP, at one position or at all) or Edges. Selection takes scores of
all members and gives a set: the n largest, those above a threshold, or, for edges, greedily from the logits backward
(Hanna et al. 2024: at each step the largest edge into the circuit so far).
"""

import heapq
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import UserError
from micrographia.core.graph import LOGITS, Edge, Graph, Node
from micrographia.core.model import Model, ModelShape


class Part(NamedTuple):
    """A component of the model: a head (`head` of "z") or an MLP ("mlp_out"); at one position, or at all.

    >>> str(Part(Node.parse("L9.z[6]"), -1))
    'L9.z[6]@-1'
    """

    node: Node
    pos: int | None = None

    def __str__(self) -> str:
        return str(self.node) if self.pos is None else f"{self.node}@{self.pos}"


Member = TypeVar("Member", Part, Edge)


def parts_of(model: Model, *, mlps: bool = True, n_pos: int | None = None) -> tuple[Part, ...]:
    """Every head, and with `mlps` every MLP, in the order of a run; with `n_pos` each at each of `n_pos` positions."""
    nodes = []
    shape: ModelShape = model.shape
    for site in model.sites:
        if site.kind == "z":
            nodes += [Node(site, head) for head in range(shape.n_heads)]
        elif site.kind == "mlp_out" and mlps:
            nodes.append(Node(site))
    places = [None] if n_pos is None else list(range(n_pos))
    return tuple(Part(node, pos) for node in nodes for pos in places)


def edge_scores(graph: Graph, values: Float[Tensor, "writer reader"]) -> dict[Edge, float]:
    """Scores by edge, from a table such as `EdgeAttribution.mean()`."""
    rows = values.tolist()
    return {edge: rows[i][j] for edge, (i, j) in ((edge, graph.place(edge)) for edge in graph.edges)}


def ranked(scores: Mapping[Member, float], *, signed: bool = False) -> list[Member]:
    """Members by score, largest first: by absolute value, or by `signed` value."""
    return sorted(scores, key=lambda member: scores[member] if signed else abs(scores[member]), reverse=True)


def above(scores: Mapping[Member, float], threshold: float, *, signed: bool = False) -> frozenset[Member]:
    """The members whose score is at least the threshold."""
    return frozenset(member for member, x in scores.items() if (x if signed else abs(x)) >= threshold)


def greedy_order(graph: Graph, scores: Mapping[Edge, float]) -> list[Edge]:
    """All edges, in the order in which a circuit grows from the logits backward: the next edge is the one with the
    largest absolute score into a reader of the circuit so far, and it adds the readers of its writer.

    Every prefix is connected to the logits. Under grouped-query attention a head adds its group's key and value reader.
    Raises UserError where edges lack a score.
    """
    if missing := [edge for edge in graph.edges if edge not in scores]:
        raise UserError(f"{len(missing)} edges have no score, such as {missing[0]}. Score all edges of the graph.")
    into: dict[Node, list[Edge]] = {}
    for edge in graph.edges:
        into.setdefault(edge.reader, []).append(edge)
    place = {edge: i for i, edge in enumerate(graph.edges)}
    there: set[Node] = set()
    waiting: list[tuple[float, int, Edge]] = []

    def open_up(reader: Node) -> None:
        if reader not in there:
            there.add(reader)
            for edge in into.get(reader, ()):
                heapq.heappush(waiting, (-abs(scores[edge]), place[edge], edge))

    open_up(Node(LOGITS))
    order: list[Edge] = []
    while waiting:
        edge = heapq.heappop(waiting)[2]
        order.append(edge)
        for reader in graph.inlets(edge.writer):
            open_up(reader)
    return order
