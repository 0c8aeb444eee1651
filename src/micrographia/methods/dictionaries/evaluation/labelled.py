"""Labelled activations: what probing, absorption, TPP and SCR read, from activations in hand or from rows of tokens.

A row is one example: its activation (of one token, or the mean over its tokens that count), its latents pooled alike,
and its label. Pooled latents decode to the pooled output up to the biases, so that ablating a latent is linear:
x - latent * decoder row. Axes: row d latent.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadShape, UserError
from micrographia.core.events import Watch, silent
from micrographia.core.model import Model
from micrographia.core.sites import SiteLike
from micrographia.methods.dictionaries.evaluation.reading import (
    Activity,
    Counted,
    check_width,
    coded,
    counted_by,
    place_for,
    read_blocks,
)


class Examples(NamedTuple):
    """Activations and latents of labelled examples."""

    x: Float[Tensor, "row d"]
    latents: Float[Tensor, "row latent"]
    labels: Int[Tensor, "row"]

    def rows(self, which: Tensor) -> "Examples":
        return Examples(self.x[which], self.latents[which], self.labels[which])

    def split(self, share: float, generator: Generator) -> tuple["Examples", "Examples"]:
        """Training and test examples: `share` of each label's rows, drawn at random, and the others."""
        train = []
        for label in self.labels.unique():
            own = (self.labels == label).nonzero()[:, 0]
            order = own[torch.randperm(len(own), generator=generator)]
            train.append(order[: max(1, round(share * len(own)))])
        chosen = torch.zeros(len(self.labels), dtype=torch.bool)
        chosen[torch.cat(train)] = True
        return self.rows(chosen), self.rows(~chosen)


def examples_of(dictionary: Dictionary, x: Tensor, labels: Tensor) -> Examples:
    """Examples of one token each, from activations (row, *d_in) and labels (row,) in hand. Latents are held dense."""
    labels = _checked(labels, len(x))
    check_width(dictionary, Activity(x, x if dictionary.d_in == dictionary.d_out else torch.empty(1, dictionary.d_out)))
    latents = torch.cat([piece.latents.cpu() for piece in coded(dictionary, x)])
    return Examples(x.flatten(1).cpu(), latents, labels)


def pooled_examples(
    dictionary: Dictionary,
    model: Model,
    rows: Any,
    labels: Tensor,
    site: SiteLike | None = None,
    *,
    counted: Counted | None = None,
    watch: Watch = silent,
) -> Examples:
    """Examples of whole texts: mean over the tokens of each row that count, of activations and of latents.

    One run of the rows up to the Site; rows x (d + latents) numbers. Raises UserError for a row without such a token.
    """
    place = place_for(dictionary, model, site)
    counted = counted_by(model, rows) if counted is None else counted
    xs, fs = [], []
    for block in read_blocks(model, [place.read], rows, counted, watch=watch, stage="labelled texts"):
        n = block.counted.sum(1)
        if not bool((n > 0).all()):
            empty = int((n == 0).nonzero()[0, 0]) + block.first
            raise UserError(f"Row {empty} has no token that counts ({counted}). Give longer texts, or skip_first=0.")
        row = block.counted.nonzero()[:, 0]
        x = block.at(place.read)
        f = torch.cat([piece.latents.cpu() for piece in coded(dictionary, x)])
        xs.append(_means(x.flatten(1).float().cpu(), row.cpu(), n.cpu()))
        fs.append(_means(f.float(), row.cpu(), n.cpu()))
    x = torch.cat(xs)
    return Examples(x, torch.cat(fs), _checked(labels, len(x)))


def _means(values: Tensor, row: Tensor, n: Tensor) -> Tensor:
    return values.new_zeros(len(n), values.shape[1]).index_add(0, row, values) / n[:, None]


def _checked(labels: Tensor, n: int) -> Int[Tensor, "row"]:
    if labels.shape != (n,):
        raise BadShape(f"A label for each of {n} examples was expected. Found labels of shape {tuple(labels.shape)}.")
    return labels.long().cpu()


def decoder_of(dictionary: Dictionary) -> Float[Tensor, "latent d"]:
    """What a unit of each latent adds to the output."""
    if dictionary.d_in != dictionary.d_out:
        raise BadShape(
            f"Decoder rows were asked for in the space that the dictionary reads. Found {dictionary!r}, which writes "
            "elsewhere. Take an autoencoder."
        )
    return dictionary.decoder.detach().cpu().double()
