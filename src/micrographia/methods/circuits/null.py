"""Random circuits that could carry something: they hold what every path needs, and all their edges are on a path.

Of the edges of a deep model almost no random set connects the input with the logits, so random circuits score as if
everything were ablated, whatever the circuit. A null that can fail holds the members that nothing works without
(`needed`), and of edges draws only what lies on a path from the input to the logits.
This null is ours.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator

from micrographia.core.graph import INPUT, LOGITS, Edge, Graph, Node
from micrographia.methods.circuits.members import Member

TRIES = 50
"""Random edges that are tried before all that are left are listed."""
NEEDED = 0.5
"""A member without which this share of the behaviour is lost is held in every random circuit. Our choice."""


def needed(adds: Mapping[Member, float]) -> frozenset[Member]:
    """The members that cost at least `NEEDED` of the behaviour when they alone are left out."""
    return frozenset(member for member, share in adds.items() if share >= NEEDED)


def random_members(
    members: Sequence[Member], size: int, generator: Generator, held: Iterable[Member] = ()
) -> frozenset[Member]:
    """`size` members with those that are held, the others drawn evenly."""
    kept = frozenset(held)
    others = [member for member in members if member not in kept] if kept else members
    drawn = torch.randperm(len(others), generator=generator)[: max(0, size - len(kept))].tolist()
    return kept.union(others[i] for i in drawn)


def random_paths(graph: Graph, size: int, generator: Generator, held: Iterable[Edge] = ()) -> frozenset[Edge]:
    """`size` edges with those that are held, each on a path from the input to the logits; more where those that are
    held need a longer way.

    Backward walks: from a reader that leads to the logits to a random writer before it, on through one of that writer's
    own readers, until a writer that the input has already reached. The last edges, where no walk fits any more, come
    from writers that are reached.
    """
    walk = _Walk(graph, generator)
    for edge in sorted(held, key=str):
        walk.connect(edge)
    while len(walk.edges) < min(size, len(graph.edges)):
        if not walk.grow(size - len(walk.edges)):
            break
    return frozenset(walk.edges)


class _Walk:
    """A circuit that grows by whole paths: `reached` writers have a way from the input, `open` readers one on."""

    def __init__(self, graph: Graph, generator: Generator) -> None:
        self._graph, self._generator = graph, generator
        self._before = {reader: graph.writers[:n] for reader, n in zip(graph.readers, graph.seen)}
        self._place = {writer: i for i, writer in enumerate(graph.writers)}
        self.edges: dict[Edge, None] = {}
        self.reached = {Node(INPUT): None}
        self.open = {Node(LOGITS): None}

    def connect(self, edge: Edge) -> None:
        """Add an edge, with a random way to it and on from it."""
        self._take([*self._way_to(edge.writer), edge, *self._way_on(edge.reader)])

    def grow(self, most: int) -> bool:
        """Add a random path of at most so many new edges into the circuit, or one edge; False where none is left."""
        for _ in range(TRIES):
            reader = self._one(list(self.open))
            writer = self._one(self._before[reader])
            path = [*self._way_to(writer), Edge(writer, reader)]
            if len(path) > most:
                writer = self._one(list(self.reached))
                path = [Edge(writer, reader)]
            if self._place[writer] < len(self._before[reader]) and path[-1] not in self.edges:
                self._take(path)
                return True
        left = [
            edge
            for reader in self.open
            for writer in self._before[reader]
            if writer in self.reached and (edge := Edge(writer, reader)) not in self.edges
        ]
        self._take([self._one(left)] if left else [])
        return bool(left)

    def _way_to(self, writer: Node) -> list[Edge]:
        """A random way to a writer from one that is reached."""
        found: list[Edge] = []
        while writer not in self.reached:
            reader = self._one(self._graph.inlets(writer))
            writer = self._one(self._before[reader])
            found.append(Edge(writer, reader))
        return found

    def _way_on(self, reader: Node) -> list[Edge]:
        """A random way from a reader to one that is open."""
        found: list[Edge] = []
        while reader not in self.open:
            writer = self._one(self._graph.outlets(reader))
            reader = self._one([later for later, before in self._before.items() if self._place[writer] < len(before)])
            found.append(Edge(writer, reader))
        return found

    def _take(self, path: Sequence[Edge]) -> None:
        for edge in path:
            self.edges[edge] = None
            self.reached |= dict.fromkeys(self._graph.outlets(edge.reader))
            self.open |= dict.fromkeys((*self._graph.inlets(edge.writer), edge.reader))

    def _one(self, among: Sequence[Any]) -> Any:
        return among[int(torch.randint(len(among), (1,), generator=self._generator))]
