"""Active: the latents of a batch that are not zero, row after row, and the four products that training needs of them.

A batch of rows by latents with few active entries is kept as ragged rows (compressed sparse rows). Every product here
costs 2 entries d FLOPs and reads one row of d numbers an entry, whatever the number of latents; the dense ones cost
2 rows latents d. They are sums of the same terms, so they agree with the dense products to rounding.
Axes: row, latent, d, entry (an active latent of a row); W (latent, d) has a row for every latent.
"""

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import BadShape

DTYPES = (torch.float32, torch.float64)
SMALL = torch.iinfo(torch.int16).max  # up to here latents are sorted as 16-bit numbers, at half the cost


class Active(NamedTuple):
    """Ragged rows: those of row i are the entries `offsets[i]:offsets[i + 1]`."""

    values: Float[Tensor, "entry"]
    latents: Int[Tensor, "entry"]
    offsets: Int[Tensor, "row_and_one"]

    @property
    def n_rows(self) -> int:
        return self.offsets.numel() - 1

    def rows(self) -> Int[Tensor, "entry"]:
        """The row of every entry."""
        counts = self.offsets.diff()
        return torch.repeat_interleave(torch.arange(self.n_rows, device=counts.device), counts)

    def dense(self, n_latents: int) -> Float[Tensor, "row latent"]:
        """The same as a matrix, for a look or a test."""
        out = self.values.new_zeros(self.n_rows, n_latents)
        return out.index_put((self.rows(), self.latents), self.values, accumulate=True)


def ragged(
    rows: Int[Tensor, "entry"], latents: Int[Tensor, "entry"], values: Float[Tensor, "entry"], n_rows: int
) -> Active:
    """Active from entries whose rows ascend."""
    return Active(values, latents, offsets(rows, n_rows))


def offsets(ascending: Int[Tensor, "entry"], n: int) -> Int[Tensor, "n_and_one"]:
    """Where each of the numbers 0 ... n - 1 begins in an ascending list of them, and its end."""
    found = ascending.new_zeros(n + 1)
    torch.cumsum(torch.bincount(ascending, minlength=n), 0, out=found[1:])
    return found


def weighted_sums(
    W: Float[Tensor, "latent d"],
    latents: Int[Tensor, "entry"],
    offsets: Int[Tensor, "row_and_one"],
    weights: Float[Tensor, "entry"],
) -> Float[Tensor, "row d"]:
    """For every ragged row, the sum of the rows of W that it names, weighted; zero where it names none."""
    refuse_dtype(W, weights)
    if offsets.numel() == 1:
        return W.new_zeros(0, W.shape[1])
    return F.embedding_bag(latents, W, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def decode(active: Active, W: Float[Tensor, "latent d"]) -> Float[Tensor, "row d"]:
    """latents @ W through the active ones."""
    return weighted_sums(W, active.latents, active.offsets, active.values)


def dots(active: Active, left: Float[Tensor, "row d"], W: Float[Tensor, "latent d"]) -> Float[Tensor, "entry"]:
    """(left @ W.T) at the active entries only: the gradient with respect to their values."""
    refuse_dtype(left, W)
    if not active.latents.numel():
        return left.new_zeros(0)
    with warnings.catch_warnings():  # that this layout is in beta; it is read by one product here
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        at = torch.sparse_csr_tensor(
            active.offsets, active.latents, torch.zeros_like(active.values), (len(left), len(W)), check_invariants=False
        )
    return torch.sparse.sampled_addmm(at, left.contiguous(), W.T, beta=0.0).values()


class ByLatent(NamedTuple):
    """The entries sorted by latent: `order` sorts them, `rows` are their rows then, `offsets` where a latent begins."""

    order: Int[Tensor, "entry"]
    rows: Int[Tensor, "entry"]
    offsets: Int[Tensor, "latent_and_one"]

    def sums(self, weights: Float[Tensor, "entry"], right: Float[Tensor, "row d"]) -> Float[Tensor, "latent d"]:
        """weights.T @ right, with a weight for every entry in its first order: the gradient of a weight matrix."""
        return weighted_sums(right, self.rows, self.offsets, weights[self.order])

    def part(self, start: int, stop: int) -> "ByLatent":
        """Of the latents `start:stop` alone, as 0 ... stop - start - 1."""
        first, last = self.offsets[start], self.offsets[stop]
        return ByLatent(self.order[first:last], self.rows[first:last], self.offsets[start : stop + 1] - first)

    @property
    def counts(self) -> Int[Tensor, "latent"]:
        """In how many rows each latent is active."""
        return self.offsets.diff()


def by_latent(active: Active, n_latents: int) -> ByLatent:
    """One stable sort of whole numbers; what all gradients of weights share."""
    keys = active.latents.to(torch.int16 if n_latents <= SMALL else torch.int32)
    order = keys.sort(stable=True).indices
    return ByLatent(order, active.rows()[order], offsets(active.latents, n_latents))


def latent_sums(active: Active, weights: Float[Tensor, "entry"], n_latents: int) -> Float[Tensor, "latent"]:
    """The column sums of a matrix with these weights at the active entries."""
    return weights.new_zeros(n_latents).index_add_(0, active.latents, weights)


def refuse_dtype(*tensors: Tensor) -> None:
    found = {each.dtype for each in tensors}
    if len(found) > 1 or not found <= set(DTYPES):
        raise BadShape(
            f"Asked for a product over active latents of {', '.join(sorted(map(str, found)))}. These are computed "
            "in float32 or float64, all in one; convert with `.float()`, or use the dense plan."
        )
