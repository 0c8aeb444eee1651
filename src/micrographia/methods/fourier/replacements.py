"""The loss of a network with its neurons, attention or logits, or all of it, replaced by formulas.

Logits are `logits[a, b, c]`, neurons `neurons[a, b, m]` at the last position, W_L the direct map from neurons to logits
with rows centred over c. The row-centred logits minus `neurons @ W_L` are the *rest*, which is kept fixed when neurons
change, even where later layers or norms would read the change.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 4.4.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.basis import fold, fourier_basis, frequency_rows, n_frequencies, rows_of_frequencies
from micrographia.methods.fourier.activations import NeuronClusters, attention_periodicity, neuron_clusters
from micrographia.methods.fourier.closed_form import Algorithm, as_printed, closed_form_table, read_algorithm
from micrographia.methods.fourier.cubes import cube_table
from micrographia.methods.fourier.losses import Losses, losses, table_losses
from micrographia.methods.fourier.restricted import restricted_table

NETWORK = "network itself"
POLYNOMIALS = "neurons as polynomials of their frequency"
OTHER_POLYNOMIALS = "neurons as polynomials of another key frequency"
FITTED_ATTENTION = "attention as its fitted waves"
KEY_ATTENTION = "attention as waves of all key frequencies"
UNIFORM_ATTENTION = "attention uniform over a and b"
NO_ATTENTION = "attention zero"
SUM_WAVES = "logits: waves of a+b alone"
KEY_COSINES = "logits: key cosines alone"
CLOSED_FORM = "closed form"
DISTANCE_FORM = "closed form with the distance"


Pattern = Float[Tensor, "n n head key"]


class Row(NamedTuple):
    """One row of the table: the network with one change. Losses in nats; NaN where the split is unknown."""

    name: str
    loss: float
    accuracy: float
    train_loss: float
    test_loss: float
    ratio: float
    """Loss on all pairs divided by the original network's."""
    says: str


def replacements(
    logits: Float[Tensor, "n n n"],
    ks: Sequence[int],
    *,
    neurons: Float[Tensor, "n n m"] | None = None,
    W_L: Float[Tensor, "m n"] | None = None,
    train: Bool[Tensor, "n n"] | None = None,
    pattern: Float[Tensor, "n n head key"] | None = None,
    logits_given_pattern: Callable[[Tensor], Tensor] | None = None,
    with_distance: Float[Tensor, "n n n"] | None = None,
) -> list[Row]:
    """Losses with a part of the network replaced by its formula; the original network comes first.

    `pattern[a, b, head]` is the last position's attention to a, b and "="; `logits_given_pattern` runs the network with
    another such pattern, (n, n, head, 3) -> (n, n, n). Rows whose part is missing are omitted, and all that need a key
    frequency if `ks` is empty.
    `with_distance`: the logits of a pizza's formula (`distance`). A few float64 copies of logits and neurons; three
    forwards for attention.
    Source: Nanda et al. (2023), section 4.4; the null row is ours.
    """
    table = ReplacementTable(logits, train)
    rows = [table.network]
    if neurons is not None and W_L is not None and ks:
        rows += _neuron_rows(table, ks, neurons, W_L)
    if pattern is not None and logits_given_pattern is not None:
        rows += _attention_rows(table, ks, pattern, logits_given_pattern)
    if ks:
        rows += _logit_rows(table, ks, read_algorithm(logits, ks))
    if with_distance is not None:
        says = "The same, but each wave's height depends on the distance a - b, as printed."
        rows.append(table.of_logits(DISTANCE_FORM, with_distance, says))
    return rows


class ReplacementTable:
    """The network's logits and loss, and rows that are compared with them."""

    def __init__(self, logits: Float[Tensor, "n n n"], train: Bool[Tensor, "n n"] | None) -> None:
        self.logits, self.train = logits.double(), train
        own = losses(logits, train)
        self.own = own.loss
        self.network = self.row(NETWORK, own, "Nothing replaced.")

    def row(self, name: str, found: Losses, says: str) -> Row:
        ratio = found.loss / self.own if self.own > 0 else math.nan
        return Row(name, found.loss, found.accuracy, found.train_loss, found.test_loss, ratio, says)

    def of_logits(self, name: str, logits: Float[Tensor, "n n n"], says: str) -> Row:
        return self.row(name, losses(logits, self.train), says)

    def of_table(self, name: str, table: Float[Tensor, "n n"], says: str) -> Row:
        """A row of logits that depend on a + b and c only."""
        return self.row(name, table_losses(table, self.train), says)


def polynomials(
    neurons: Float[Tensor, "n n m"], frequency: Int[Tensor, "m"]
) -> list[tuple[int, Int[Tensor, "own"], Float[Tensor, "waves waves own"]]]:
    """For each frequency k its neurons, and their coefficients on {1, cos w_k, sin w_k} of a x of b.

    Least squares, in the rows `waves_with_constant(k, n)`; 0 means no frequency. O(n^2 m); float64.
    Source: Nanda et al. (2023), section 4.3: neurons are polynomials of degree two in one frequency's waves.
    """
    found = []
    for k in frequency.unique().tolist():
        if k == 0:
            continue
        waves = waves_with_constant(k, neurons.shape[0]).to(neurons.device)
        own = (frequency == k).nonzero()[:, 0]
        of_a = torch.einsum("ia,abm->ibm", waves, neurons[:, :, own].double())
        found.append((k, own, torch.einsum("jb,ibm->ijm", waves, of_a)))
    return found


def waves_with_constant(k: int, n: int) -> Float[Tensor, "waves n"]:
    """The constant and frequency k's rows of `fourier_basis`."""
    basis = fourier_basis(n)
    return torch.cat([basis[:1], basis[frequency_rows(k, n)]])


def _neuron_rows(
    table: ReplacementTable, ks: Sequence[int], neurons: Float[Tensor, "n n m"], W_L: Float[Tensor, "m n"]
) -> list[Row]:
    clusters = neuron_clusters(neurons)
    replaced = clusters.clustered.nonzero()[:, 0]
    kept = table.logits - neurons[:, :, replaced].double() @ W_L[replaced].double()
    own = torch.where(clusters.clustered, clusters.frequency, 0)
    other = torch.where(clusters.clustered, _other_frequency(clusters, ks, table.logits.shape[0]), 0)
    count = f"{len(replaced)} of {neurons.shape[2]} neurons (those above 85 %)"
    one = " (with a single key frequency: its neighbour)" if len(set(ks)) == 1 else ""
    return [
        table.of_logits(
            POLYNOMIALS,
            kept + _polynomial_logits(neurons, W_L, own),
            f"{count} are replaced by their best polynomial of degree two in their frequency's waves of a and b.",
        ),
        table.of_logits(
            OTHER_POLYNOMIALS,
            kept + _polynomial_logits(neurons, W_L, other),
            f"A null: {count} are replaced by their best polynomial in another key frequency's waves{one}.",
        ),
    ]


def _polynomial_logits(
    neurons: Float[Tensor, "n n m"], W_L: Float[Tensor, "m n"], frequency: Int[Tensor, "m"]
) -> Float[Tensor, "n n n"]:
    """The logits of the polynomials: coefficients are multiplied by W_L before they are expanded over the pairs."""
    n = neurons.shape[0]
    written = torch.zeros(n, n, n, dtype=torch.float64, device=neurons.device)
    for k, own, coefficients in polynomials(neurons, frequency):
        waves = waves_with_constant(k, n).to(neurons.device)
        of_b = torch.einsum("jb,ijc->ibc", waves, coefficients @ W_L[own].double())
        written += torch.einsum("ia,ibc->abc", waves, of_b)
    return written


def _other_frequency(clusters: NeuronClusters, ks: Sequence[int], n: int) -> Int[Tensor, "m"]:
    """The next key frequency after a neuron's own; with a single key frequency, its neighbour."""
    keys = sorted(set(ks))
    following = {k: keys[(i + 1) % len(keys)] for i, k in enumerate(keys)}
    if len(keys) == 1:
        following[keys[0]] = keys[0] % n_frequencies(n) + 1
    return torch.tensor([following.get(k, keys[0]) for k in clusters.frequency.tolist()]).to(clusters.frequency)


def _attention_rows(
    table: ReplacementTable, ks: Sequence[int], pattern: Pattern, logits_given_pattern: Callable[[Tensor], Tensor]
) -> list[Row]:
    wave = 'To a: mean + alpha (cos w a - cos w b) + beta (sin w a - sin w b), {}; to "=": as it was; to b: the rest.'
    changes = [(FITTED_ATTENTION, fitted_pattern(pattern), wave.format("one w a head"))]
    if ks:
        changes += [(KEY_ATTENTION, key_pattern(pattern, ks), wave.format("summed over the key frequencies' w"))]
    changes += [
        (UNIFORM_ATTENTION, uniform_pattern(pattern), 'Each head attends equally to a and b; to "=" as it was.'),
        (NO_ATTENTION, torch.zeros_like(pattern), "Attention is zero, so the answer depends on neither a nor b."),
    ]
    return [table.of_logits(name, logits_given_pattern(changed), says) for name, changed, says in changes]


def fitted_pattern(pattern: Pattern) -> Pattern:
    """Each head's attention to a as its best-fitting wave, to "=" as it was, to b the remainder to 1.

    Source: Nanda et al. (2023), sections 4.3 and 4.4; `attention_periodicity` makes the fit.
    """
    n, fit = pattern.shape[0], attention_periodicity(pattern[..., 0])
    angle = 2 * math.pi / n * (torch.arange(n)[:, None] * fit.frequency % n)
    return _operands_alike(pattern, fit.alpha * angle.cos() + fit.beta * angle.sin())


def key_pattern(pattern: Pattern, ks: Sequence[int]) -> Pattern:
    """As `fitted_pattern`, but with a wave of each key frequency in each head.

    Ours: heads of networks that have not converged mix frequencies, so one wave per head is not enough.
    """
    n, to_a = pattern.shape[0], pattern[..., 0].double()
    waves = fourier_basis(n)[rows_of_frequencies(ks, n)]
    return _operands_alike(pattern, waves.T @ (waves @ (to_a.mean(dim=1) - to_a.mean(dim=0)) / 2))


def _operands_alike(pattern: Pattern, wave: Float[Tensor, "n head"]) -> Pattern:
    """To a: the mean, plus the wave at a, minus the wave at b."""
    to_a = (pattern[..., 0].double().mean(dim=(0, 1)) + wave[:, None] - wave).to(pattern)
    after = pattern[..., 2:]  # "=", if there is one
    return torch.cat([torch.stack([to_a, 1 - to_a - after.sum(dim=-1)], dim=-1), after], dim=-1)


def uniform_pattern(pattern: Pattern) -> Pattern:
    """Equal attention to a and b, to "=" as it was."""
    after = pattern[..., 2:]
    return torch.cat([((1 - after.sum(dim=-1, keepdim=True)) / 2).expand(*pattern.shape[:-1], 2), after], dim=-1)


def _logit_rows(table: ReplacementTable, ks: Sequence[int], algorithm: Algorithm) -> list[Row]:
    folded, printed = fold(table.logits), as_printed(algorithm)
    return [
        table.of_table(
            SUM_WAVES,
            restricted_table(folded, ks),
            "Of the logits, only cos and sin(w(a+b)) of the key frequencies and each answer's mean are kept.",
        ),
        table.of_table(
            KEY_COSINES, cube_table(folded, ks), "Of the logits, only cos(w(a+b-c)) of the key frequencies is kept."
        ),
        table.of_table(
            CLOSED_FORM,
            closed_form_table(printed),
            f"The whole network is replaced by the formula as printed: {len(ks)} frequencies, amplitudes and phases.",
        ),
    ]
