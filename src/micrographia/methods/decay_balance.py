"""Whether a network is at a fixed point of AdamW: each weight's gradient balances its decay.

Decoupled decay removes the same fraction of every weight at every step, and Adam's step size hardly depends on the
gradient's size; so at a fixed point the gradient has the opposite sign of the weights. A network run with another
activation or norm than in training is not at a fixed point, however accurate it still is. Source: the fixed points of
AdamW, Xie and Li, "Implicit bias of AdamW" (2024); inferring the architecture from them is ours.
"""

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import BadShape
from micrographia.core.gradients import with_gradients
from micrographia.core.losses import cross_entropy
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import forward

CHUNK = 1024  # rows at a time: their activations stay in the cache


@with_gradients
def decay_balance(
    arch: Architecture,
    weights: Mapping[str, Float[Tensor, "*shape"]],
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch"],
) -> float:
    """sum of -sign(g) w over sum of |w|, g the gradient of the mean loss at the last position: 1 at a fixed point, 0 by
    chance.

    One forward and backward pass in chunks. Raises BadShape for no rows.
    """
    if not len(tokens):
        raise BadShape("The balance of gradient and decay was asked for over no rows. Give training rows.")
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    for rows, answers in zip(tokens.split(CHUNK), labels.split(CHUNK)):
        logits = forward(arch, leaves, rows, last=True)
        (cross_entropy(logits[:, -1], answers).sum() / len(tokens)).backward()
    held = sum(
        -(leaf.grad.sign() * leaf.detach()).double().sum().item() for leaf in leaves.values() if leaf.grad is not None
    )
    size = sum(leaf.detach().double().abs().sum().item() for leaf in leaves.values())
    return held / size if size else 0.0
