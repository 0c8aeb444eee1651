"""Does a network show the Fourier algorithm? One stated criterion, with its null.

It does when it generalises, when the cosines cos(w_k(a+b-c)) of its key frequencies alone, with its own amplitudes, do
its work, when what is left without its present frequencies does not, and when as many other frequencies do not either.
Work is measured as the share of the loss, between a uniform guess and the network, that is recovered. The closed form
is that of Nanda et al. (2023), section 4.2; the shares and the null are ours, set before any sweep was run.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.basis import fold, n_frequencies
from micrographia.methods.fourier.cubes import cube_table
from micrographia.methods.fourier.excluded import excluded_loss
from micrographia.methods.fourier.losses import losses, table_losses

GENERALISES = 0.99
"""Test accuracy from which a network counts as having grokked."""
ENOUGH = 0.9
"""Least share of the loss that the key cosines alone recover; what is left recovers 1 - ENOUGH at most."""
CHANCE = 0.05
"""Greatest share of random frequency sets that may recover ENOUGH."""
SETS = 200


class Shown(NamedTuple):
    """`shown` is None where the question cannot be put. Shares are NaN where they could not be taken."""

    shown: bool | None
    reason: str
    closed_form: float
    """Share of the loss recovered by the key cosines alone."""
    rest: float
    """Share recovered by the logits without the cosines of all present frequencies; below 0: worse than a guess."""
    null: float
    """Share of random sets of as many other frequencies whose cosines recover ENOUGH."""


def fourier_algorithm(
    logits: Float[Tensor, "n n n"],
    keys: Sequence[int],
    present: Sequence[int],
    *,
    test_accuracy: float | None,
    generator: Generator,
) -> Shown:
    """Put the criterion to a network's logits in cyclic coordinates. `present`: key frequencies and overtones.

    One dense pass over the logits and O(n^2) for each of 200 random sets.
    """
    if test_accuracy is None:
        return _not(None, "the split is not known, so nobody can say whether it generalises")
    if test_accuracy < GENERALISES:
        return _not(False, f"it does not generalise: test accuracy {test_accuracy:.3f}")
    if not keys:
        return _not(False, "it generalises, but no frequency of its logits stands out")
    uniform, loss = math.log(len(logits)), losses(logits).loss
    table = fold(logits)

    def recovered(ks: Sequence[int]) -> float:
        return (uniform - table_losses(cube_table(table, ks)).loss) / (uniform - loss)

    closed_form = recovered(keys)
    rest = (uniform - excluded_loss(logits, sorted({*keys, *present}), form="3d").loss) / (uniform - loss)
    null = _null(recovered, _others(len(logits), keys, present), len(keys), generator)
    return Shown(*_verdict(closed_form, rest, null), closed_form, rest, null)


def _verdict(closed_form: float, rest: float, null: float) -> tuple[bool, str]:
    if closed_form < ENOUGH:
        return False, f"the key cosines alone recover {closed_form:.0%} of the loss, less than {ENOUGH:.0%}"
    if rest > 1 - ENOUGH:
        return False, f"without them {rest:.0%} of the loss is still recovered, more than {1 - ENOUGH:.0%}"
    if math.isnan(null):
        return False, "every frequency is in use, so that cosines would describe any function of a+b-c as well"
    if null > CHANCE:
        return False, f"{null:.0%} of random sets of other frequencies do as well"
    return True, f"the key cosines alone recover {closed_form:.0%} of the loss, the rest of the logits does no work"


def _null(recovered: Callable[[Sequence[int]], float], others: Sequence[int], size: int, generator: Generator) -> float:
    """Share of random sets of as many other frequencies (of all of them, where they are fewer) that do the work too."""
    if not others:
        return math.nan
    drawn = [torch.randperm(len(others), generator=generator)[:size].tolist() for _ in range(SETS)]
    return sum(recovered([others[i] for i in each]) >= ENOUGH for each in drawn) / SETS


def _others(n: int, keys: Sequence[int], present: Sequence[int]) -> list[int]:
    return [k for k in range(1, n_frequencies(n) + 1) if k not in {*keys, *present}]


def _not(shown: bool | None, reason: str) -> Shown:
    return Shown(shown, reason, math.nan, math.nan, math.nan)
