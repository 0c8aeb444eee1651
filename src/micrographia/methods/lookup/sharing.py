"""Do two facts of one subject use the same neurons? Correlations of ablation effects, beside those of other subjects.

If subjects were first turned into one code that later layers look up, the neurons of that code would serve all of a
subject's facts. Some neurons matter to every subject, so that effects correlate anyway: the null pairs the relations of
different subjects. Source: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), post 3.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.errors import UserError
from micrographia.methods.lookup.neurons import NeuronEffects


class SharedNeurons(NamedTuple):
    """Of two relations: the correlation of each subject, and the mean over subjects in each draw of the null."""

    relations: tuple[int, int]
    own: Float[Tensor, "subject"]
    null: Float[Tensor, "draw"]

    @property
    def mean(self) -> float:
        """NaN effects (a subject that nothing touches) left out."""
        return float(self.own.nanmean())

    @property
    def p_value(self) -> float:
        """The share of the null that is at least as large, the identity counted; NaN where no subject has effects."""
        if math.isnan(self.mean):
            return math.nan
        null = self.null[~self.null.isnan()]
        return float((1 + (null >= self.own.nanmean()).sum()) / (1 + len(null)))


def shared_neurons(effects: NeuronEffects, generator: Generator, *, draws: int = 200) -> list[SharedNeurons]:
    """Every pair of relations. Cost: one (subject, subject) product a pair. Raises UserError for a single relation."""
    flat = effects.flat.double()
    if len(flat) < 2:
        raise UserError("Neurons shared by two relations were asked for of facts of one. Give two relations at least.")
    found = []
    for a in range(len(flat)):
        for b in range(a + 1, len(flat)):
            table = _standardised(flat[a]).T @ _standardised(flat[b])
            n = len(table)
            null = [table[torch.arange(n), torch.randperm(n, generator=generator)].nanmean() for _ in range(draws)]
            found.append(SharedNeurons((a, b), table.diagonal().clone(), torch.stack(null)))
    return found


def _standardised(change: Float[Tensor, "unit subject"]) -> Float[Tensor, "unit subject"]:
    centred = change - change.mean(0)
    return centred / centred.norm(dim=0)
