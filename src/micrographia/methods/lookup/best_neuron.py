"""The neuron that tells an attribute best, against the best of as many neurons when the attribute is dealt anew.

The area under the ROC curve of each neuron's activation at the subject, one option against all others. The largest of
thousands of areas is large by chance: the null deals the answers among the subjects and takes the largest again.
Source: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), post 3, whose best neuron has 0.893; areas by rank
sums (Mann and Whitney 1947).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy import stats
from torch import Generator, Tensor

from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.lookup.facts import Facts, Relation, at_subjects


class BestNeurons(NamedTuple):
    """Of one relation. `null`: the largest area of each draw. Units count through the layers."""

    layers: tuple[int, ...]
    areas: Float[Tensor, "unit option"]
    null: Float[Tensor, "draw option"]

    @property
    def best(self) -> Float[Tensor, "option"]:
        """The largest area. NaN for an option that no subject has, or all."""
        return self.areas.amax(0)

    @property
    def p_value(self) -> Float[Tensor, "option"]:
        """The share of the null that is at least as large, the identity counted; NaN where there is no best."""
        share = (1 + (self.null >= self.best).sum(0)) / (1 + len(self.null))
        return share.where(~self.best.isnan(), torch.nan)

    @property
    def where(self) -> list[tuple[int, int] | None]:
        """Layer and neuron of each option's best; None where there is no best."""
        n = len(self.areas) // len(self.layers)
        found = zip(self.areas.argmax(0).tolist(), self.best.isnan().tolist())
        return [None if none else (self.layers[unit // n], unit % n) for unit, none in found]


def best_neurons(
    model: Model, facts: Facts, generator: Generator, *, layers: list[int] | None = None, draws: int = 200
) -> list[BestNeurons]:
    """Each relation by itself. One pass, a sort of each neuron's values, and a product a draw."""
    chosen = list(range(model.shape.n_layers)) if layers is None else layers
    values = at_subjects(model, facts, [Site("neurons", layer) for layer in chosen])
    ranks = torch.from_numpy(stats.rankdata(torch.cat(list(values.values()), 1).cpu().numpy(), axis=0))
    ranks = (ranks - ranks.mean(0)).float().T.contiguous()
    return [_best(ranks, each, tuple(chosen), generator, draws) for each in facts.relations]


def _best(
    ranks: Float[Tensor, "unit subject"], relation: Relation, layers: tuple[int, ...], generator: Generator, draws: int
) -> BestNeurons:
    answer, n_options = relation.answer.cpu(), len(relation.options)
    dealt = [torch.randperm(len(answer), generator=generator) for _ in range(draws)]
    null = [_areas(ranks, answer[torch.stack(some)], n_options).amax(0) for some in _tens(dealt)]
    return BestNeurons(layers, _areas(ranks, answer[None], n_options)[:, 0], torch.cat(null))


def _tens(dealt: list[Tensor]) -> list[list[Tensor]]:
    return [dealt[i : i + 10] for i in range(0, len(dealt), 10)]


def _areas(
    ranks: Float[Tensor, "unit subject"], answer: Int[Tensor, "draw subject"], n_options: int
) -> Float[Tensor, "unit draw option"]:
    """From ranks less their mean: the area is 1/2 and their sum over the chosen, over the number of pairs."""
    chosen = F.one_hot(answer, n_options).to(ranks)
    m = chosen.sum(1)
    sums = ranks @ chosen.transpose(0, 1).flatten(1)
    return 0.5 + sums.unflatten(1, m.shape) / (m * (answer.shape[1] - m))
