"""Are neurons weak voters? Accuracy against the share of them that is kept, and how votes err together.

Neurons that are not kept are held at their mean over the subjects, at the subject's last token. If facts were stored by
many independent weak votes, accuracy would rise smoothly with the share kept and groups of neurons would err apart;
errors that correlate mean that the groups lean on the same thing.
Source: an idea left open in Nanda et al., "Fact Finding" (2023), post 4.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core.edits import Edit, apply
from micrographia.core.errors import UserError
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.lookup.facts import Answered, Facts, Relation, at_subjects, outcome


class Bagging(NamedTuple):
    """Accuracy when a random share of the neurons is kept."""

    shares: tuple[float, ...]
    accuracy: Float[Tensor, "share draw relation"]


class Votes(NamedTuple):
    """Which facts each of several disjoint groups of neurons gets right, kept alone."""

    right: Bool[Tensor, "group relation subject"]

    @property
    def accuracy(self) -> Float[Tensor, "group relation"]:
        return self.right.double().mean(-1)

    @property
    def error_correlation(self) -> Float[Tensor, "relation"]:
        """The mean over pairs of groups of the correlation of their errors; NaN where a group never or always errs."""
        n = len(self.right)
        pairs = [torch.corrcoef(each.double()).triu(1).sum() / (n * (n - 1) / 2) for each in self.right.unbind(1)]
        return torch.stack(pairs)


def bagging(
    model: Model,
    facts: Facts,
    generator: Generator,
    *,
    shares: Sequence[float] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0),
    draws: int = 5,
    layers: Sequence[int] | None = None,
) -> Bagging:
    """Accuracy against the share of neurons kept, all layers together. A pass a relation, share and draw."""
    if not all(0 <= share <= 1 for share in shares):
        raise UserError(f"Shares of neurons to keep lie between 0 and 1. Found {list(shares)}.")
    kept = _Keeping.of(model, facts, layers)
    found = []
    for share in shares:
        for _ in range(draws):
            order = torch.randperm(kept.n_units, generator=generator)
            found.append(kept.outcome(order < round(share * kept.n_units)).accuracy)
    return Bagging(tuple(shares), torch.stack(found).unflatten(0, (len(shares), draws)))


def votes(
    model: Model, facts: Facts, generator: Generator, *, groups: int = 4, layers: Sequence[int] | None = None
) -> Votes:
    """Deal the neurons into groups of equal size, and keep each alone. A pass a relation and group."""
    kept = _Keeping.of(model, facts, layers)
    if not 2 <= groups <= kept.n_units:
        raise UserError(f"{groups} groups of {kept.n_units} neurons were asked for. Take at least 2, and no more.")
    group = torch.randperm(kept.n_units, generator=generator) % groups
    return Votes(torch.stack([kept.outcome(group == k).right for k in range(groups)]))


class _Keeping(NamedTuple):
    """A model of whose neurons some are held at their mean."""

    model: Model
    facts: Facts
    means: dict[Site, Float[Tensor, "neuron"]]

    @classmethod
    def of(cls, model: Model, facts: Facts, layers: Sequence[int] | None) -> "_Keeping":
        sites = [Site("neurons", layer) for layer in (range(model.shape.n_layers) if layers is None else layers)]
        return cls(model, facts, {site: h.mean(0) for site, h in at_subjects(model, facts, sites).items()})

    @property
    def n_units(self) -> int:
        return sum(map(len, self.means.values()))

    def outcome(self, kept: Bool[Tensor, "unit"]) -> Answered:
        parts = kept.split([len(mean) for mean in self.means.values()])

        def edits(relation: Relation) -> list[Edit]:
            return [_held(site, relation, mean, part) for (site, mean), part in zip(self.means.items(), parts)]

        return outcome(self.model, self.facts, edits)


def _held(site: Site, relation: Relation, mean: Float[Tensor, "neuron"], kept: Bool[Tensor, "neuron"]) -> Edit:
    def hold(old: Tensor) -> Tensor:
        here = torch.arange(len(old)), relation.at.to(old.device)
        old[here] = torch.where(kept.to(old.device), old[here], mean.to(old))
        return old

    return apply(site, hold)
