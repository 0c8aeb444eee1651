"""The key frequencies of a network, by a rule without hand-tuned thresholds.

A frequency is *present* when its cube in the logits exceeds the null of `presence` (family-wise error 1 % over all k)
and removing it raises the loss on all pairs; where the split is known it must also be present on held-out pairs, since
memorised answers contain every frequency equally on training pairs. It is present too where its own neurons, those with
most of their variance at k, carry it (`carriers`: they agree, and the cube costs more than any without neurons): far
from convergence the null of the logits is too strict. A present frequency is *key* when its own neurons outweigh
everything else that writes its cube, or carry it and write more of it than those of any other frequency; an *overtone*
when neurons of key frequencies do (ReLU makes 2k, 3k, 5k of every k; arithmetic alone does not decide); else *present*.
Source: ours; the published rule beside it is `activations.published_key_frequencies`. Shapes: `logits[a, b, c]`,
c = a + b.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.errors import BadShape, UserError
from micrographia.methods.fourier.carriers import (
    carried_by_own_neurons,
    cluster_contributions,
    majority_frequency,
)
from micrographia.methods.fourier.presence import cube_cells, stepped_down

Kind = Literal["key", "overtone", "present"]

FAMILY_WISE_ERROR = 0.01


class Frequency(NamedTuple):
    """A present frequency. Without neurons their fields are None, and its kind is "present"."""

    k: int
    energy: float
    """Fraction of the row-centred logits' energy in the cube cos(w_k(a + b - c))."""
    coefficient: float
    """v_k: scalar product of the logits with that cube at norm 1; positive where it points to the right answer."""
    p_value: float
    """p-value, adjusted for the family of all frequencies (Holm)."""
    loss_change: float
    """The change of the mean loss on all pairs when the cube is removed, L - v_k C_k; in nats."""
    own_neurons: int | None
    """The number of neurons with more than half of their variance at k."""
    neurons_p: float | None
    """p-value of their agreement on this cube (`carriers`), adjusted for the family of all frequencies."""
    own_share: float | None
    """Their direct contribution to v_k, as a fraction of the sum of all contributions' sizes: 1 without any other."""
    carried_by: int | None
    """The frequency whose neurons contribute most to v_k; None where mixed neurons or other paths contribute more."""
    kind: Kind


class FrequencyTests(NamedTuple):
    """The tests of every frequency; row k - 1 is frequency k."""

    coefficient: Float[Tensor, "n_frequencies"]
    energy: Float[Tensor, "n_frequencies"]
    p_value: Float[Tensor, "n_frequencies"]
    loss_change: Float[Tensor, "n_frequencies"]
    held_out: Float[Tensor, "n_frequencies"]
    """v_k over the held-out pairs only; NaN where the split is unknown."""
    eligible: Bool[Tensor, "n_frequencies"]
    """Above rounding, useful, and not absent on the held-out pairs."""
    present: Bool[Tensor, "n_frequencies"]
    """Eligible and significant."""


def find_frequencies(
    logits: Float[Tensor, "n n n"],
    neurons: Float[Tensor, "n n m"] | None = None,
    W_L: Float[Tensor, "m n"] | None = None,
    *,
    held_out: Bool[Tensor, "n n"] | None = None,
    family_wise_error: float = FAMILY_WISE_ERROR,
) -> tuple[Frequency, ...]:
    """The present frequencies in ascending order, each with its evidence and its kind.

    `neurons` at the last position, of all layers side by side; `W_L` is their direct map to the logits (with a final
    norm, give the neurons divided by its scale). `held_out` marks pairs never trained on. Cost: `frequency_tests`,
    `neuron_clusters` and `carried_by_own_neurons`, about a second at n = 113 with 512 neurons on one core.
    Errors: neurons without W_L, or W_L without neurons; logits that are not finite.
    """
    if (neurons is None) != (W_L is None):
        given, missing = ("neurons", "W_L") if W_L is None else ("W_L", "neurons")
        raise BadShape(f"Key frequencies were asked for with {given} and no {missing}. Give both, or neither.")
    tests = frequency_tests(logits, held_out=held_out, family_wise_error=family_wise_error)
    if neurons is None or W_L is None:
        return tuple(_frequency(tests, k) for k in _where(tests.present))
    frequency = majority_frequency(neurons)
    written = cluster_contributions(neurons, W_L, frequency)
    shares = written / (written.abs().sum(dim=1) + (tests.coefficient - written.sum(dim=1)).abs())[:, None]
    of_own = shares[:, 1:].diagonal()
    p, carried = carried_by_own_neurons(
        logits, neurons, W_L, frequency, tests.loss_change, family_wise_error=family_wise_error
    )
    carried &= tests.eligible & (of_own >= shares[:, 1:].amax(dim=1))
    present = tests.present | carried
    keys = _where(present & (carried | (of_own > 0.5)))
    return tuple(
        _carried(_frequency(tests, k)._replace(neurons_p=p[k - 1].item()), shares[k - 1], frequency, keys)
        for k in _where(present)
    )


def frequency_tests(
    logits: Float[Tensor, "n n n"],
    *,
    held_out: Bool[Tensor, "n n"] | None = None,
    family_wise_error: float = FAMILY_WISE_ERROR,
) -> FrequencyTests:
    """Energy, p-value and loss change of every frequency, and whether it is present.

    A split without held-out pairs counts as unknown. A few float64 copies of the logits; 2 n^4 multiplications for all
    the losses together.
    """
    if not logits.isfinite().all():
        raise UserError("Frequencies of logits were asked for; some are NaN or infinite. Take an earlier checkpoint.")
    n, whole = logits.shape[0], logits.double()
    cells = cube_cells(logits)
    v = cells.cosine
    energy = (whole - whole.mean(dim=-1, keepdim=True)).square().sum()
    rounding = torch.finfo(logits.dtype).eps * whole.norm().item()  # an upper bound of the rounding of these logits
    p = stepped_down(cells, floor=rounding / n**1.5, family_wise_error=family_wise_error)
    change = losses_without(logits, v) - losses_without(logits, torch.zeros_like(v[:1]))
    unseen = torch.full_like(v, torch.nan)
    if held_out is not None and held_out.any():
        unseen = cube_cells(logits, held_out).cosine
    # v above the worst-case rounding of all logits together: noise-free formulas are analysed too
    eligible = (change > 0) & ~(unseen <= 0) & (v.abs() > rounding)
    return FrequencyTests(v, v.square() / energy, p, change, unseen, eligible, eligible & (p < family_wise_error))


def losses_without(
    logits: Float[Tensor, "n n n"], coefficients: Float[Tensor, "n_frequencies"]
) -> Float[Tensor, "n_frequencies"]:
    """Mean loss on all pairs of L - v_k C_k, for the k-th coefficient at frequency k; in nats, float64.

    A cube depends on d = a + b - c only, so that e^(L - v C) is e^L times a table over d: one exponential of the logits
    and one product of (n^2, n) with (n, k). Losses keep their relative accuracy however small they are.
    """
    n = logits.shape[0]
    x = torch.arange(n, device=logits.device)
    right = (x[:, None] + x) % n
    d = torch.arange(1, n, device=logits.device)
    margin = logits.double().gather(-1, (right[..., None] - d) % n) - logits.double().gather(-1, right[..., None])
    margin = margin.flatten(0, 1)  # of the wrong answers over the right one: [pair, d - 1]
    k = torch.arange(1, len(coefficients) + 1, device=logits.device)
    height = torch.where(2 * k == n, 1.0, 2.0).double().sqrt() / n**1.5
    gain = coefficients * height * (1 - (2 * math.pi / n * (d[:, None] * k % n).double()).cos())  # [d - 1, k - 1]
    mean = torch.empty_like(gain[0])
    gentle = gain.abs().amax(dim=0) < 300  # e^300 and e^-300 are still numbers
    if gentle.any():
        largest = margin.amax(dim=1, keepdim=True)
        wrong = (margin - largest).exp() @ gain[:, gentle].exp()
        mean[gentle] = torch.nn.functional.softplus(wrong.log() + largest, threshold=50.0).mean(dim=0)
    for i in (~gentle).nonzero()[:, 0]:
        wrong = (margin + gain[:, i]).logsumexp(dim=1)
        mean[i] = torch.nn.functional.softplus(wrong, threshold=50.0).mean()
    return mean


def _frequency(tests: FrequencyTests, k: int) -> Frequency:
    energy, v, p, change = (
        x[k - 1].item() for x in (tests.energy, tests.coefficient, tests.p_value, tests.loss_change)
    )
    neurons = dict.fromkeys(("own_neurons", "neurons_p", "own_share", "carried_by"))
    return Frequency(k, energy, v, p, change, **neurons, kind="present")


def _where(chosen: Bool[Tensor, "n_frequencies"]) -> list[int]:
    return (chosen.nonzero()[:, 0] + 1).tolist()


def _carried(found: Frequency, shares: Tensor, frequency: Tensor, keys: list[int]) -> Frequency:
    """The same frequency with the fields on its neurons. `shares[f]`: the contribution of the neurons of f."""
    others = shares[[k for k in keys if k != found.k]].sum().item()
    kind: Kind = "key" if found.k in keys else "overtone" if others > 0.5 else "present"
    largest = int(shares.argmax())
    round_them = 1 - shares.abs().sum().item()
    return found._replace(
        own_neurons=int((frequency == found.k).sum()),
        own_share=shares[found.k].item(),
        carried_by=largest if largest > 0 and shares[largest] > round_them else None,
        kind=kind,
    )
