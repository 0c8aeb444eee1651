"""What the weights alone say of a latent: the decoder rows nearest to its own, and the basis units that it writes most.

Axes: latent d_out; n.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

AT_ONCE = 512


class Largest(NamedTuple):
    """Places and values of the largest of each row, largest first; -1 and 0 where there are fewer."""

    places: Int[Tensor, "latent n"]
    values: Float[Tensor, "latent n"]


def nearest_rows(unit: Float[Tensor, "all d_out"], start: int, stop: int, n: int) -> Largest:
    """For these rows of unit vectors the n others of largest cosine. 2 rows all d_out FLOPs."""
    found = []
    for at in range(start, stop, AT_ONCE):
        end = min(at + AT_ONCE, stop)
        cosines = unit[at:end] @ unit.T
        cosines[torch.arange(end - at), torch.arange(at, end)] = -torch.inf
        found.append(cosines.topk(min(n, len(unit) - 1), dim=1))
    return _padded(torch.cat([each.indices for each in found]), torch.cat([each.values for each in found]), n)


def largest_units(rows: Float[Tensor, "latent d_out"], n: int) -> Largest:
    """The n entries of each row that are largest in size, with their sign."""
    at = rows.abs().topk(min(n, rows.shape[1]), dim=1).indices
    return _padded(at, rows.gather(1, at), n)


def _padded(places: Tensor, values: Tensor, n: int) -> Largest:
    spare = (0, n - places.shape[1])
    return Largest(
        torch.nn.functional.pad(places, spare, value=-1), torch.nn.functional.pad(values, spare, value=0.0)
    )  # fmt: skip
