"""Thresholds set at the end, by counting: so that a row has as many active latents as was asked for.

BatchTopK's threshold is the value above which k latents a row lie; JumpReLU's are multiplied by one factor where the
mean L0 is not yet what was asked for. Both are read off the largest values of some batches, with the weights as they
came out, so they are as right after 30 steps as after 3,000. Axes: member row latent.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from micrographia.methods.dictionaries.training.dense import encoder_input
from micrographia.methods.dictionaries.training.stack import ScaledBatch, Stack

Weights = Mapping[str, Tensor]
MARGIN = 2
"""How many times as many values as are wanted the first rows let through."""
IN_MEMORY = 1 << 24
"""Pre-activations that are held at once."""


def level(stack: Stack, weights: Weights, batches: Sequence[ScaledBatch], per_row: Sequence[float]) -> Tensor:
    """(member,): of what is asked of each latent, the value that `per_row` latents a row lie above, at least 0.

    batchtopk: p itself. jumprelu: p over its threshold, so that 1 is where it stands. One forward pass; holds
    `MARGIN` * `per_row` values for each row of all batches.
    """
    return torch.stack([_level(stack, weights, batches, member, wanted) for member, wanted in enumerate(per_row)])


def _level(stack: Stack, weights: Weights, batches: Sequence[ScaledBatch], member: int, wanted: float) -> Tensor:
    own = {name: value[member : member + 1] for name, value in weights.items()}
    size = max(1, IN_MEMORY // stack.recipe.n_latents)
    pieces = [piece for batch in batches for piece in batch.x[member % len(batch.x)].split(size)]
    count = round(wanted * sum(len(piece) for piece in pieces))
    floor = _nth(_asked(stack, own, pieces[0], 0.0), MARGIN * round(wanted * len(pieces[0])))
    for least in (float(floor), 0.0):  # rarely do the others have too few above what the first piece says
        found = torch.cat([_asked(stack, own, piece, least) for piece in pieces])
        if len(found) > count:
            break
    return (_nth(found, count) + _nth(found, count + 1)) / 2


def _asked(stack: Stack, own: Weights, x: Tensor, least: float) -> Tensor:
    """The values of some rows (row, d_in) above `least`."""
    read = encoder_input(stack, own, ScaledBatch(x[None], x[None], len(x)))
    p = torch.baddbmm(own["b_enc"][:, None], read, own["encoder"].mT)
    if stack.recipe.kind == "jumprelu":
        p /= own["threshold"][:, None]
    return p[p > least]


def _nth(values: Tensor, n: int) -> Tensor:
    """The n-th largest; 0 where there are fewer."""
    return values.kthvalue(len(values) - n + 1).values if 0 < n <= len(values) else values.new_zeros(())
