"""Muon: momentum whose update of every hidden matrix is orthogonalised, and AdamW for all other weights.

A step of `training.train`, with the same State: `mean` is the momentum of a hidden matrix. An orthogonal update moves
all directions of a matrix alike, also those with small gradients; a small transformer then needs a third of AdamW's
steps or fewer (measured on the games of lab `othello`). Sources: Jordan et al., "Muon: an optimizer for hidden layers
in neural networks" (2024), whose iteration this is; Bernstein and Newhouse, "Old optimizer, new norm" (2409.20325).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.training import AdamW, Flat, Layout, State

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial that drives all singular values to about 1 in five steps (Jordan et al. 2024)."""
STEPS = 5


def orthogonalised(matrix: Float[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch rows columns"]:
    """U V^T of its singular value decomposition U S V^T, with singular values between about 0.7 and 1.2.

    Fifteen products on the shorter side; scale and the sign of nothing else are lost.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


def as_matrix(name: str, weight: Tensor) -> Tensor | None:
    """A hidden matrix as (member, in, out), all heads beside each other; None for what AdamW updates: embeddings,
    unembedding, norms and biases."""
    leaf = name.rpartition(".")[2]
    if not name.startswith("blocks.") or not leaf.startswith("W"):
        return None
    if leaf in ("W_Q", "W_K", "W_V"):
        return weight.transpose(1, 2).flatten(2)
    return weight.flatten(1, 2) if leaf == "W_O" else weight


def _shaped(name: str, matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_matrix`."""
    if name.rpartition(".")[2] in ("W_Q", "W_K", "W_V"):
        return matrix.unflatten(2, (like.shape[1], like.shape[3])).transpose(1, 2)
    return matrix.view_as(like)


@dataclass(frozen=True, kw_only=True, slots=True)
class Muon:
    """`adam` updates what is no hidden matrix; its warm-up, decay and end hold for both."""

    shapes: Mapping[str, tuple[int, ...]]
    adam: AdamW
    lr: float = 0.02
    """Of an update whose singular values are about sqrt(max(1, out / in))."""
    momentum: float = 0.95

    def update(self, state: State, gradient: Flat) -> State:
        """Take one step, in place. Besides `adam`'s passes fifteen products a matrix, of its shorter side squared."""
        layout = Layout(self.shapes)
        weights, mean, slope = (layout.views(flat) for flat in (state.weights, state.mean, gradient))
        moved = {}
        for name, weight in weights.items():
            if as_matrix(name, weight) is not None:
                momentum = mean[name].lerp(slope[name], 1 - self.momentum)
                ahead = slope[name].lerp(momentum, self.momentum)  # Nesterov's
                moved[name] = self._moved(name, weight, ahead, state.step), momentum
        state = self.adam.update(state, gradient)  # of the hidden matrices too, which are overwritten
        for name, (weight, momentum) in moved.items():
            weights[name].copy_(weight)
            mean[name].copy_(momentum)
        return state

    def _moved(self, name: str, weight: Tensor, ahead: Tensor, step: int) -> Tensor:
        matrix = as_matrix(name, ahead)
        assert matrix is not None
        rate = self.lr * self.adam.share_of_rate(step)
        step_size = rate * max(1.0, matrix.shape[-1] / matrix.shape[-2]) ** 0.5
        decay = torch.as_tensor(self.adam.weight_decay, dtype=torch.float64).reshape(-1, *[1] * (weight.ndim - 1))
        return weight * (1 - rate * decay.to(weight)) - step_size * _shaped(name, orthogonalised(matrix), weight)
