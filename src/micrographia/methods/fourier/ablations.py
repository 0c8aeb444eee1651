"""The loss with parts of the algorithm ablated from a network, with control ablations of equal size.

Neurons act on the logits through W_L, which reads the key frequencies along 2 |K| neuron directions: keep only these,
remove them, or remove as many others. On the logits: keep or remove 2-D Fourier components, or one frequency's waves of
a + b. Shapes and the *rest* are those of `replacements`; only the direct path through W_L is ablated. Source: Nanda et
al., "Progress measures for grokking via mechanistic interpretability" (2023), section 4.4; the random and the
other-frequency controls are ours.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core.basis import draw_others, fourier_basis, n_frequencies, rows_of_frequencies
from micrographia.methods.fourier.losses import Losses, losses
from micrographia.methods.fourier.replacements import ReplacementTable, Row
from micrographia.methods.fourier.restricted import excluded_logits
from micrographia.methods.fourier.spectra import neuron_logit_directions

KEY_SPACE = "neurons on the key directions only"
NULL_SPACE = "neurons off the key directions"
RANDOM_SPACE = "neurons off a random subspace of equal rank"
OTHER_SPACE = "neurons off as many other directions"
COMPONENTS_KEPT = "components: constant and 8 per key frequency"
COMPONENTS_REMOVED = "components: all but the 8 per key frequency"
NO_SKIP = "without the MLP's skip path"

DRAWS = 5


def without(k: int) -> str:
    """The name of the row without frequency k."""
    return f"without k = {k}"


def ablations(
    logits: Float[Tensor, "n n n"],
    ks: Sequence[int],
    *,
    neurons: Float[Tensor, "n n m"] | None = None,
    W_L: Float[Tensor, "m n"] | None = None,
    train: Bool[Tensor, "n n"] | None = None,
    generator: Generator,
    draws: int = DRAWS,
) -> list[Row]:
    """Losses with parts ablated. `generator` draws the control subspaces, of which `draws` are averaged.

    Rows whose part is missing are omitted, and all that need a key frequency if `ks` is empty. A float64 copy of the
    neurons and a few of the logits; 2 n^3 m multiplications and some 10 + |K| losses.
    """
    table, keys = ReplacementTable(logits, train), sorted(set(ks))
    rows = []
    if neurons is not None and W_L is not None:
        cut = NeuronCuts(table, neurons, W_L)
        if keys:
            rows += cut.key_rows(keys) + cut.control_rows(keys, generator, draws)
        rows.append(cut.no_skip())
    if keys:
        rows += _component_rows(table, keys)
        rows += [_without(table, k) for k in keys]
    return rows


class NeuronCuts:
    """Rows that ablate the neurons on their direct path to the logits."""

    def __init__(self, table: ReplacementTable, neurons: Float[Tensor, "n n m"], W_L: Float[Tensor, "m n"]) -> None:
        self.table, self.neurons, self.W_L = table, neurons.double(), W_L.double()
        self.written = self.neurons @ self.W_L

    def key_rows(self, keys: list[int]) -> list[Row]:
        space = self.space(keys)
        through, rank = self.through(space), space.shape[1]
        uniform = math.log(self.table.logits.shape[0])
        return [
            self.table.of_logits(
                KEY_SPACE,
                self.table.logits - self.written + through,
                f"Neurons keep their component in the {rank} directions that W_L reads out at the key frequencies.",
            ),
            self.table.of_logits(
                NULL_SPACE,
                self.table.logits - through,
                f"Neurons lose these {rank} directions. A uniform guess has loss {uniform:.3g}.",
            ),
        ]

    def control_rows(self, keys: list[int], generator: Generator, draws: int) -> list[Row]:
        """Controls of equal rank: random directions, and directions that W_L reads out at other frequencies.

        In trained networks 60-95 % of the latter is inside the key directions (W_L has nearly the rank of the key rows,
        and a weak row comes mostly from neurons of the key frequencies), so they are made orthogonal to these first.
        """
        space = self.space(keys)
        m, rank = space.shape
        random = [torch.randn(m, rank, generator=generator, dtype=torch.float64) for _ in range(draws)]
        rows = [self._mean_row(RANDOM_SPACE, [_orthonormal(x) for x in random], f"{rank} random directions")]
        n = self.W_L.shape[1]
        if len(keys) < n_frequencies(n):
            chosen = [draw_others(keys, n, len(keys), generator) for _ in range(draws)]
            spaces = [self.space(ks, beside=space) for ks in chosen]
            what = f"the directions of {len(chosen[0])} other frequencies, orthogonal to the key directions"
            rows.append(self._mean_row(OTHER_SPACE, spaces, what))
        return rows

    def no_skip(self) -> Row:
        """Only the neurons' output, and the mean over pairs of the rest: biases and the skip connection's mean."""
        rest = (self.table.logits - self.written).mean(dim=(0, 1))
        says = "The logits are the neurons' output; of everything that bypasses them, only the mean over pairs is kept."
        return self.table.of_logits(NO_SKIP, self.written + rest, says)

    def space(self, ks: Sequence[int], *, beside: Float[Tensor, "m taken"] | None = None) -> Float[Tensor, "m rank"]:
        """An orthonormal basis of the directions that W_L reads out at these frequencies, orthogonal to `beside`."""
        directions = torch.cat([neuron_logit_directions(self.W_L, k) for k in ks], dim=1)
        if beside is not None:
            directions = directions - beside @ (beside.T @ directions)
        return _orthonormal(directions)

    def through(self, space: Float[Tensor, "m rank"]) -> Float[Tensor, "n n n"]:
        """The neurons' output from their component in a subspace."""
        return (self.neurons @ space) @ (space.T @ self.W_L)

    def _mean_row(self, name: str, spaces: list[Tensor], what: str) -> Row:
        cut = [losses(self.table.logits - self.through(space), self.table.train) for space in spaces]
        lowest, highest = min(x.loss for x in cut), max(x.loss for x in cut)
        mean = Losses(*(sum(column) / len(cut) for column in zip(*cut)))
        says = f"A control: neurons lose {what}; mean of {len(cut)} draws, from {lowest:.3g} to {highest:.3g}."
        return self.table.row(name, mean, says)


def key_components(x: Float[Tensor, "n n *rest"], ks: Sequence[int]) -> Float[Tensor, "n n *rest"]:
    """The constant and, for each k, the eight 2-D Fourier components of waves of a, of b, and their products; float64.

    The components are products of a row of `fourier_basis` for a and one for b, both of k or one of them constant.
    Source: Nanda et al. (2023), section 4.4: 40 components for five frequencies, and the constant.
    """
    n = x.shape[0]
    rows = torch.cat([torch.tensor([0]), rows_of_frequencies(ks, n)])
    waves, frequency = fourier_basis(n)[rows].to(x.device), (rows + 1) // 2
    own = (frequency[:, None] == frequency) | (frequency[:, None] == 0) | (frequency == 0)
    of_a = (waves @ x.double().reshape(n, -1)).view(len(rows), n, -1)
    coefficients = (waves @ of_a) * own.to(x.device)[..., None]
    of_b = (waves.T @ coefficients).reshape(len(rows), -1)
    return (waves.T @ of_b).view(x.shape)


def _component_rows(table: ReplacementTable, keys: list[int]) -> list[Row]:
    kept = key_components(table.logits, keys)
    mean = table.logits.mean(dim=(0, 1))
    of = f"the constant and the 2-D Fourier components of {len(keys)} frequencies"
    return [
        table.of_logits(COMPONENTS_KEPT, kept, f"Of the logits, {of} are kept."),
        table.of_logits(
            COMPONENTS_REMOVED,
            table.logits - kept + mean,
            "Of the logits, the others and the constant are kept.",
        ),
    ]


def _without(table: ReplacementTable, k: int) -> Row:
    found = losses(excluded_logits(table.logits, [k]), table.train)
    says = f"The logits lose cos and sin(w(a+b)) of this frequency; the loss changes by {found.loss - table.own:+.3g}."
    return table.row(without(k), found, says)


def _orthonormal(directions: Float[Tensor, "m d"]) -> Float[Tensor, "m rank"]:
    """An orthonormal basis of the columns' span; dependent columns are dropped."""
    U, scale, _ = torch.linalg.svd(directions, full_matrices=False)
    return U[:, scale > 1e-10 * scale.max()]
