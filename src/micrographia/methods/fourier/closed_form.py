"""The trig algorithm of a network in closed form: frequencies, amplitudes, phases, as numbers and as sentences.

`read_algorithm` fits frequencies, amplitudes and phases, `sentences` describes them, `closed_form_table` computes the
logits. Logits are `logits[a, b, c]`, neurons `neurons[a, b, m]` at the last position, W_L the direct map from neurons
to logits with rows centred over c.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 3.1.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.basis import cube_coefficients, fold, fourier_basis, frequency_rows, table_difference
from micrographia.methods.fourier.activations import neuron_clusters
from micrographia.methods.fourier.cubes import centred_energy

PHASE_SHOWN = 0.5
"""Degrees: a smaller phase is printed, and computed, as 0."""


MULTIPLY = (
    "multiply these waves: cos(w a) cos(w b) - sin(w a) sin(w b) = cos(w(a+b)) and "
    "sin(w a) cos(w b) + cos(w a) sin(w b) = sin(w(a+b))."
)
ADD_FIRST = (
    "cos(w a) + cos(w b) = 2 cos(w(a-b)/2) cos(w(a+b)/2) and sin(w a) + sin(w b) = 2 cos(w(a-b)/2) sin(w(a+b)/2)"
)
DOUBLE = "Neurons double that angle: |cos(w(a-b)/2)| cos(w(a+b)) and |cos(w(a-b)/2)| sin(w(a+b))."
MECHANISMS = {  # Zhong et al. (2023), sections 2 and 3
    "clock": [f"Attention and neurons {MULTIPLY}"],
    "pizza": [f"Pizza: the embeddings are added first, {ADD_FIRST}.", DOUBLE],
    "between": [
        f"Between clock and pizza. As in a clock, attention and neurons {MULTIPLY}",
        f"As in a pizza, the embeddings are added first, {ADD_FIRST}. {DOUBLE}",
    ],
}


class Wave(NamedTuple):
    """One term A cos(w_k(a + b - c) - phase) of the logits."""

    k: int
    amplitude: float
    """In logits: half the distance from crest to trough."""
    phase: float
    """Radians; 0 where the logits peak at the right answer."""
    share: float
    """Fraction of the row-centred logits' energy."""
    through_neurons: float
    """Fraction of the amplitude written directly by the neurons (the rest bypasses them); NaN without neurons."""
    own_neurons: int
    """Number of neurons with more than 85 % of their variance explained by k; 0 without neurons."""


class Algorithm(NamedTuple):
    """The part of a network for addition mod `n` that cosines of its key frequencies describe."""

    n: int
    waves: tuple[Wave, ...]
    share: float
    """Fraction of the row-centred logits' energy in all the waves together."""
    n_neurons: int


def read_algorithm(
    logits: Float[Tensor, "n n n"],
    ks: Sequence[int],
    *,
    neurons: Float[Tensor, "n n m"] | None = None,
    W_L: Float[Tensor, "m n"] | None = None,
) -> Algorithm:
    """Amplitude and phase of each key frequency's cube, and the number of its neurons. Cost: `neuron_clusters`.

    Least squares: the cubes cos and sin(w_k(a + b - c)) are orthogonal. The trig algorithm has no sine part; a network
    with one peaks beside the right answer, as its phase shows.
    """
    n = logits.shape[0]
    clusters = None if neurons is None else neuron_clusters(neurons)
    whole, energy = cube_coefficients(logits), centred_energy(logits).item()
    written = None
    if neurons is not None and W_L is not None:
        written = n * (fourier_basis(n).to(logits.device) @ table_difference(fold(neurons) @ W_L.double()))
    waves = []
    for k in sorted(set(ks)):
        cosine, sine = whole.cosine[k - 1].item(), whole.sine[k - 1].item() if 2 * k < n else 0.0
        norm = math.hypot(cosine, sine)
        waves.append(
            Wave(
                k=k,
                amplitude=norm * cube_height(k, n),
                phase=math.atan2(sine, cosine),
                share=norm**2 / energy if energy else math.nan,
                through_neurons=math.nan if written is None else _along(written[frequency_rows(k, n)], cosine, sine),
                own_neurons=0 if clusters is None else int((clusters.clustered & (clusters.frequency == k)).sum()),
            )
        )
    return Algorithm(n, tuple(waves), sum(wave.share for wave in waves), 0 if neurons is None else neurons.shape[2])


def cube_height(k: int, n: int) -> float:
    """The amplitude of the cube cos(w_k(a + b - c)) with norm 1 over n^3 entries; at Nyquist all entries are +-1."""
    return math.sqrt((1 if 2 * k == n else 2) / n**3)


def as_printed(algorithm: Algorithm) -> Algorithm:
    """The algorithm rounded as `sentences` prints it: amplitudes to three digits, phases to a degree."""
    waves = [
        wave._replace(amplitude=float(f"{wave.amplitude:.3g}"), phase=math.radians(phase_degrees(wave.phase)))
        for wave in algorithm.waves
    ]
    return algorithm._replace(waves=tuple(waves))


def sentences(
    algorithm: Algorithm, modulus_name: str, *, mechanism: str | None = None, formula: Sequence[str] = ()
) -> list[str]:
    """The algorithm in plain words, embedding to logits. a, b and c are in cyclic coordinates (`core.basis`).

    `modulus_name`: the text after "mod", such as "113". `mechanism`: clock, pizza or between, as `clock_pizza` tells;
    None is told as a clock. `formula`: what is said of the terms with a - b in them, of a pizza or between
    (`distance.formula`).
    """
    if not algorithm.waves:
        return ["No key frequency was found, so there is no closed form."]
    ks = ", ".join(str(wave.k) for wave in algorithm.waves)
    half = f" For k = {algorithm.n // 2} there is no sine: cos(w x) is +1 for even x and -1 for odd."
    terms = "This term holds" if len(algorithm.waves) == 1 else f"These {len(algorithm.waves)} terms hold"
    waves = f"each number x becomes cos(w x) and sin(w x), with w = 2 pi k / {algorithm.n} for k = {ks}."
    said = [
        f"Embedding: {waves}{half if any(2 * wave.k == algorithm.n for wave in algorithm.waves) else ''}",
        *MECHANISMS[mechanism or "clock"],
        "Read-out: cos(w(a+b)) cos(w c) + sin(w(a+b)) sin(w c) = cos(w(a+b-c)), which is largest where "
        f"c = a + b mod {modulus_name}; several k together make this c the only maximum.",
        f"Closed form{', averaged over a - b' if formula else ''}: logit(c) = {_formula(algorithm)}.",
        f"{terms} {algorithm.share:.1%} of the logits' variance over c.",
        *formula,
    ]
    if algorithm.n_neurons:
        own = ", ".join(f"{wave.own_neurons} for k = {wave.k}" for wave in algorithm.waves)
        said.insert(
            1 + len(MECHANISMS[mechanism or "clock"]),
            f"Of {algorithm.n_neurons} neurons, these respond to a single frequency (above 85 %): {own}.",
        )
    through = [wave.through_neurons for wave in algorithm.waves if not math.isnan(wave.through_neurons)]
    if through:
        part = f"{min(through):.0%}" if len(through) == 1 else f"{min(through):.0%} to {max(through):.0%}"
        said.append(f"The neurons write {part} of each term's amplitude directly; the rest bypasses them.")
    return said


def closed_form_table(algorithm: Algorithm) -> Float[Tensor, "n n"]:
    """sum_k A_k cos(w_k(s - c) - phase_k) for every s = a + b and c: unfolded, the logits. O(n^2); float64."""
    n = algorithm.n
    d = torch.arange(n)
    along = torch.zeros(n, dtype=torch.float64)
    for wave in algorithm.waves:
        along += wave.amplitude * (2 * math.pi / n * (wave.k * d % n).double() - wave.phase).cos()
    return along[(d[:, None] - d) % n]


def _along(written: Float[Tensor, "waves"], cosine: float, sine: float) -> float:
    """The fraction of the wave (cosine, sine) that the neurons write: the projection on its direction."""
    parts = [*written.tolist(), 0.0]
    norm = cosine**2 + sine**2
    return (parts[0] * cosine + parts[1] * sine) / norm if norm else math.nan


def phase_degrees(phase: float) -> int:
    """A phase in degrees as printed."""
    degrees = math.degrees(phase)
    return round(degrees) if abs(degrees) >= PHASE_SHOWN else 0


def phase_text(degrees: int) -> str:
    """What is subtracted in a formula, with its sign; nothing for 0."""
    return f" {'-' if degrees > 0 else '+'} {abs(degrees)} deg" if degrees else ""


def _formula(algorithm: Algorithm) -> str:
    return " + ".join(
        f"{wave.amplitude:.3g} cos(2 pi {wave.k} (a+b-c) / {algorithm.n}{phase_text(phase_degrees(wave.phase))})"
        for wave in algorithm.waves
    )
