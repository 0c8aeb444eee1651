"""Do MLPs tell known subjects from unknown ones by how much they write?

The norm of each MLP's output at the subject's last token, for pairs of names that are subjects and pairs that are not,
from the same names: so that nothing about a single name tells them apart. Under pure hashing they would be alike.
Source: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), post 3.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Generator, Tensor

from micrographia.core.errors import UserError
from micrographia.core.intervals import rank_z
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.lookup.facts import Facts, at_subjects


class NormGap(NamedTuple):
    """Of one Site. `area`: how often a known subject's norm is the larger, a half by chance; `null` (draw,): the same
    with knownness dealt anew; `z`: the rank sum in standard deviations.
    """

    known: float
    unknown: float
    area: float
    z: float
    null: Float[Tensor, "draw"]

    @property
    def p_value(self) -> float:
        """Two-sided: the share of the null at least as far from a half, the identity counted; NaN where a norm is."""
        if math.isnan(self.area):
            return math.nan
        far = (self.null - 0.5).abs() >= abs(self.area - 0.5)
        return float((1 + far.sum()) / (1 + len(self.null)))


def norm_gaps(
    model: Model,
    facts: Facts,
    known: Bool[Tensor, "subject"],
    generator: Generator,
    *,
    sites: list[Site] | str = "L*.mlp_out",
    draws: int = 200,
) -> dict[Site, NormGap]:
    """The gap at each Site. One pass. Raises UserError without any known or any unknown subject."""
    if not 0 < int(known.sum()) < len(known):
        raise UserError(f"Known and unknown subjects are compared. Found {int(known.sum())} known of {len(known)}.")
    values = at_subjects(model, facts, sites)
    return {site: _gap(x.norm(dim=-1).double().cpu(), known.cpu(), generator, draws) for site, x in values.items()}


def _gap(norm: Float[Tensor, "subject"], known: Bool[Tensor, "subject"], generator: Generator, draws: int) -> NormGap:
    order = torch.stack([torch.randperm(len(known), generator=generator) for _ in range(draws)])
    found = _areas(norm, torch.cat([known[None], known[order]]))
    means = float(norm[known].mean()), float(norm[~known].mean())
    return NormGap(*means, area=float(found[0]), z=rank_z(norm, known), null=found[1:])


def _areas(values: Float[Tensor, "n"], chosen: Bool[Tensor, "draw n"]) -> Float[Tensor, "draw"]:
    """The area under the ROC curve, ties counted half: 1/2 and the chosen centred ranks' sum, over the pairs."""
    ranks = torch.from_numpy(stats.rankdata(values.numpy()))
    m = chosen.sum(1)
    return 0.5 + chosen.double() @ (ranks - ranks.mean()) / (m * (chosen.shape[1] - m))
