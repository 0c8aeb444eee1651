"""Probes: what can be read off activations, linearly or by one hidden layer, at many sites at once.

A target is something to be read: `n_items` things of `n_classes` each, such as the 64 squares of a board that are
empty, mine or theirs, or one label of a text. `Probes` holds one probe for each site and target; those of one site do
not share anything. `fit` trains them, `score` judges them. Axes: site row d item class hidden.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import BadShape


class ProbeTarget(NamedTuple):
    """What a probe reads."""

    n_items: int = 1
    n_classes: int = 2


class ProbeLayer(NamedTuple):
    """x @ weight + bias, for every site."""

    weight: Float[Tensor, "site d out"]
    bias: Float[Tensor, "site out"]

    def __call__(self, x: Float[Tensor, "site row d"]) -> Float[Tensor, "site row out"]:
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class SiteProbes(NamedTuple):
    """The probes of one target, for every site. `hidden` is the layer before a ReLU; None: linear."""

    target: ProbeTarget
    readout: ProbeLayer
    hidden: ProbeLayer | None = None

    @property
    def d_model(self) -> int:
        """The length of what is read."""
        return (self.hidden or self.readout).weight.shape[1]

    def features(self, x: Float[Tensor, "site row d"]) -> Float[Tensor, "site row d_or_hidden"]:
        return x if self.hidden is None else F.relu(self.hidden(x))

    def logits(self, x: Float[Tensor, "site row d"]) -> Float[Tensor, "site row item class"]:
        return self.readout(self.features(x)).unflatten(-1, tuple(self.target))

    def at(self, site: int) -> "SiteProbes":
        """That of one site, by its place, with the site axis kept."""
        one = [
            layer and ProbeLayer(*(part[site : site + 1] for part in layer)) for layer in (self.readout, self.hidden)
        ]
        assert one[0] is not None
        return SiteProbes(self.target, one[0], one[1])

    @property
    def directions(self) -> Float[Tensor, "site d item class"]:
        """Of linear probes: what each class of each item is read along. Raises BadShape for a probe with a hidden
        layer, which has none."""
        if self.hidden is not None:
            raise BadShape(
                "The directions of a probe with a hidden layer were asked for. Only linear probes have them."
            )
        return self.readout.weight.unflatten(-1, tuple(self.target))


@dataclass(frozen=True, slots=True)
class Probes:
    """Probes of several targets at the same sites."""

    each: Mapping[str, SiteProbes]

    def __getitem__(self, name: str) -> SiteProbes:
        return self.each[name]

    @property
    def targets(self) -> dict[str, ProbeTarget]:
        return {name: probe.target for name, probe in self.each.items()}

    @property
    def n_sites(self) -> int:
        return len(next(iter(self.each.values())).readout.bias)

    def logits(self, x: Float[Tensor, "site row d"]) -> dict[str, Float[Tensor, "site row item class"]]:
        return {name: probe.logits(x) for name, probe in self.each.items()}


Labels = Mapping[str, Int[Tensor, "row item"]]
"""Target -> the class of each item in each row; -1 where there is none."""


class LabelledRows(NamedTuple):
    """Activations and what is true of them. `group`: a number for each row, such as its position."""

    x: Float[Tensor, "site row d"]
    labels: Labels
    group: Int[Tensor, "row"] | None = None
