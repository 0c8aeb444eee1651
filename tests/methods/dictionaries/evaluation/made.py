"""Small dictionaries and activations for the tests of evaluation."""

from typing import Any

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.runtime import generator

N = 20


def dictionary(
    d: int = 6, n: int = N, seed: int = 0, *, d_out: int | None = None, k: int = 4, **about: Any
) -> Dictionary:
    """A top-k dictionary with random weights, float64; a transcoder with `d_out`."""
    g = generator(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    weights = DictionaryWeights(
        W_enc=draw(d, n), W_dec=draw(n, d_out or d) / 3, b_enc=draw(n), b_dec=draw(d_out or d)
    )  # fmt: skip
    return Dictionary(weights, Form(activation="topk", k=k, subtract_b_dec=d_out is None), About(**about))


def rows(n: int = 50, d: int = 6, seed: int = 1) -> Tensor:
    """Anisotropic, far from the origin."""
    drawn = torch.randn(n, d, generator=generator(seed), dtype=torch.float64)
    return drawn * torch.arange(1, d + 1) + 3


def perfect(directions: Tensor, threshold: float = 0.5) -> Dictionary:
    """One latent for each direction, which must be orthogonal: the truth itself."""
    n, d = directions.shape
    weights = DictionaryWeights(
        W_enc=directions.T.contiguous(), W_dec=directions, b_enc=torch.zeros(n), b_dec=torch.zeros(d),
        threshold=torch.full((n,), threshold),
    )  # fmt: skip
    return Dictionary(weights, Form(activation="jumprelu", subtract_b_dec=False))
