"""Numbers that several claims read off what was found: probes above their floors, the plateau of a training."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from micrographia.methods.lookup.embedding import EmbeddingProbes

Curve = Mapping[str, ndarray]


def floors(read: EmbeddingProbes) -> Float[Tensor, "relation"]:
    """The highest of three for each relation: parts of the name, the commonest value, and no training."""
    found = [read.additive.mean(-1), read.majority.mean(-1)]
    found += [] if read.untrained is None else [read.untrained.mean(-1).amax(0)]
    return torch.stack(found).amax(0)


def best(read: EmbeddingProbes) -> float:
    """Accuracy at the best site of each relation, the mean over relations."""
    return float(read.accuracy.mean(-1).amax(0).mean())


def above_floor(read: EmbeddingProbes) -> float:
    return best(read) - float(floors(read).mean())


def shuffled(read: EmbeddingProbes) -> float:
    """The same of values dealt to other entities."""
    return float(read.shuffled.mean(-1).amax(0).mean())


def by_site(read: EmbeddingProbes) -> Float[Tensor, "site"]:
    """The mean over relations."""
    return read.accuracy.mean((-1, -2))


def halfway(read: EmbeddingProbes) -> float:
    """How much of the rise from the floor to the last site is there in the middle of the layers; NaN without a rise."""
    rise, floor = by_site(read), float(floors(read).mean())
    whole = float(rise[-1]) - floor
    return (float(rise[(len(rise) - 1) // 2]) - floor) / whole if whole > 0 else float("nan")


def plateau(curve: Curve, base: float) -> float:
    """The share of the steps until half of the memory is there in which the loss is that of the relation alone.

    From the step at which it comes within 5 % of the mean entropy of the values to that at which it is 5 % below.
    NaN where half is never there.
    """
    loss = np.asarray(curve["loss_nats"], float)
    half = _first(loss < base / 2)
    return (_first(loss < 0.95 * base) - _first(loss < 1.05 * base)) / half if np.isfinite(half) else float("nan")


def _first(holds: ndarray) -> float:
    """The first index at which it holds."""
    return float(holds.argmax()) if holds.any() else float("inf")
