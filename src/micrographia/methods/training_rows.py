"""Was a network trained on these rows? The evidence of its losses on all rows of a finite task.

A set of rows is *credible* when its losses rank below those of the others: Mann and Whitney's z under the permutation
of rows is at most -4. A set that has nothing to do with the network is a random one, so this is its exact null: it
passes three times in 100,000. Of a prefix of one shuffled order the tenth of the rows on either side of the boundary
must look like its own side too, or the fraction is wrong. Ours.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.intervals import rank_z

Z = 4.0
RING = 0.1  # fraction of the training rows on either side of the boundary that is checked

Mask = Bool[Tensor, "rows"]


class Evidence(NamedTuple):
    """The rank sum of the losses in standard deviations. `fault`: why the rows are not credible; else empty."""

    z: float
    fault: str


def evidence(train: Mask, losses: Float[Tensor, "rows"]) -> Evidence:
    """Whether the losses on these rows are small enough among all."""
    z = rank_z(losses, train)
    return Evidence(z, "" if z <= -Z else f"it takes {-Z:.0f} or less")


def evidence_of_prefix(make: Callable[[float], Mask], fraction: float, losses: Float[Tensor, "rows"]) -> Evidence:
    """The same for the first `fraction` of an order, `make(fraction)`, of whose boundary both sides are checked."""
    train = make(fraction)
    found = evidence(train, losses)
    if found.fault:
        return found
    inner, outer = train & ~make(fraction * (1 - RING)), make(min(1.0, fraction * (1 + RING))) & ~train
    if (z := rank_z(losses, inner, train)) > Z:
        return found._replace(fault=f"the last tenth of it looks unseen (z {z:+.1f}), so the fraction is too large")
    if (z := rank_z(losses, outer, ~train)) < -Z:
        return found._replace(fault=f"as many after it look seen too (z {z:+.1f}), so the fraction is too small")
    return found
