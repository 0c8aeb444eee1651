"""How well probes read: confusion counts by site, group and item, and what follows from them.

The baseline is the commonest class of each item in each group, taken from the rows that judge the probes, which favours
it. Axes: site group item true said.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.methods.probes.fit import IGNORED
from micrographia.methods.probes.probe import LabelledRows, Probes, ProbeTarget


class ProbeCounts(NamedTuple):
    """Rows by what was true of an item and what the probe said."""

    counts: Int[Tensor, "site group item true said"]
    whole: Int[Tensor, "site group"]
    """Rows in which every labelled item was right; those without a label do not count."""
    rows: Int[Tensor, "group"]

    def accuracy(self) -> Float[Tensor, "site"]:
        """Over all items and groups."""
        return _ratio(_diagonal(self.counts).sum((1, 2, 3)), self.counts.sum((1, 2, 3, 4)))

    def accuracy_by_group(self) -> Float[Tensor, "site group"]:
        return _ratio(_diagonal(self.counts).sum((2, 3)), self.counts.sum((2, 3, 4)))

    def accuracy_by_item(self) -> Float[Tensor, "site item"]:
        return _ratio(_diagonal(self.counts).sum((1, 3)), self.counts.sum((1, 3, 4)))

    def majority(self) -> float:
        """Accuracy of saying the commonest class of each item in each group."""
        true = self.counts[0].sum(-1)
        return float(true.amax(-1).sum() / true.sum())

    def whole_accuracy(self) -> Float[Tensor, "site"]:
        """Share of rows with every item right."""
        return _ratio(self.whole.sum(1), self.rows.sum())

    def f1(self, positive: int = 1) -> Float[Tensor, "site"]:
        """Of one class, over all items."""
        counts = self.counts.sum((1, 2)).double()
        both = counts[:, positive, positive]
        return 2 * both / (counts[:, positive].sum(-1) + counts[:, :, positive].sum(-1)).clamp(min=1)


def score_probes(probes: Probes, batches: Iterable[LabelledRows], *, n_groups: int = 1) -> dict[str, ProbeCounts]:
    """Count over all batches, whose `group` numbers are below `n_groups`. One product a probe and batch."""
    found: dict[str, ProbeCounts] = {}
    for name, target in probes.targets.items():
        sizes = (probes.n_sites, n_groups)
        empty = torch.zeros(*sizes, target.n_items, target.n_classes, target.n_classes, dtype=torch.int64)
        found[name] = ProbeCounts(
            empty, torch.zeros(sizes, dtype=torch.int64), torch.zeros(n_groups, dtype=torch.int64)
        )
    for rows in batches:
        for name, probe in probes.each.items():
            said = probe.logits(rows.x).argmax(-1).cpu()
            _count(found[name], said, rows.labels[name].cpu().long(), rows.group, probe.target)
    return found


def _count(into: ProbeCounts, said: Tensor, labels: Tensor, group: Tensor | None, target: ProbeTarget) -> None:
    known = labels != IGNORED
    place = torch.zeros(len(labels), dtype=torch.int64) if group is None else group.cpu().long()
    item = torch.arange(target.n_items)
    cell = ((place[:, None] * target.n_items + item) * target.n_classes + labels.clamp(min=0)) * target.n_classes
    for site, guess in enumerate(said):
        flat = torch.bincount((cell + guess)[known], minlength=into.counts[site].numel())
        into.counts[site] += flat.view_as(into.counts[site])
        right = ((guess == labels) | ~known).all(1) & known.any(1)
        into.whole[site] += torch.bincount(place[right], minlength=into.whole.shape[1])
    into.rows.add_(torch.bincount(place[known.any(1)], minlength=len(into.rows)))


def _diagonal(counts: Tensor) -> Tensor:
    return counts.diagonal(dim1=-2, dim2=-1)


def _ratio(part: Tensor, whole: Tensor) -> Float[Tensor, "*"]:
    return part.double() / whole.clamp(min=1)
