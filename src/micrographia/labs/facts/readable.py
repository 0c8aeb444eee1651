"""How well a relation's value can be read at a subject's last token, before the relation is visible, by linear probes.

Ridge regression onto the values, the largest wins; judged on entities that it was not fitted to. Floors: the parts of
the name by themselves (first and last name, each with an effect of its own), and the commonest value. Null: the same
probe of values dealt to other entities. Axes: site entity d.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.lookup.facts import Facts, at_subjects

RIDGE = 1e-2
"""Of the standardised features' mean square."""
TEST = 0.2


class Readable(NamedTuple):
    """Accuracies on held-out entities, the mean over splits."""

    sites: tuple[str, ...]
    value: list[list[float]]
    """(relation, site)."""
    shuffled: list[list[float]]
    """The same of values dealt to other entities."""
    additive: list[float]
    """By relation: from the parts of the name."""
    majority: list[float]

    def best(self, relation: int) -> float:
        return max(self.value[relation])

    def floor(self, relation: int) -> float:
        """The higher of the two."""
        return max(self.additive[relation], self.majority[relation])


def read_values(model: Model, facts: Facts, splits: int, draw: Generator) -> Readable:
    """At the embedding and after every MLP, and attention where there is one. One pass, and a solve a site and split.

    The same entities judge every site, floor and null of a split.
    """
    sites = [Site("resid_pre", 0), *(site for site in model.sites if site.kind in ("resid_mid", "resid_post"))]
    x = torch.stack(list(at_subjects(model, facts, sites).values())).double()
    parts = torch.cat([F.one_hot(each) for each in facts.parts.unbind(1)], 1)[None].double()
    orders = [torch.randperm(facts.n, generator=draw) for _ in range(splits)]
    found = Readable(tuple(map(str, sites)), [], [], [], [])
    for relation in facts.relations:
        y, n = relation.answer, len(relation.options)
        dealt = y[torch.randperm(facts.n, generator=draw)]
        found.value.append(probe_accuracy(x, y, n, orders).tolist())
        found.shuffled.append(probe_accuracy(x, dealt, n, orders).tolist())
        found.additive.append(float(probe_accuracy(parts, y, n, orders)))
        found.majority.append(float(y.bincount().max()) / facts.n)
    return found


def read_others(model: Model, known: Facts, others: Facts) -> float:
    """The accuracy on `others` of a probe of `known` names after the last layer, the mean over relations."""
    site = next(site for site in reversed(model.sites) if site.kind == "resid_post")
    x, new = (at_subjects(model, facts, site)[site][None].double() for facts in (known, others))
    found = []
    for own, other in zip(known.relations, others.relations):
        weight = fit_ridge(x, F.one_hot(own.answer, len(own.options)).to(x))
        found.append(((with_one(new) @ weight).argmax(-1) == other.answer).double().mean())
    return float(torch.stack(found).mean())


def probe_accuracy(
    x: Float[Tensor, "site row d"], labels: Int[Tensor, "row"], n_classes: int, orders: Sequence[Int[Tensor, "row"]]
) -> Float[Tensor, "site"]:
    """The mean over splits of the accuracy on the last fifth of each order."""
    y, held = F.one_hot(labels, n_classes).to(x), round(TEST * len(labels))
    found: list[Tensor] = []
    for order in orders:
        train, test = order[:-held], order[-held:]
        weight = fit_ridge(x[:, train], y[train])
        said = (with_one(x[:, test]) @ weight).argmax(-1)
        found.append((said == labels[test]).double().mean(-1))
    return torch.stack(found).mean(0)


def fit_ridge(x: Float[Tensor, "site row d"], y: Float[Tensor, "row class"]) -> Float[Tensor, "site d_and_one class"]:
    """Least squares with an intercept, which is not shrunk."""
    a = with_one(x)
    gram = a.mT @ a
    shrink = RIDGE * gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(-1)
    gram.diagonal(dim1=1, dim2=2)[:, :-1].add_(shrink[:, None])
    return torch.linalg.solve(gram, a.mT @ y)


def with_one(x: Float[Tensor, "site row d"]) -> Float[Tensor, "site row d_and_one"]:
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], -1)
