"""How well do scores of the weights predict the winners, and what decides which frequencies win?

`SCORES` are simple scores of every frequency k = 1 .. n // 2, from one network's weights alone; `curves` holds those of
many networks against their winners. Every interval and every null respects that networks that share an initialisation,
or a split, are not independent. Axes: S score, T checkpoint, N network, K frequency.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int
from numpy import ndarray
from torch import Generator, Tensor

from micrographia.core import intervals
from micrographia.core.basis import fold, fourier_basis, frequency_rows, n_frequencies
from micrographia.labs.grokking.network import NetworkTensors
from micrographia.methods import crossed, ranking
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
COMBINED = "combined"
"""All scores together by logistic regression, fitted on the networks of other initialisations."""


def scores(r: NetworkTensors) -> dict[str, Float[Tensor, "n_frequencies"]]:
    """Every score that the network allows: without neurons only those of embedding and logits. Float64.

    With h a neuron's wave over a + b and g its wave over c, both complex, the direct path writes sum Re(h conj g) of
    cos(w_k(a+b-c)) into the logits, and would write sum |h| |g| if all phases agreed.
    """
    embedding = spectra.embedding_spectrum(r.W_E).frequencies
    found = {"embedding": embedding, "cosine": cubes.cosine_coefficients(r.logits)}
    if r.neurons is None or r.W_L is None:
        return found
    read_out = spectra.neuron_logit_spectrum(r.W_L).frequencies
    h, g = waves(fold(r.neurons)), waves(r.W_L.T)
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


class Data(NamedTuple):
    """The networks that take part. `init`, `split`: which of the seeds; `won`: whether a frequency is key at last."""

    init: Int[ndarray, "N"]
    split: Int[ndarray, "N"]
    won: Bool[ndarray, "N K"]
    checkpoints: list[int]
    names: list[str]
    scores: Float[ndarray, "S T N K"]


def curves(data: Data, *, generator: Generator, permutations: int, resamples: int) -> list[dict[str, Any]]:
    """For every score, and all combined, and every checkpoint t0: area under the ROC curve, the mean over networks.

    With its interval (initialisations resampled) and its null (label permutations). A permutation moves whole
    initialisations and whole splits, so the marginal preference for some frequencies and what networks of one row or
    column have in common stay as they are. p-values are one-sided, the identity counted; `p_best` is that of the best
    score against the best score under the null.
    """
    each = np.concatenate([data.scores, _combined(data)[None]])
    pairwise = ranking.areas(each, data.won)
    own = np.arange(len(data.won))
    area, low, high = intervals.clustered_mean(pairwise[..., own, own], data.init, generator=generator, draws=resamples)
    partners = crossed.partners(data.init, data.split, generator=generator, draws=permutations)
    null = crossed.permuted_means(pairwise, partners[(partners >= 0).any(1)])
    null_low, null_high = np.quantile(null, [0.025, 0.975], axis=-1)
    found = {"area": area, "low": low, "high": high, "null_low": null_low, "null_high": null_high}
    found["p_value"] = _p_value(null, area)
    p_best = _p_value(null.max(0), area.max(0))
    return [
        {"score": name, "t0": t0, **{key: float(x[s, t]) for key, x in found.items()}, "p_best": float(p_best[t])}
        for s, name in enumerate([*data.names, COMBINED])
        for t, t0 in enumerate(data.checkpoints)
    ]


def causes(data: Data, *, generator: Generator, permutations: int, resamples: int) -> dict[str, Any]:
    """How many winners two networks share, and the shares of initialisation and split in deciding who wins."""
    table = data.won, data.init, data.split
    found = crossed.shares(*table)
    low, high = crossed.share_intervals(*table, generator=generator, draws=resamples)
    null = crossed.share_null(*table, generator=generator, draws=permutations)
    null_low, null_high = np.quantile(null, [0.025, 0.975], axis=0)
    size = data.won.sum(1)
    by_chance = np.outer(size, size)[~np.eye(len(size), dtype=bool)].mean() / data.won.shape[1]
    parts = {
        name: {"value": getattr(found, own), "low": getattr(low, own), "high": getattr(high, own)}
        for name, own in PARTS.items()
    }
    for i, name in enumerate(("init", "split")):
        p_value = float(_p_value(null[:, i], np.array(parts[name]["value"])))
        parts[name] |= {"null_low": null_low[i], "null_high": null_high[i], "p_value": p_value}
    return {"shared_by_chance": float(by_chance), **parts}


PARTS = {
    "shared_same_init": "same_row", "shared_same_split": "same_column", "shared_neither": "neither", "winners": "size",
    "init": "row", "split": "column", "rest": "rest",
}  # fmt: skip


def _combined(data: Data) -> Float[ndarray, "T N K"]:
    """Log-odds from all scores together. A network's own initialisation is never among those fitted on."""
    features = np.moveaxis(ranking.standardised(data.scores), 0, -1)  # T N K S
    half = np.unique(data.init, return_inverse=True)[1] % 2 == 0
    found = np.zeros(features.shape[:3])
    for fitted in (half, ~half):
        for t, at in enumerate(features):
            weights = ranking.logistic_weights(at[fitted].reshape(-1, at.shape[-1]), data.won[fitted].ravel())
            found[t, ~fitted] = at[~fitted] @ weights
    return found


def _p_value(null: ndarray, found: ndarray) -> ndarray:
    return (1 + (null >= found[..., None]).sum(-1)) / (1 + null.shape[-1])
