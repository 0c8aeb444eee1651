"""Scores of every frequency k = 1 .. n // 2 from one network alone: which ones will it use, or use already?

Functions of embedding, read-out, neurons and logits in cyclic coordinates (`core.basis`); float64. Ours.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from micrographia.core.basis import fold, fourier_basis, frequency_rows, n_frequencies
from micrographia.methods.fourier import cubes, spectra

SCORES = {
    "embedding": "norm of the embedding's waves of frequency k",
    "read_out": "norm of the waves of the neuron-to-logit map",
    "embedding_x_read_out": "the product of these two norms",
    "neurons": "norm, over neurons, of their waves of a+b",
    "potential": "sum over neurons of |wave of a+b| x |wave of c|: what the logits would hold if all phases agreed",
    "alignment": "how far the phases agree: sum of Re(h conj g) over sum of |h| |g|",
    "cosine": "the coefficient of cos(w_k(a+b-c)) in the logits",
}


def frequency_scores(
    logits: Float[Tensor, "n n n"],
    W_E: Float[Tensor, "n d_model"],
    neurons: Float[Tensor, "n n m"] | None = None,
    W_L: Float[Tensor, "m n"] | None = None,
) -> dict[str, Float[Tensor, "n_frequencies"]]:
    """Every score that the network allows: without neurons only those of embedding and logits.

    With h a neuron's wave over a + b and g its wave over c, both complex, the direct path writes sum Re(h conj g) of
    cos(w_k(a+b-c)) into the logits, and would write sum |h| |g| if all phases agreed.
    """
    embedding = spectra.embedding_spectrum(W_E).frequencies
    found = {"embedding": embedding, "cosine": cubes.cosine_coefficients(logits)}
    if neurons is None or W_L is None:
        return found
    read_out = spectra.neuron_logit_spectrum(W_L).frequencies
    h, g = waves(fold(neurons)), waves(W_L.T)
    potential = (h.abs() * g.abs()).sum(1)
    found |= {
        "read_out": read_out,
        "embedding_x_read_out": embedding * read_out,
        "neurons": h.abs().square().sum(1).sqrt(),
        "potential": potential,
        "alignment": (h * g.conj()).real.sum(1) / potential.clamp_min(torch.finfo(potential.dtype).tiny),
    }
    return {name: found[name] for name in SCORES}


def waves(x: Float[Tensor, "n m"]) -> Complex[Tensor, "n_frequencies m"]:
    """cosine + i sine coefficients of every column; Nyquist's has no sine."""
    n = len(x)
    rows = fourier_basis(n).to(x.device) @ x.double()
    places = [frequency_rows(k, n) for k in range(1, n_frequencies(n) + 1)]
    sine = torch.stack([rows[at][1] if at.stop - at.start > 1 else torch.zeros_like(rows[0]) for at in places])
    return torch.complex(rows[[at.start for at in places]], sine)
