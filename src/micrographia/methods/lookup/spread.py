"""How many neurons carry a fact, and how many facts a neuron: superposition, read off a matrix of effects.

The participation ratio of absolute effects e is (sum e)^2 / sum e^2: n where n neurons matter alike and no other does.
Beside it the share of the strongest hundredth, and Gini's coefficient. Whether neurons are special is told by the same
numbers of a random rotation of the hidden space (`neurons.random_rotations`): directions that are not neurons spread
effects as widely as effects can be spread.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.methods.lookup.neurons import NeuronEffects

TOP = 0.01


class Spread(NamedTuple):
    """Of each row: how widely its effects are spread over the columns."""

    participation: Float[Tensor, "row"]
    top: Float[Tensor, "row"]
    gini: Float[Tensor, "row"]


def spread_of(effects: Float[Tensor, "row column"]) -> Spread:
    """NaN for a row without any effect."""
    e = effects.abs().cpu()
    ordered = torch.from_numpy(np.sort(e.numpy(), axis=1)).double()
    e, total, n = ordered, ordered.sum(1), ordered.shape[1]
    rank = torch.arange(1, n + 1, dtype=e.dtype)
    top = ordered[:, n - math.ceil(TOP * n) :].sum(1) / total
    gini = 2 * (ordered @ rank) / (n * total) - (n + 1) / n
    return Spread(total.square() / e.square().sum(1), top, gini)


def over_neurons(effects: NeuronEffects) -> list[Spread]:
    """For each relation, how widely each subject's fact is spread over neurons."""
    return [spread_of(each.T) for each in effects.flat]


def over_facts(effects: NeuronEffects) -> list[Spread]:
    """For each relation, how widely each neuron is spread over facts."""
    return [spread_of(each) for each in effects.flat]
