"""A world of facts: who is known, what is true of each, and the sequences that tell it.

An entity is a pair of a first and a last name, both shared with others; some pairs are unknown. Each relation gives
every pair a value: drawn evenly, or, for a share `rule_p`, what a rule says of the last name. A sequence is `<bos>
filler first last relation value`. Axes: relation first last, entity, row pos.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from micrographia.core.runtime import batch_generator, generator
from micrographia.core.small.next_token import Text
from micrographia.core.tokens import Vocabulary
from micrographia.labs.facts.config import Config

FILLERS = 8
"""Words that may stand before a name."""
BOS = 0


@dataclass(frozen=True)
class FactWorld:
    """What is true in one world, and the tokens that say it."""

    sizes: tuple[int, ...]
    """Values of each relation."""
    known: Bool[Tensor, "first last"]
    values: Int[Tensor, "relation first last"]
    """Also of unknown pairs, of whom no model is told: there what the rule says of the last name."""
    ruled: Bool[Tensor, "relation first last"]
    """Facts that the rule says."""
    exposure: Float[Tensor, "entity"]
    """How often each entity is met; adds up to 1."""

    @cached_property
    def entities(self) -> Int[Tensor, "entity part"]:
        """Number of first and of last name, of every known pair."""
        return self.known.nonzero()

    @cached_property
    def strangers(self) -> Int[Tensor, "entity part"]:
        """The same of every unknown pair."""
        return (~self.known).nonzero()

    @cached_property
    def starts(self) -> dict[str, int]:
        """Where each sort of token begins; then the values, a relation after the other."""
        first, last = self.known.shape
        sorts = {"filler": FILLERS, "first": first, "last": last, "relation": len(self.sizes)}
        sorts |= {f"value {k}": n for k, n in enumerate(self.sizes)}
        found, at = {}, BOS + 1
        for name, n in sorts.items():
            found[name], at = at, at + n
        return {**found, "end": at}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words such as first7, last12, relation1 and, of that relation, value1.4."""
        first, last = self.known.shape
        names = {"filler": FILLERS, "first": first, "last": last, "relation": len(self.sizes)}
        words = [f"{name}{i}" for name, n in names.items() for i in range(n)]
        words += [f"value{k}.{i}" for k, n in enumerate(self.sizes) for i in range(n)]
        return Vocabulary(("<bos>", *words), bos=BOS)

    def options(self, relation: int) -> Int[Tensor, "value"]:
        """The tokens of a relation's values."""
        return torch.arange(self.sizes[relation]) + self.starts[f"value {relation}"]

    def names(self, who: Int[Tensor, "entity part"]) -> Int[Tensor, "entity part"]:
        """The tokens of these pairs of names."""
        return who + torch.tensor([self.starts["first"], self.starts["last"]])

    def true_values(self, who: Int[Tensor, "entity part"]) -> Int[Tensor, "relation entity"]:
        """The value of each relation, counted within it."""
        return self.values[:, who[:, 0], who[:, 1]]

    def answers(self, who: Int[Tensor, "entity part"]) -> Int[Tensor, "relation entity"]:
        """The tokens of those values."""
        at = torch.tensor([self.starts[f"value {k}"] for k in range(len(self.sizes))])
        return self.true_values(who) + at[:, None]

    def questions(
        self, who: Int[Tensor, "entity part"], relation: int, filler: Int[Tensor, "word"]
    ) -> Int[Tensor, "entity pos"]:
        """`<bos> filler first last relation` of each of these."""
        n = len(who)
        start = torch.full((n, 1), BOS)
        asked = torch.full((n, 1), self.starts["relation"] + relation)
        return torch.cat([start, filler.expand(n, -1), self.names(who), asked], 1)

    @property
    def bits(self) -> float:
        """What a full memory of all facts holds that the rule does not say; in bits."""
        n = self.known.sum().item()
        return float(n * torch.tensor(self.sizes, dtype=torch.float64).log2().sum())


def world_of(config: Config) -> FactWorld:
    """The world of this config's seed: a pure function of it."""
    world, draw = config.world, generator(config.seed)
    F, L = world.first_names, world.last_names
    known = torch.zeros(F * L, dtype=torch.bool)
    known[torch.randperm(F * L, generator=draw)[: world.entities]] = True
    known = known.view(F, L)
    values, ruled = [], []
    for n in world.values:
        rule = torch.randint(n, (L,), generator=draw).expand(F, L)
        drawn = torch.randint(n, (F, L), generator=draw)
        follows = torch.rand(F, L, generator=draw) < world.rule_p
        values.append(torch.where(follows | ~known, rule, drawn))
        ruled.append(follows & known)
    rank = torch.randperm(world.entities, generator=draw).double() + 1
    weight = rank**-world.zipf
    return FactWorld(world.values, known, torch.stack(values), torch.stack(ruled), weight / weight.sum())


def batch(config: Config, world: FactWorld, step: int) -> Text:
    """The sequences of a step, padded at their end; scored are the values."""
    draw, n = batch_generator(config.seed, step), config.rows
    who = world.entities[torch.multinomial(world.exposure, n, replacement=True, generator=draw)]
    orders = _orders(config, n, draw)
    asked = orders + world.starts["relation"]
    told = world.answers(who).T.gather(1, orders)
    body = torch.cat([world.names(who), torch.stack([asked, told], 2).flatten(1)], 1)
    counts = torch.randint(config.filler + 1, (n,), generator=draw)
    filler = torch.randint(FILLERS, (n, config.filler), generator=draw) + world.starts["filler"]
    return _laid_out(body, filler, counts)


def _orders(config: Config, n: int, draw: Generator) -> Int[Tensor, "row fact"]:
    """The relations that each row tells, in order."""
    K = config.n_relations
    if config.together and config.order == "fixed":
        return torch.arange(K).expand(n, K)
    return torch.rand(n, K, generator=draw).argsort(1)[:, : K if config.together else 1]


def _laid_out(body: Int[Tensor, "row fact"], filler: Int[Tensor, "row word"], counts: Int[Tensor, "row"]) -> Text:
    """A start, as many words of filler as counted, then the body, then padding, which is not scored."""
    n, width = len(body), 1 + filler.shape[1] + body.shape[1]
    tokens = torch.full((n, width), BOS)
    place = torch.arange(body.shape[1]) + 1 + counts[:, None]
    if filler.shape[1]:
        tokens[:, 1 : 1 + filler.shape[1]] = filler
        later = torch.arange(width) > (counts + body.shape[1])[:, None]
        tokens = tokens.masked_fill(later, BOS)
    tokens = tokens.scatter(1, place, body)
    scored = torch.zeros(n, width, dtype=torch.bool).scatter(1, place[:, 3::2], True)
    return Text(tokens, scored)
