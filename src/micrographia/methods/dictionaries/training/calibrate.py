"""Thresholds set at the end, by counting: so that a row has as many active latents as was asked for.

BatchTopK's threshold is the value above which k latents a row lie; JumpReLU's are multiplied by one factor where the
mean L0 is not yet what was asked for. Both are read off the largest values of some batches, with the weights as they
came out, so they are as right after 30 steps as after 3,000. Axes: member row latent.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from micrographia.methods.dictionaries.training.dense import encoder_input
from micrographia.methods.dictionaries.training.stack import Batch, Stack

Weights = Mapping[str, Tensor]


def level(stack: Stack, weights: Weights, batches: Sequence[Batch], per_row: Sequence[float]) -> Tensor:
    """(member,): of what is asked of each latent, the value that `per_row` latents a row lie above, at least 0.

    batchtopk: p itself. jumprelu: p over its threshold, so that 1 is where it stands. Holds one batch's (row, latent)
    of one member, and `per_row` values for each row of all batches.
    """
    return torch.stack([_level(stack, weights, batches, member, wanted) for member, wanted in enumerate(per_row)])


def _level(stack: Stack, weights: Weights, batches: Sequence[Batch], member: int, wanted: float) -> Tensor:
    own = {name: value[member : member + 1] for name, value in weights.items()}
    total = sum(batch.rows for batch in batches)
    best = own["b_dec"].new_zeros(0)
    for batch in batches:
        part = batch._replace(x=batch.x[member % len(batch.x)][None])
        p = torch.baddbmm(own["b_enc"][:, None], encoder_input(stack, own, part), own["encoder"].mT)
        if stack.recipe.kind == "jumprelu":
            p /= own["threshold"][:, None]
        positive = p[p > 0]
        best = torch.cat([best, positive])
        best = best.topk(min(len(best), round(wanted * total) + 1)).values
    count = round(wanted * total)
    if len(best) <= count:
        return best.new_zeros(())
    return (best[count - 1] + best[count]) / 2
