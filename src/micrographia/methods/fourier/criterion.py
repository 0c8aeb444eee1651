"""Does a network show the Fourier algorithm? One stated criterion, with its null.

It does when it generalises, when the cosines cos(w_k(a+b-c)) of its key frequencies alone, with its own amplitudes, do
its work, when what is left without its present frequencies does not, and when as many other frequencies do not either.
Work is measured as the share of the loss, between a uniform guess and the network, that is recovered. The closed form
is that of Nanda et al. (2023), section 4.2; the shares and the null are ours, set before any sweep was run.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.basis import draw_others, fold_difference, fourier_basis
from micrographia.methods.fourier.losses import losses
from micrographia.methods.fourier.restricted import excluded_loss

GENERALISES = 0.99
"""Test accuracy from which a network counts as having grokked."""
ENOUGH = 0.9
"""Least share of the loss that the key cosines alone recover; what is left recovers 1 - ENOUGH at most."""
CHANCE = 0.05
"""Greatest fraction of random frequency sets that may recover ENOUGH."""
SETS = 200


class FourierVerdict(NamedTuple):
    """`shown` is None where the question does not arise. Shares are NaN where they were not measured."""

    shown: bool | None
    reason: str
    closed_form: float = math.nan
    """Share of the loss recovered by the key cosines alone."""
    rest: float = math.nan
    """Share recovered by the logits without the cosines of all present frequencies; below 0: worse than a guess."""
    null: float = math.nan
    """Fraction of random sets of as many other frequencies whose cosines recover ENOUGH."""


def fourier_algorithm(
    logits: Float[Tensor, "n n n"],
    keys: Sequence[int],
    present: Sequence[int],
    *,
    test_accuracy: float | None,
    generator: Generator,
) -> FourierVerdict:
    """Apply the criterion to a network's logits in cyclic coordinates. `present`: key frequencies and overtones.

    Two dense passes over the logits, and O(n^2) for the null's random sets.
    """
    if test_accuracy is None:
        return FourierVerdict(None, "the split is not known, so whether it generalises is not known")
    if test_accuracy < GENERALISES:
        return FourierVerdict(False, f"it does not generalise: its test accuracy is {test_accuracy:.3f}")
    if not keys:
        return FourierVerdict(False, "it generalises, but no frequency of its logits stands out")
    uniform, loss = math.log(len(logits)), losses(logits).loss
    waves = _waves(logits)
    closed_form = _recovered(waves, [keys], uniform, loss)[0]
    rest = (uniform - excluded_loss(logits, sorted({*keys, *present}), form="3d").loss) / (uniform - loss)
    used, null = {*keys, *present}, math.nan
    if len(used) < len(waves):
        sets = [draw_others(used, len(logits), len(keys), generator) for _ in range(SETS)]
        null = sum(share >= ENOUGH for share in _recovered(waves, sets, uniform, loss)) / SETS
    return FourierVerdict(*_verdict(closed_form, rest, null), closed_form, rest, null)


def _verdict(closed_form: float, rest: float, null: float) -> tuple[bool, str]:
    """The answer and its reason: a kind, and after the colon the figure."""
    if closed_form < ENOUGH:
        return False, f"its key cosines alone do not do the work: they recover {closed_form:.0%} of the loss"
    if rest > 1 - ENOUGH:
        return False, f"its logits do the work without them too: they still recover {rest:.0%} of the loss"
    if math.isnan(null):
        return False, "every frequency is in use: cosines would describe any function of a+b-c as well"
    if null > CHANCE:
        return False, f"other frequencies would do as well: {null:.0%} of random sets"
    return True, f"its key cosines alone do the work: they recover {closed_form:.0%} of the loss"


def _waves(logits: Tensor) -> Float[Tensor, "n_frequencies n"]:
    """The part of the logits in each cube, as a function of d = a + b - c, which is all that it depends on."""
    cosines = fourier_basis(len(logits))[1::2]
    return cosines * (cosines @ fold_difference(logits).cpu())[:, None]


def _recovered(waves: Tensor, sets: Sequence[Sequence[int]], uniform: float, loss: float) -> list[float]:
    """Share of the loss that the cubes of each set recover alone. One row stands for all pairs: d = 0 is right."""
    chosen = torch.zeros(len(sets), len(waves), dtype=waves.dtype)
    for row, ks in zip(chosen, sets):
        row[[k - 1 for k in ks]] = 1.0
    logits = chosen @ waves
    return ((uniform - (logits.logsumexp(1) - logits[:, 0])) / (uniform - loss)).tolist()
