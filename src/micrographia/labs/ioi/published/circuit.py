"""The circuit of Wang et al. (2022) in GPT-2 small: which heads, by role, and where they act; and how faithful it is.

Every head outside takes the mean over ABC prompts of the same template and order, position by position; MLPs and
embeddings stay. A head of the circuit is kept only at the position of its role.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator

from micrographia.core.graph import Node
from micrographia.core.model import Model
from micrographia.core.prompts import LanguageModel, metric_of
from micrographia.core.sites import Site
from micrographia.labs.ioi.published.prompts import Group, Words, group
from micrographia.methods.circuits.ablate import Ablation, nodes_alone
from micrographia.methods.circuits.members import Part, parts_of

HEADS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "name mover": ((9, 9), (10, 0), (9, 6)),
    "backup name mover": ((10, 10), (10, 6), (10, 2), (10, 1), (11, 2), (9, 7), (9, 0), (11, 9)),
    "negative name mover": ((10, 7), (11, 10)),
    "S-inhibition": ((7, 3), (7, 9), (8, 6), (8, 10)),
    "induction": ((5, 5), (5, 8), (5, 9), (6, 9)),
    "duplicate token": ((0, 1), (0, 10), (3, 0)),
    "previous token": ((2, 2), (4, 11)),
}
"""Role -> heads as (layer, head): 26 in all (figure 2 of the paper)."""
WHERE = dict.fromkeys(HEADS, "END") | {"induction": "S2", "duplicate token": "S2", "previous token": "S1+1"}
LAYERS, HEADS_A_LAYER = 12, 12
RANDOM, REFERENCE = 5, 32
"""Random circuits, and ABC prompts that a mean is taken over, for each template and order."""


class Alone(NamedTuple):
    """Mean logit differences of the model, of the circuit, of random ones; and what stands outside a circuit."""

    model: float
    circuit: float
    random: float
    ablation: str


def has_it(model: Model) -> bool:
    """Whether this model has the heads that the paper names."""
    return (model.shape.n_layers, model.shape.n_heads) == (LAYERS, HEADS_A_LAYER)


def alone(model: LanguageModel, groups: Sequence[Group], words: Words, draw: Generator) -> Alone:
    """The published circuit by itself. `2 + RANDOM` runs of each prompt, and one over each group's reference."""
    sums, n, said = torch.zeros(2 + RANDOM, dtype=torch.float64), 0, ""
    for each in groups:
        pairs = each.pairs("abc")
        reference = group(model, each.template, each.order, REFERENCE, words, draw).abc
        parts = parts_of(model, mlps=False, n_pos=pairs.clean.shape[1])
        ablation = Ablation("mean", reference)
        score = nodes_alone(model, pairs, metric_of("logit-diff", pairs, model), parts, ablation=ablation)
        circuits = [frozenset(parts), published(each), *(by_chance(each, draw) for _ in range(RANDOM))]
        sums += score(circuits).double().sum(1).cpu()
        n, said = n + len(pairs), str(ablation)
    means = sums / n
    return Alone(float(means[0]), float(means[1]), float(means[2:].mean()), f"{said}, of the same template and order")


def published(each: Group) -> frozenset[Part]:
    """The 26 heads at the positions of their roles in these prompts."""
    return frozenset(
        Part(Node(Site("z", layer), head), each.roles[WHERE[role]])
        for role, heads in HEADS.items()
        for layer, head in heads
    )


def by_chance(each: Group, draw: Generator) -> frozenset[Part]:
    """As many heads at the same positions, drawn evenly."""
    found: set[Part] = set()
    for position in dict.fromkeys(WHERE.values()):
        n = sum(len(heads) for role, heads in HEADS.items() if WHERE[role] == position)
        drawn = torch.randperm(LAYERS * HEADS_A_LAYER, generator=draw)[:n].tolist()
        found |= {Part(Node(Site("z", i // HEADS_A_LAYER), i % HEADS_A_LAYER), each.roles[position]) for i in drawn}
    return frozenset(found)
