"""Whether a network rests where AdamW rests: each weight's gradient pulling against its decay.

Decoupled decay takes the same share of every weight at every step, and Adam makes every step about equally long
whatever the gradient's size; so a network trained to rest has a gradient whose signs are those of the weights,
reversed. Run with another activation or norm than it was trained with, a network does not rest, however well it still
answers. Source: the fixed points of AdamW, Xie and Li, "Implicit bias of AdamW" (2024); reading the architecture off
them is ours.
"""

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import BadShape
from micrographia.core.losses import cross_entropy
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import forward

CHUNK = 1024  # rows at a time: their activations stay in the cache


def decay_balance(
    arch: Architecture,
    weights: Mapping[str, Float[Tensor, "*shape"]],
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch"],
) -> float:
    """sum of -sign(g) w over sum of |w|, g the gradient of the mean loss at the last position: 1 at rest, 0 by chance.

    One forward and backward pass in chunks. Raises BadShape for no rows.
    """
    if not len(tokens):
        raise BadShape("The balance of gradient and decay was asked for over no rows. Give some that were trained on.")
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    for rows, answers in zip(tokens.split(CHUNK), labels.split(CHUNK)):
        logits = forward(arch, leaves, rows, last=True)
        (cross_entropy(logits[:, -1], answers).sum() / len(tokens)).backward()
    held = sum(
        -(leaf.grad.sign() * leaf.detach()).double().sum().item() for leaf in leaves.values() if leaf.grad is not None
    )
    size = sum(leaf.detach().double().abs().sum().item() for leaf in leaves.values())
    return held / size if size else 0.0
