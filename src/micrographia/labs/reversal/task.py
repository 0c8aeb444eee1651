"""The facts of one network: who stands to whom, what is taught, what is held out, and how it is all spelt.

A relation pairs all entities, so that "e r ?" and "e r' ?" (r' the inverse) have one answer each. DirectedFacts of the shared
entities are taught in both directions, of the others in one; the other direction is held out. Directions are chosen so
that every entity of a held-out pair is read at least once and answered at least once: otherwise a failure could be an
untrained embedding. Pure coin flips, as in Wang and Sun 2025, leave a share of 2 ** -relations out of either role.
Axes: fact, pos; `width`: tokens of a name.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Generator, Tensor


class DirectedFacts(NamedTuple):
    """Each says: `source` stands in `relation` to `target`. Relation 2 i + 1 is the inverse of 2 i."""

    source: Int[Tensor, "fact"]
    relation: Int[Tensor, "fact"]
    target: Int[Tensor, "fact"]

    @property
    def inverse(self) -> "DirectedFacts":
        """The same facts, said the other way round."""
        return DirectedFacts(self.target, self.relation ^ 1, self.source)

    def some(self, which: Tensor) -> "DirectedFacts":
        return DirectedFacts(*(part[which] for part in self))


def joined(*parts: DirectedFacts) -> DirectedFacts:
    return DirectedFacts(*(torch.cat(column) for column in zip(*parts)))


@dataclass(frozen=True, slots=True)
class PairedWorld:
    """All facts of a network."""

    entities: int
    relations: int
    shared: DirectedFacts
    """Taught in both directions; stored in one."""
    taught: DirectedFacts
    """Taught in this direction alone."""

    @property
    def held_out(self) -> DirectedFacts:
        return self.taught.inverse

    @property
    def lessons(self) -> DirectedFacts:
        """Everything that is taught."""
        return joined(self.shared, self.shared.inverse, self.taught)


def make_world(entities: int, shared: float, relations: int, generator: Generator) -> PairedWorld:
    """Draw partners and directions. The number of shared entities is rounded to even."""
    n = 2 * round(shared * entities / 2)
    everyone = torch.randperm(entities, generator=generator)
    groups = [everyone[:n], everyone[n : n + (entities - n) // 2 * 2]]
    both, one = (_partners(group, relations, generator) for group in groups)
    return PairedWorld(entities, relations, _facts(both, generator), _facts(_balanced(one), generator))


def _partners(group: Tensor, relations: int, generator: Generator) -> Tensor:
    """(relation, pair, 2): in each relation everybody has one partner."""
    order = [torch.randperm(len(group), generator=generator) for _ in range(relations)]
    return torch.stack([group[each].view(-1, 2) for each in order])


def _balanced(partners: Tensor) -> Tensor:
    """The same pairs, turned so that everybody is first in one of the first two relations and second in the other.

    Two perfect matchings form even cycles; walking along each turns its pairs one after the other.
    """
    turned = partners.clone()
    where: list[dict[int, tuple[int, int]]] = [{}, {}]
    for relation in (0, 1):
        for pair, ends in enumerate(partners[relation].tolist()):
            where[relation] |= {ends[0]: (pair, ends[1]), ends[1]: (pair, ends[0])}
    done: set[tuple[int, int]] = set()
    for start in partners[0, :, 0].tolist():
        here, relation = start, 0
        while (here, relation) not in done:
            done.add((here, relation))
            pair, partner = where[relation][here]
            turned[relation, pair] = torch.tensor([here, partner])
            here, relation = partner, 1 - relation
            done.add((here, 1 - relation))
    return turned


def _facts(partners: Tensor, generator: Generator) -> DirectedFacts:
    """A fact a pair, from its first to its second; which of the two the relation names first is a coin's choice."""
    relations, pairs, _ = partners.shape
    side = torch.randint(2, (relations, pairs), generator=generator)
    relation = 2 * torch.arange(relations)[:, None] + side
    return DirectedFacts(partners[..., 0].flatten(), relation.flatten(), partners[..., 1].flatten())


@dataclass(frozen=True, slots=True)
class Spelling:
    """Tokens: those of names, then relations with their inverses, "is", and the mask."""

    names: Int[Tensor, "entity width"]
    name_tokens: int
    relations: int

    @property
    def width(self) -> int:
        return self.names.shape[1]

    @property
    def identity(self) -> int:
        return self.name_tokens + 2 * self.relations

    @property
    def mask(self) -> int:
        return self.identity + 1

    @property
    def d_vocab(self) -> int:
        return self.mask + 1

    def of(self, relation: Tensor) -> Int[Tensor, "fact 1"]:
        return self.name_tokens + relation[:, None]

    def words(self) -> list[str]:
        """The token's texts, in their order."""
        names = [f"e{i}" for i in range(self.name_tokens)]
        relations = [f"r{i // 2}{'^-1' if i % 2 else ''}" for i in range(2 * self.relations)]
        return [*names, *relations, "is", "[mask]"]


def spelling(entities: int, relations: int, width: int, generator: Generator) -> Spelling:
    """One token a name; or two, a first and a last name from two pools, no two names the same.

    Pools have about 1.6 sqrt(entities) names each (40 for 600), so that neither token tells who is meant.
    """
    if width == 1:
        return Spelling(torch.arange(entities)[:, None], entities, relations)
    pool = round(1.633 * entities**0.5)
    chosen = torch.randperm(pool * pool, generator=generator)[:entities]
    return Spelling(torch.stack([chosen // pool, pool + chosen % pool], 1), 2 * pool, relations)
