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
"""How many times as many values as are wanted the first batch lets through."""


def level(stack: Stack, weights: Weights, batches: Sequence[ScaledBatch], per_row: Sequence[float]) -> Tensor:
    """(member,): of what is asked of each latent, the value that `per_row` latents a row lie above, at least 0.

    batchtopk: p itself. jumprelu: p over its threshold, so that 1 is where it stands. Holds one batch's (row, latent)
    of one member, and `per_row` values for each row of all batches.
    """
    return torch.stack([_level(stack, weights, batches, member, wanted) for member, wanted in enumerate(per_row)])


def _level(stack: Stack, weights: Weights, batches: Sequence[ScaledBatch], member: int, wanted: float) -> Tensor:
    own = {name: value[member : member + 1] for name, value in weights.items()}
    count = round(wanted * sum(batch.rows for batch in batches))
    floor = _nth(_asked(stack, own, batches[0], member, 0.0), MARGIN * round(wanted * batches[0].rows))
    for least in (float(floor), 0.0):  # rarely do the other batches have too few above what the first one says
        found = torch.cat([_asked(stack, own, batch, member, least) for batch in batches])
        if len(found) > count:
            break
    return (_nth(found, count) + _nth(found, count + 1)) / 2


def _asked(stack: Stack, own: Weights, batch: ScaledBatch, member: int, least: float) -> Tensor:
    """The values of one batch above `least`."""
    part = batch._replace(x=batch.x[member % len(batch.x)][None])
    p = torch.baddbmm(own["b_enc"][:, None], encoder_input(stack, own, part), own["encoder"].mT)
    if stack.recipe.kind == "jumprelu":
        p /= own["threshold"][:, None]
    return p[p > least]


def _nth(values: Tensor, n: int) -> Tensor:
    """The n-th largest; 0 where there are fewer."""
    return values.kthvalue(len(values) - n + 1).values if 0 < n <= len(values) else values.new_zeros(())
