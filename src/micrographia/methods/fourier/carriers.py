"""Which neurons write a frequency's cube cos(w_k(a + b - c)), and do those of its own write it together?

A neuron with wave h over a + b and read-out wave g over c, both complex, writes Re(h conj g) of the cube. If what is
read out of a neuron had nothing to do with what it computes, the angle between the two would be uniform, and
independent for each neuron (at the Nyquist frequency: the sign). So the sum over a frequency's own neurons is compared
with sums of the same sizes |h| |g| at random angles. For this the logits need not have converged. A few neurons suffice
if they agree; a single one does not. Ours; the tail is bounded as in Chernoff, "A measure of asymptotic efficiency for
tests of a hypothesis based on the sum of observations" (1952).
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import i0e
from torch import Tensor

from micrographia.core.basis import fold, fourier_basis, n_frequencies
from micrographia.methods.fourier.activations import neuron_clusters
from micrographia.methods.fourier.losses import losses
from micrographia.methods.fourier.presence import family_wise
from micrographia.methods.fourier.scores import waves

RATES = np.logspace(-2, 4, 121)  # of the bound, in units of 1 / the largest size; each of them is valid


def majority_frequency(neurons: Float[Tensor, "n n m"]) -> Int[Tensor, "m"]:
    """The frequency with more than half of a neuron's variance over pairs; 0 where there is none.

    The published rule takes the largest fraction, however small; a memorising network then has one for every neuron.
    """
    clusters = neuron_clusters(neurons)
    return torch.where(clusters.fve > 0.5, clusters.frequency, 0)


def cluster_contributions(
    neurons: Float[Tensor, "n n m"], W_L: Float[Tensor, "m n"], frequency: Int[Tensor, "m"]
) -> Float[Tensor, "n_frequencies clusters"]:
    """The direct contribution to v_k (row k - 1) of the neurons of each `frequency` (column; 0: none); float64.

    <h_j(a, b) W_L[j, c], C_k> summed over the neurons j of a cluster. Together with the paths that bypass the neurons
    it sums to v_k. One pass over the neurons, then 4 n^2 m multiplications.
    """
    n = neurons.shape[0]
    basis = fourier_basis(n).to(neurons.device)
    rows = (basis @ fold(neurons)) * (basis @ W_L.double().T)
    k = (torch.arange(1, n, device=neurons.device) + 1) // 2  # of each row but the constant
    scale = torch.where(2 * k == n, 1.0, 0.5).double().sqrt() * math.sqrt(n)
    by_neuron = rows.new_zeros(n_frequencies(n), rows.shape[1]).index_add_(0, k - 1, scale[:, None] * rows[1:])
    return rows.new_zeros(n_frequencies(n), n_frequencies(n) + 1).index_add_(1, frequency, by_neuron)


def carried_by_own_neurons(
    logits: Float[Tensor, "n n n"],
    neurons: Float[Tensor, "n n m"],
    W_L: Float[Tensor, "m n"],
    frequency: Int[Tensor, "m"],
    loss_change: Float[Tensor, "n_frequencies"],
    *,
    family_wise_error: float,
) -> tuple[Float[Tensor, "n_frequencies"], Bool[Tensor, "n_frequencies"]]:
    """The p-value of each frequency's own neurons, and whether they carry it: three conditions.

    They agree, at this error over the family; removing the cube (`loss_change`) costs more than removing that of any
    frequency that no neuron has; and so does the loss rise when these neurons keep their mean only, on their direct
    path. Cost: `agreement_p_values`; of each frequency whose neurons agree, a loss and a product of 2 n^3 m_own.
    """
    p = agreement_p_values(neurons, W_L, frequency)
    empty = frequency.bincount(minlength=len(p) + 1)[1:] == 0
    control = loss_change[empty].max().item() if empty.any() else 0.0
    carried, own_loss = (p < family_wise_error) & (loss_change > max(0.0, control)), losses(logits).loss
    for k in (carried.nonzero()[:, 0] + 1).tolist():
        own = frequency == k
        h = neurons[..., own].double()
        ablated = losses(logits.double() - (h - h.mean(dim=(0, 1))) @ W_L[own].double())
        carried[k - 1] = ablated.loss > own_loss
    return p, carried


def agreement_p_values(
    neurons: Float[Tensor, "n n m"], W_L: Float[Tensor, "m n"], frequency: Int[Tensor, "m"]
) -> Float[Tensor, "n_frequencies"]:
    """An upper bound of the p-value of each frequency's own neurons, adjusted for the family (Holm); 1 without any.

    `frequency` gives the neurons of each; the family is the frequencies that have any, since only they are tested. One
    pass over the neurons; float64.
    """
    n = neurons.shape[0]
    h, g = waves(fold(neurons)), waves(W_L.T)
    written, sizes = (h * g.conj()).real.cpu().numpy(), (h.abs() * g.abs()).cpu().numpy()
    tested, bounds = sorted(set(frequency.tolist()) - {0}), []
    for k in tested:
        own = (frequency == k).cpu().numpy()
        bounds.append(tail_bound(sizes[k - 1, own], written[k - 1, own].sum(), signs=2 * k == n))
    found = torch.ones(n_frequencies(n), dtype=torch.float64)
    found[[k - 1 for k in tested]] = family_wise(torch.tensor(bounds, dtype=torch.float64))
    return found.to(W_L.device)


def tail_bound(sizes: np.ndarray, total: float, *, signs: bool = False) -> float:
    """An upper bound of P(sum of sizes x cos(angle) >= total) at uniform angles, or with random signs in their place.

    The least of E[e^(r sum)] e^(-r total) over rates r; E[e^(r cos)] is the Bessel function I0(r), with signs cosh(r).
    """
    if total <= 0 or not sizes.any():
        return 1.0
    x = RATES[:, None] * (sizes / sizes.max())
    log_mean = x + np.log1p(np.exp(-2 * x)) - np.log(2) if signs else x + np.log(i0e(x))
    return float(np.exp(min(0.0, (log_mean.sum(axis=1) - RATES * total / sizes.max()).min())))
