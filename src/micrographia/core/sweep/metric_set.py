"""Several metrics of one run: the union of their columns, or the whole vocabulary where one needs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import UserError
from micrographia.core.metrics import Metric, of_rows
from micrographia.core.model import LogitsAt, Readout


@dataclass(frozen=True)
class MetricSet:
    """Several metrics of one run of prompts that are `n_pos` long."""

    metrics: Sequence[Metric]
    n_pos: int

    def __post_init__(self) -> None:
        if not self.metrics:
            raise UserError("Asked to measure nothing. Give at least one metric.")

    @cached_property
    def places(self) -> list[int]:
        """The distinct positions that are read, counted from the end."""
        return list(dict.fromkeys(_from_end(metric.pos, self.n_pos) for metric in self.metrics))

    @cached_property
    def columns(self) -> Int[Tensor, "prompt column"] | None:
        """All columns concatenated; None where a metric needs the vocabulary or several positions are read."""
        found = [metric.columns for metric in self.metrics if metric.columns is not None]
        whole = len(found) < len(self.metrics) or len(self.places) > 1
        return None if whole else torch.cat(found, 1)

    def logits(self, prompt: Int[Tensor, "row"]) -> LogitsAt:
        """The logits that a run of these rows has to compute."""
        return (
            self.places
            if self.columns is None
            else Readout(of_rows(self.columns, prompt, self.columns), self.places[0])
        )

    def __call__(
        self, logits: Float[Tensor, "row at column"], prompt: Int[Tensor, "row"]
    ) -> Float[Tensor, "row metric"]:
        """Every metric of each row, from the logits of `logits`."""
        if self.columns is None:
            seen = [logits[:, self.places.index(_from_end(metric.pos, self.n_pos))] for metric in self.metrics]
            parts = [
                x if m.columns is None else x.gather(-1, of_rows(m.columns, prompt, x))
                for m, x in zip(self.metrics, seen)
            ]
        else:
            widths = [metric.columns.shape[1] for metric in self.metrics if metric.columns is not None]
            parts = list(logits[:, 0].split(widths, -1))
        return torch.stack([metric.score(part, prompt) for metric, part in zip(self.metrics, parts)], -1)

    def of_vocabulary(
        self, logits: Float[Tensor, "row pos vocab"], prompt: Int[Tensor, "row"]
    ) -> Float[Tensor, "row metric"]:
        """Every metric of each row, from full logits."""
        return torch.stack([metric.of_vocabulary(logits, prompt) for metric in self.metrics], -1)


def _from_end(pos: int, n_pos: int) -> int:
    return pos - n_pos if pos >= 0 else pos
