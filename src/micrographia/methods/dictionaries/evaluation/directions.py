"""The directions of a dictionary: encoder against decoder, decoder rows against one another, norms.

Decoder rows that point alike split or repeat a feature. The mean of each row's largest cosine is read beside that of as
many random directions in as many dimensions, which it has by chance. Axes: latent d.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary

ROWS, AT_ONCE = 4096, 512
"""Rows that are compared with all others, evenly spaced, and how many at once."""


class Directions(NamedTuple):
    """Of the weights alone."""

    encoder_decoder_cosine: float
    """The mean over latents; NaN of a transcoder whose sides differ in width."""
    max_decoder_cosine: float
    """The mean over decoder rows of the largest cosine with another row."""
    max_decoder_cosine_random: float
    """The same for random directions, as many in as many dimensions."""
    max_encoder_cosine: float
    decoder_norm: float
    encoder_norm: float
    encoder_bias: float
    """The mean of b_enc; NaN for a gated dictionary."""
    n_compared: int


def directions(dictionary: Dictionary, generator: Generator, *, rows: int = ROWS) -> Directions:
    """2 rows n_latents d FLOPs for each of three comparisons; `AT_ONCE` x n_latents numbers at once."""
    w = dictionary.weights
    encoder, decoder = w.W_enc.T.float(), w.W_dec.float()
    drawn = torch.randn(tuple(decoder.shape), generator=generator).to(decoder)
    same = encoder.shape == decoder.shape
    return Directions(
        encoder_decoder_cosine=float(torch.cosine_similarity(encoder, decoder).mean()) if same else float("nan"),
        max_decoder_cosine=mean_max_cosine(decoder, rows),
        max_decoder_cosine_random=mean_max_cosine(drawn, rows),
        max_encoder_cosine=mean_max_cosine(encoder, rows),
        decoder_norm=float(decoder.norm(dim=1).mean()),
        encoder_norm=float(encoder.norm(dim=1).mean()),
        encoder_bias=float("nan") if w.b_enc is None else float(w.b_enc.float().mean()),
        n_compared=min(rows, len(decoder)),
    )


def mean_max_cosine(vectors: Float[Tensor, "n d"], rows: int = ROWS) -> float:
    """The mean over `rows` of the vectors, evenly spaced, of the largest cosine with another; NaN for one alone."""
    if len(vectors) < 2:
        return float("nan")
    unit = torch.nn.functional.normalize(vectors, dim=1)
    chosen = torch.linspace(0, len(unit) - 1, min(rows, len(unit)), dtype=torch.float64).round().long()
    found = []
    for some in chosen.split(AT_ONCE):
        cosines = unit[some] @ unit.T
        cosines[torch.arange(len(some)), some] = -2.0
        found.append(cosines.amax(1))
    return float(torch.cat(found).double().mean())
