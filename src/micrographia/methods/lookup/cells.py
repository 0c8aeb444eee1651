"""Entity cells: does ablating one neuron lose one subject and no other?

A fact is lost where the probability of its answer among the options falls from above a half to below. Yona et al.
("entity cells", 2026) report neurons whose ablation makes a model forget one entity; Nanda et al. (2023) found facts
spread over many. The null is the same count for a random rotation of the hidden space.
"""

import math
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.methods.lookup.neurons import NeuronEffects

HALF = -math.log(2)
"""The study kept facts of which the model gives the answer more than a half."""


class EntityCells(NamedTuple):
    """Of one relation. `known` (subject,): held when nothing is ablated; `losses` (unit,): known subjects that each
    neuron loses; `best` (subject,): the neuron with the largest loss; `lost_alone` (subject,): a neuron loses it and
    no other.
    """

    known: Bool[Tensor, "subject"]
    losses: Int[Tensor, "unit"]
    best: Int[Tensor, "subject"]
    lost: Bool[Tensor, "subject"]
    lost_alone: Bool[Tensor, "subject"]

    @property
    def share_lost(self) -> float:
        """Of known subjects, those that some neuron loses."""
        return _share(self.lost, self.known)

    @property
    def share_alone(self) -> float:
        """Of known subjects, those with a neuron that loses them and no other."""
        return _share(self.lost_alone, self.known)


def entity_cells(effects: NeuronEffects) -> list[EntityCells]:
    """Each relation by itself."""
    return [_cells(change, clean) for change, clean in zip(effects.flat, effects.clean)]


def _cells(change: Float[Tensor, "unit subject"], clean: Float[Tensor, "subject"]) -> EntityCells:
    known = clean > HALF
    lost = (clean + change < HALF) & known
    losses = lost.sum(1)
    alone = (lost & (losses == 1)[:, None]).any(0)
    return EntityCells(known, losses, change.argmin(0), lost.any(0), alone)


def _share(part: Tensor, whole: Tensor) -> float:
    return float(part.sum() / whole.sum()) if bool(whole.any()) else math.nan
