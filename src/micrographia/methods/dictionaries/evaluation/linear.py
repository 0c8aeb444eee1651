"""The linear baseline: the best map of rank k from what is read to what should come out, in closed form.

For an autoencoder it is PCA with k components: what k numbers a token can hold without a dictionary. For a transcoder
it is reduced-rank regression (Izenman, "Reduced-rank regression for the multivariate linear model", 1975, eq. 2.10). It
is fitted on the tokens that it is measured on, which favours it: 2 k d numbers against many tokens.
Axes: d_in d_out rank.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.methods.dictionaries.evaluation.moments import Covariance

WIDEST = 8192
"""Numbers a token above which no covariance is kept: half a gigabyte."""


class LinearMap(NamedTuple):
    """x -> mean_out + (x - mean_in) @ down @ up."""

    mean_in: Float[Tensor, "d_in"]
    down: Float[Tensor, "d_in rank"]
    up: Float[Tensor, "rank d_out"]
    mean_out: Float[Tensor, "d_out"]
    fvu: float

    def __call__(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_out"]:
        centred = x.double() - self.mean_in.to(x.device)
        return (centred @ self.down.to(x.device) @ self.up.to(x.device) + self.mean_out.to(x.device)).to(x.dtype)


def best_linear(moments: Covariance, d_in: int, rank: int) -> LinearMap:
    """Of the covariance of (x, y) side by side, or of x alone where that is also what should come out."""
    same = len(moments.mean) == d_in
    C = moments.products / moments.n
    out = slice(0, None) if same else slice(d_in, None)
    variance = float(C[out, out].diagonal().sum())
    if same:
        full, explained = torch.eye(d_in, dtype=C.dtype, device=C.device), C
    else:
        full = torch.linalg.pinv(C[:d_in, :d_in], hermitian=True) @ C[:d_in, out]
        explained = C[out, :d_in] @ full
    rank = max(1, min(rank, len(explained)))
    values, vectors = torch.linalg.eigh((explained + explained.T) / 2)
    top = vectors[:, -rank:]
    fvu = max(0.0, 1 - float(values[-rank:].clamp(min=0).sum()) / variance) if variance > 0 else float("nan")
    return LinearMap(moments.mean[:d_in], full @ top, top.T, moments.mean[out], fvu)
