"""How often latents fire: L0, L1, frequencies, the dead and the all too frequent, counted in one pass.

A latent fires where it is not 0 (absolute top-k has negative ones). Frequencies are shares of the tokens that count: a
latent that fires less than once in so many looks dead. Axes: token latent.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.methods.dictionaries.evaluation.moments import Mean

FREQUENT = (0.01, 0.1)
"""Frequencies above which latents are counted as ultra-high-frequency (SAEBench's two)."""
RARE = 1e-4
"""Frequency below which a latent that fires is counted as rare."""


@dataclass(slots=True)
class Firing:
    """Counts over all tokens added so far; memory of the order of the number of latents."""

    counts: Int[Tensor, "latent"]
    sums: Float[Tensor, "latent"]
    largest: Float[Tensor, "latent"]
    l0_histogram: Int[Tensor, "n"]
    """How many tokens have 0, 1, 2 ... firing latents."""
    l1: Mean = field(default_factory=Mean)
    prompts: Tensor | None = None
    """How many rows each latent fires in; None where rows are not known."""
    n: int = 0

    @classmethod
    def of(cls, n_latents: int) -> "Firing":
        whole = torch.zeros(n_latents, dtype=torch.int64)
        numbers = torch.zeros(n_latents, dtype=torch.float64)
        return cls(whole, numbers, numbers.clone(), torch.zeros(n_latents + 1, dtype=torch.int64))

    def add(self, latents: Float[Tensor, "token latent"], row: Int[Tensor, "token"] | None = None) -> None:
        size, fires = latents.abs(), latents != 0
        self.n += len(latents)
        self.counts += fires.sum(0).cpu()
        self.sums += size.sum(0, dtype=torch.float64).cpu()
        self.largest = torch.maximum(self.largest, size.amax(0).double().cpu())
        self.l0_histogram += fires.sum(1).cpu().bincount(minlength=len(self.l0_histogram))
        self.l1.add(size.sum(1, dtype=torch.float64).cpu())
        if row is not None:
            self._add_rows(fires, row.to(fires.device))

    def _add_rows(self, fires: Tensor, row: Tensor) -> None:
        """A row that is cut between two pieces counts twice for the latents that fire in both."""
        _, number = row.unique_consecutive(return_inverse=True)
        any_in = fires.new_zeros(int(number.max()) + 1, fires.shape[1], dtype=torch.float32)
        any_in.index_add_(0, number, fires.float())
        found = (any_in > 0).sum(0).cpu()
        self.prompts = found if self.prompts is None else self.prompts + found

    @property
    def l0(self) -> float:
        """The mean number of latents that fire at a token."""
        return float(self.counts.sum()) / self.n

    @property
    def frequencies(self) -> Float[Tensor, "latent"]:
        return self.counts.double() / self.n

    def l0_quantile(self, q: float) -> int:
        """The smallest number of firing latents that at least a share q of the tokens stays within."""
        return int((self.l0_histogram.cumsum(0).double() / self.n < q).sum())

    def share_above(self, frequency: float) -> float:
        return float((self.frequencies > frequency).double().mean())

    @property
    def dead_share(self) -> float:
        """Latents that never fired on these tokens."""
        return float((self.counts == 0).double().mean())

    @property
    def rare_share(self) -> float:
        """Latents that fired, but less often than `RARE`."""
        return float(((self.counts > 0) & (self.frequencies < RARE)).double().mean())

    @property
    def tokens_per_row(self) -> float:
        """Firing tokens in each row that a latent fires in, the mean over live latents; NaN where rows are unknown."""
        if self.prompts is None or not bool((self.prompts > 0).any()):
            return float("nan")
        live = self.prompts > 0
        return float((self.counts[live] / self.prompts[live]).double().mean())
