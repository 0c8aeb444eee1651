"""The computational graph of a model: writers to the residual stream, readers from it, and the edges between them.

Writers are the input (the embeddings together), attention heads and MLPs; readers are the q, k and v input of each
head, the MLPs' inputs and the logits. Every reader reads the sum of the writers before it, so an edge is a writer and a
later reader. Keys and values have as many readers as the model has key/value heads: under grouped-query attention one
reader serves a group of heads. In parallel blocks an MLP does not read its own layer's heads.
Where a norm follows attention (Gemma 2 and 3, OLMo 2), head outputs do not add up in the residual stream, and the
attention output is one writer.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from micrographia.core.errors import BadConfig, UnknownSite, UserError
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs, rows_of

INPUT = Site("resid_pre", 0)
LOGITS = Site("logits")
ATTENTION_READERS = ("q", "k", "v")
ROUNDING = 0.05
"""Writers may differ from the residual stream by this fraction of its norm, enough for bfloat16 in a deep model."""


class Node(NamedTuple):
    """A writer or a reader: a Site, and one head of it where the Site has heads.

    >>> str(Node(Site("z", 9), 6))
    'L9.z[6]'
    """

    site: Site
    head: int | None = None

    def __str__(self) -> str:
        return str(self.site) if self.head is None else f"{self.site}[{self.head}]"

    @classmethod
    def parse(cls, text: str) -> "Node":
        """Parse what `str` writes."""
        match = re.fullmatch(r"(.+?)(?:\[(\d+)\])?", text)
        if match is None:
            raise UnknownSite("Asked for a component, but found an empty name. Write for instance L9.z[6].")
        return cls(Site.parse(match[1]), int(match[2]) if match[2] else None)


class Edge(NamedTuple):
    """The direct connection from `writer` to `reader` through the residual stream."""

    writer: Node
    reader: Node

    def __str__(self) -> str:
        return f"{self.writer} -> {self.reader}"


@dataclass(frozen=True, eq=False)
class Graph:
    """Writers and readers in the order of a run; reader j reads the first `seen[j]` writers."""

    writers: tuple[Node, ...]
    readers: tuple[Node, ...]
    seen: tuple[int, ...]
    n_heads: int
    n_kv_heads: int

    @cached_property
    def legal(self) -> Bool[Tensor, "writer reader"]:
        """Mask of the edges that exist: the writer comes before the reader."""
        return torch.arange(len(self.writers))[:, None] < torch.tensor(self.seen)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge, by writer and then by reader."""
        return tuple(Edge(self.writers[i], self.readers[j]) for i, j in self.legal.nonzero().tolist())

    @cached_property
    def _places(self) -> tuple[dict[Node, int], dict[Node, int]]:
        return {node: i for i, node in enumerate(self.writers)}, {node: i for i, node in enumerate(self.readers)}

    def place(self, edge: Edge) -> tuple[int, int]:
        """Row and column of an edge. Raises UserError, with the reason, for one that does not exist."""
        rows, columns = self._places
        if edge.writer not in rows or edge.reader not in columns:
            raise UserError(
                f"Asked for the edge {edge}. Writers are {few(self.writers)}; readers are {few(self.readers)}."
            )
        i, j = rows[edge.writer], columns[edge.reader]
        if i >= self.seen[j]:
            raise UserError(f"Asked for the edge {edge}, but {edge.reader} reads before {edge.writer} writes. Swap.")
        return i, j

    def mask(self, edges: Sequence[Edge] | frozenset[Edge]) -> Bool[Tensor, "writer reader"]:
        """True at these edges."""
        own, n_readers = self._numbers, len(self.readers)
        known = [own.get(id(edge)) for edge in edges]
        numbers = [self._number(e) if n is None else n for e, n in zip(edges, known)] if None in known else known
        found = torch.zeros(len(self.writers) * n_readers, dtype=torch.bool)
        found[torch.tensor(numbers, dtype=torch.long)] = True
        return found.view(-1, n_readers)

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """The number of each of `edges` by its identity: to hash a name takes longer than all else of a mask."""
        places = self.legal.flatten().nonzero()[:, 0].tolist()
        return {id(edge): number for edge, number in zip(self.edges, places)}

    def _number(self, edge: Edge) -> int:
        row, column = self.place(edge)
        return row * len(self.readers) + column

    def chosen(self, mask: Bool[Tensor, "writer reader"]) -> frozenset[Edge]:
        """The edges that are True and exist."""
        return frozenset(Edge(self.writers[i], self.readers[j]) for i, j in (mask & self.legal).nonzero().tolist())

    def inlets(self, writer: Node) -> tuple[Node, ...]:
        """The readers of this writer (q, k and v of a head, the input of an MLP); none for the input."""
        return self._inlets[writer]

    def outlets(self, reader: Node) -> tuple[Node, ...]:
        """The writers that use this reader: one, or a group under grouped-query attention; none for the logits."""
        return self._outlets[reader]

    @cached_property
    def _inlets(self) -> dict[Node, tuple[Node, ...]]:
        return {w: tuple(reader for reader in self.readers if self._feeds(reader, w)) for w in self.writers}

    @cached_property
    def _outlets(self) -> dict[Node, tuple[Node, ...]]:
        return {r: tuple(writer for writer in self.writers if self._feeds(r, writer)) for r in self.readers}

    def _feeds(self, reader: Node, writer: Node) -> bool:
        if writer.site == INPUT or reader.site.layer != writer.site.layer:
            return False
        if writer.site.kind == "mlp_out" or reader.site.kind not in ATTENTION_READERS:
            return writer.site.kind == "mlp_out" and reader.site.kind == "mlp_pre"
        if writer.head is None or reader.head is None:
            return True
        group = 1 if reader.site.kind == "q" else self.n_heads // self.n_kv_heads
        return writer.head // group == reader.head


def graph_of(model: Model, *, heads: bool | None = None) -> Graph:
    """The graph of this model. `heads`: each head is a writer; None: where heads add up in the residual stream.

    With `heads`, the graph of a model with norms after attention is valid for linear estimates only.
    Raises UserError for a model without attention, whose first MLP has no skip connection.
    """
    sites, shape = set(model.sites), model.shape
    if Site("z", 0) not in sites:
        raise UserError("Asked for edges, but this model has no attention: there is no residual stream to read from.")
    by_head = heads if heads is not None else not normed_behind(model)
    writers, readers, seen = [Node(INPUT)], list[Node](), list[int]()
    for i in range(shape.n_layers):
        before = len(writers)
        for kind, n in (("q", shape.n_heads), ("k", shape.n_kv_heads), ("v", shape.n_kv_heads)):
            readers += [Node(Site(kind, i), head) for head in range(n)]
        seen += [before] * (len(readers) - len(seen))
        names = [Node(Site("z", i), head) for head in range(shape.n_heads)] if by_head else [Node(Site("attn_out", i))]
        writers += names
        if Site("mlp_out", i) in sites:
            readers.append(Node(Site("mlp_pre", i)))
            seen.append(len(writers) if Site("resid_mid", i) in sites else before)
            writers.append(Node(Site("mlp_out", i)))
    return Graph(tuple(writers), (*readers, Node(LOGITS)), (*seen, len(writers)), shape.n_heads, shape.n_kv_heads)


def normed_behind(model: Model) -> bool:
    """Whether a norm follows attention, so that head outputs do not add up."""
    return Site("attn_raw", 0) in model.sites


def check_additive(model: Model, inputs: Inputs) -> None:
    """Raise UserError unless the input and what the layers write add up to the residual stream, on the first prompt.

    One forward pass of one prompt. Fails where each sum is normalised, as in BERT.
    """
    last = model.shape.n_layers - 1
    writers = [site for site in model.sites if site.kind in ("attn_out", "mlp_out")]
    end = Site("resid_post", last)
    cache = model.run(rows_of(inputs, slice(1)), keep=[INPUT, *writers, end], logits="last").cache
    total = cache[INPUT].double() + sum(cache[site].double() for site in writers)
    gap = float((total - cache[end].double()).norm() / cache[end].double().norm())
    if math.isnan(gap):
        raise UserError(
            "Asked to separate the components of this model, but its residual stream contains NaN. Check its weights "
            "and its logits."
        )
    if not gap < ROUNDING:
        raise UserError(
            f"Asked to separate the components of this model by what they add to the residual stream, but they miss it "
            f"by {gap:.0%}: it is normalised or scaled on the way. Patch Sites instead."
        )


def check_heads(graph: Graph, model: Model) -> None:
    """Raise BadConfig for a graph whose head outputs do not add up, which an exact run cannot use."""
    if normed_behind(model) and any(node.site.kind == "z" for node in graph.writers):
        raise BadConfig(
            "An exact run by edges was asked for with heads as writers, but a norm behind attention mixes them. "
            "Use `graph_of(model)`, where attention is one writer."
        )


def few(nodes: Sequence[Node]) -> str:
    shown = ", ".join(map(str, nodes[:3]))
    return f"{shown} ... {nodes[-1]}"
