"""Cross-entropy and accuracy of logits. Metrics of one prompt's answer are in `metrics`.

`cross_entropy` takes a float64 log-softmax; `stable_cross_entropy` gives the same loss and gradient from float32
arithmetic, by never subtracting nearly equal numbers: float32's usual log-softmax is quantised at 1.2e-7, which turns
the tiny losses of a grokked network into noise (Nanda et al. 2023, appendix; Prieto et al. 2025).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(logits: Float[Tensor, "*batch vocab"], labels: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Loss in nats of each row, from a float64 log-softmax. Differentiable."""
    return -logits.double().log_softmax(-1).gather(-1, labels[..., None])[..., 0]


def accuracy(logits: Float[Tensor, "*batch vocab"], labels: Int[Tensor, "*batch"]) -> float:
    """Fraction of rows whose largest logit is the label's; NaN for no rows."""
    return (logits.argmax(-1) == labels).double().mean().item()


class RowLosses(NamedTuple):
    loss: Float[Tensor, "*batch"]
    gradient: Float[Tensor, "*batch vocab"]


def stable_cross_entropy(
    logits: Float[Tensor, "*batch vocab"], labels: Int[Tensor, "*batch"], out: Tensor | None = None
) -> RowLosses:
    """Loss of each row and its gradient with respect to the logits, both with the relative accuracy of the dtype.

    With m the largest logit, e_c = exp(l_c - m) and R the sum of e_c over c other than the label: where the label is
    the largest, loss = log1p(R); elsewhere loss = m - l_y + log(R + e_y). The gradient is p_c for the others and
    minus their sum for the label, so that neither loses digits as p_y tends to 1.
    Cost: one pass of exp; `out`, of the shape of the logits, saves an allocation (it may be the logits themselves).
    """
    at = labels[..., None]
    top = logits.amax(-1, keepdim=True)
    gap = top - logits.gather(-1, at)  # 0 where the label is the largest
    e = torch.sub(logits, top, out=out).exp_()
    own = e.gather(-1, at)
    e.scatter_(-1, at, 0.0)
    rest = e.sum(-1, keepdim=True)
    total = rest + own
    loss = torch.where(gap == 0, torch.log1p(rest / own), gap + total.log())
    e.div_(total).scatter_(-1, at, -rest / total)
    return RowLosses(loss[..., 0], e)
