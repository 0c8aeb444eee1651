"""Batches of activations, as a training step reads them: a pure function of the step, so that a run can be resumed.

Axes: member batch d_in d_out.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Activations(NamedTuple):
    """What a training step reads."""

    x: Tensor
    """(batch, d_in); with a leading member axis where each member has a site of its own."""
    target: Tensor | None = None
    """(batch, d_out), or with the same leading axis, of a transcoder. None: the input itself."""


Batches = Callable[[int], Activations]
"""The batch of a step, the same whenever it is asked for; the seed is inside."""
