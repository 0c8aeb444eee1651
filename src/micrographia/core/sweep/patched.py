"""Patched: what a sweep of patches gives, beside the two runs that it is compared with."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import UserError
from micrographia.core.titles import Mode

ZERO_GAP = 1e-6
"""Gaps below this fraction of the metric's size are rounding."""


class Patched(NamedTuple):
    """The metrics of every patch (in path patching of every sender), and both baselines, in the metrics' units."""

    mode: Mode
    values: Float[Tensor, "patch prompt metric"]
    clean: Float[Tensor, "prompt metric"]
    corrupt: Float[Tensor, "prompt metric"]
    metrics: tuple[str, ...]
    source: str = ""
    """The source of the written values, as a phrase."""

    @property
    def base(self) -> Float[Tensor, "prompt metric"]:
        return self.corrupt if self.mode == "denoise" else self.clean

    def effects(self) -> Float[Tensor, "patch prompt metric"]:
        """The change of the metric by each patch, from the run it was written into."""
        return self.values - self.base

    def recovered(self) -> Float[Tensor, "patch metric"]:
        """(value - corrupt) / (clean - corrupt) of the means over prompts: 1 is the clean run, 0 the corrupt one.

        Means are robust to single prompts with a small gap. Raises UserError where the two runs have the same metric.
        """
        values, clean, corrupt = self.values.mean(1), self.clean.mean(0), self.corrupt.mean(0)
        gap = clean - corrupt
        flat = ~(gap.abs() > ZERO_GAP * torch.maximum(clean.abs(), corrupt.abs()))  # NaN is no gap either
        if flat.any():
            metric = int(flat.nonzero()[0])
            raise UserError(
                f"Asked for the {self.metrics[metric]} as a fraction of the clean-corrupt gap, but its means are "
                f"{clean[metric].item():.6g} clean and {corrupt[metric].item():.6g} corrupt, which is no gap, so "
                "recovery is undefined. Choose prompts with different answers, or use the plain values."
            )
        return (values - corrupt) / gap
