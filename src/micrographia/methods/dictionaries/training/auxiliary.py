"""Losses that give dead latents a gradient, for one member: AuxK and ghost gradients. `AUXILIARY` is the table.

Both explain the residual, held constant, by dead latents alone and without b_dec. Axes: row dead d.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.methods.dictionaries.training.stack import Now, ScaledBatch, Stack


class Revived(NamedTuple):
    """An auxiliary loss, and its gradient in the dead latents' pre-activations and decoder rows."""

    value: Tensor
    p: Tensor
    decoder: Tensor


def auxk(stack: Stack, p: Tensor, decoder: Tensor, residual: Tensor, batch: ScaledBatch, now: Now) -> Revived:
    """weight * ||e - e_hat||^2 / Var(e), mean over the batch; e_hat from the k_aux largest dead pre-activations.

    With fewer dead latents than k_aux it is scaled by their share. Var(e) is the mean squared distance of e from its
    mean. Source: Gao et al. 2024 (arXiv 2406.04093), section A.2, and the code that goes with it.
    """
    wanted = stack.recipe.auxk or max(1, stack.d_in // 2)
    k = min(wanted, p.shape[-1])
    values, at = p.topk(k, dim=-1, sorted=False)
    z = torch.zeros_like(p).scatter_(-1, at, values.relu_())
    scale = stack.recipe.revival_weight * min(p.shape[-1] / wanted, 1.0) / _variance(residual, batch, now)
    return _explained(z, (z > 0).to(z), decoder, residual, scale / batch.rows)


def ghost(stack: Stack, p: Tensor, decoder: Tensor, residual: Tensor, batch: ScaledBatch, now: Now) -> Revived:
    """||e - e_hat||^2 with e_hat = exp(p) @ decoder at half the norm of e, rescaled to the size of ||e||^2.

    Both scales are held constant. Source: Jermyn and Templeton, "Ghost Grads", Circuits Updates, January 2024.
    """
    z = p.exp()
    size = residual.norm(dim=-1, keepdim=True) / (2 * (z @ decoder).norm(dim=-1, keepdim=True) + 1e-6)
    off = (z * size) @ decoder - residual
    both = now.group.sum(torch.stack([residual.square().sum(), off.square().sum()]))
    scale = torch.where(both[1] > 0, both[0] / both[1], 0) * stack.recipe.revival_weight
    return _explained(z * size, z * size, decoder, residual, scale / batch.rows)


def _explained(z: Tensor, dz: Tensor, decoder: Tensor, residual: Tensor, scale: Tensor) -> Revived:
    """scale * sum ||z @ decoder - residual||^2; `dz` is the slope of z in p."""
    off = z @ decoder - residual
    slope = off * (2 * scale)
    return Revived(scale * off.square().sum(), (slope @ decoder.T) * dz, z.T @ slope)


def _variance(residual: Tensor, batch: ScaledBatch, now: Now) -> Tensor:
    """Mean over all ranks' rows of the squared distance to their mean; infinite if 0, so that the loss vanishes."""
    mean = now.group.sum(residual.sum(0)) / batch.rows
    spread = now.group.sum((residual - mean).square().sum()) / batch.rows
    return torch.where(spread > 0, spread, torch.inf)


AUXILIARY: Mapping[str, Callable[[Stack, Tensor, Tensor, Tensor, ScaledBatch, Now], Revived]] = {
    "auxk": auxk,
    "ghost": ghost,
}
