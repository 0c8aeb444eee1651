"""The rarely firing latents of a dictionary, and the direction that their encoders share.

In the one-layer autoencoders of 2023 more than half of the latents fired less than once in 10,000 tokens, and nearly
all of those had one encoder direction, though not one decoder direction, the same in two autoencoders. Whether that is
so is a question of cosines with a mean, so it is asked of common latents and of random directions too: a mean has
cosines with its own members by chance.
Source: Nanda (2023), code 1L-Sparse-Autoencoder; nostalgebraist's comment there on enc . dec.
Axes: latent d_in.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadShape

RARE = 1e-4  # firings a token; the published cut
ALIGNED = 0.95  # the published cosine


class RareCluster(NamedTuple):
    """The latents that fire rarely, and how all latents lie to the mean of the rare ones' encoder columns."""

    rare: Bool[Tensor, "latent"]
    direction: Float[Tensor, "d_in"]
    """Their mean encoder column, of length 1; NaN where there is none."""
    encoder: Float[Tensor, "latent"]
    """The cosine of every encoder column with it."""
    decoder: Float[Tensor, "latent"]
    """The cosine of every decoder row with the mean decoder row of the rare ones."""

    @property
    def share(self) -> float:
        """Of all latents."""
        return float(self.rare.double().mean())

    def aligned(self, *, rare: bool = True, decoder: bool = False, cut: float = ALIGNED) -> float:
        """The share of the rare latents, or of the others, whose cosine is above `cut`. NaN of fewer than two."""
        cosine = (self.decoder if decoder else self.encoder)[self.rare if rare else ~self.rare]
        return float((cosine > cut).double().mean()) if len(cosine) > 1 else math.nan


def rare_cluster(dictionary: Dictionary, frequency: Float[Tensor, "latent"], *, cut: float = RARE) -> RareCluster:
    """The latents below `cut` firings a token, and the cosines with their mean direction. Two passes over the weights.

    Latents that never fired are among them, as published. Raises BadShape for frequencies of another dictionary.
    """
    if len(frequency) != dictionary.n_latents:
        raise BadShape(f"{len(frequency)} frequencies were given for {dictionary.n_latents} latents. Give one each.")
    w = dictionary.weights
    rare = frequency < cut
    encoder, direction = cosines_with_mean(w.W_enc.T, rare)
    decoder, _ = cosines_with_mean(w.W_dec, rare)
    return RareCluster(rare, direction, encoder, decoder)


def cosines_with_mean(
    rows: Float[Tensor, "row d"], of: Bool[Tensor, "row"]
) -> tuple[Float[Tensor, "row"], Float[Tensor, "d"]]:
    """The cosine of every row with the mean of some of them, and that mean at length 1, both in float64."""
    wide = rows.double()
    mean = wide[of].mean(0)
    direction = mean / mean.norm()
    return (wide @ direction) / wide.norm(dim=1), direction


def control_cosines(
    rows: Float[Tensor, "row d"], n: int, generator: Generator
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """The same figure for as many others: n of these rows drawn at random, and n Gaussian ones, each with its mean.

    What an alignment of n rare latents has to exceed: rows may share a direction without being rare, and n vectors have
    cosines of about n^-1/2 with their own mean. Where there are fewer than n rows, all are taken.
    """
    n = min(n, len(rows))
    drawn = rows[torch.randperm(len(rows), generator=generator)[:n].to(rows.device)]
    noise = torch.randn(n, rows.shape[1], generator=generator)
    everyone = torch.ones(n, dtype=torch.bool)
    return cosines_with_mean(drawn, everyone.to(rows.device))[0], cosines_with_mean(noise, everyone)[0]


class TwoClusters(NamedTuple):
    """The rare latents of two dictionaries of one site, side by side."""

    directions: float
    """The cosine of the two mean directions of rare encoder columns."""
    common: float
    """The same of the common ones: what two dictionaries of one site share anyway."""
    to_common: Float[Tensor, "rare"]
    """Of each rare encoder column of the first, the largest cosine with a common one of the second."""
    healthy_to_common: Float[Tensor, "latent"]
    """The same of the first's common ones: whether latents recur at all."""


def compare(one: Dictionary, other: Dictionary, a: RareCluster, b: RareCluster) -> TwoClusters:
    """Whether two dictionaries share the rare direction. Cost: a product of their encoders (latent^2 d_in)."""
    _, common_a = cosines_with_mean(one.weights.W_enc.T, ~a.rare)
    _, common_b = cosines_with_mean(other.weights.W_enc.T, ~b.rare)
    columns = _unit(one.weights.W_enc.T)
    nearest = _largest(columns, _unit(other.weights.W_enc.T[~b.rare]))
    return TwoClusters(float(a.direction @ b.direction), float(common_a @ common_b), nearest[a.rare], nearest[~a.rare])


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def _largest(rows: Tensor, others: Tensor) -> Tensor:
    """The largest product of each row with any of the others; NaN where there are none."""
    if not len(others):
        return torch.full((len(rows),), torch.nan, dtype=rows.dtype, device=rows.device)
    return torch.cat([(part @ others.T).amax(1) for part in rows.split(1024)])


class EncoderDecoder(NamedTuple):
    """How a latent's two directions lie to each other."""

    cosine: Float[Tensor, "latent"]
    projection: Float[Tensor, "latent"]
    """Encoder column times decoder row: about 1 where a latent, alone, gives back what it reads."""


def encoder_decoder(dictionary: Dictionary) -> EncoderDecoder:
    """Cosine and product of each encoder column with its decoder row. Raises BadShape where their widths differ."""
    w = dictionary.weights
    if dictionary.d_in != dictionary.d_out:
        raise BadShape(
            f"Encoder columns of {dictionary.d_in} entries have no cosine with decoder rows of {dictionary.d_out}."
        )
    product = torch.einsum("dl,ld->l", w.W_enc, w.W_dec)
    return EncoderDecoder(product / (w.W_enc.norm(dim=0) * w.W_dec.norm(dim=1)), product)


def sensitivity(
    dictionary: Dictionary, frequency: Float[Tensor, "latent"], cuts: list[float]
) -> list[tuple[float, float, float]]:
    """For each cut of rarity: the cut, the share of rare latents, and of those the share that is aligned."""
    found = [(cut, rare_cluster(dictionary, frequency, cut=cut)) for cut in cuts]
    return [(cut, each.share, each.aligned()) for cut, each in found]
