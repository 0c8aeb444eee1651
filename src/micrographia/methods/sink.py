"""Is position 0 an attention sink? Norms of its residual stream and the attention it gets, measured on the prompts.

In many language models the first position gets much of all attention, whatever is there, and its residual stream has a
norm far above all others, nearly all of it in a few dimensions. Replacing that state breaks the model rather than
removing information. Only what is measured here is told; there is no list of models.
Sources: Xiao et al., "Efficient streaming language models with attention sinks" (2023); Sun et al., "Massive
activations in large language models" (2024).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.model import Model
from micrographia.core.movement import layer_range
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs, ids_of, mask_of

LEAST = 10.0
"""Times the median norm of the other positions from which position 0 stands out. Our choice; Sun et al. find 100s."""
ROWS, LENGTH = 8, 128
"""Prompts, and their first tokens, that are read: a causal model's first positions do not depend on later ones."""
SHORTEST = 4
"""Positions that a median needs."""


class Sink(NamedTuple):
    """What was measured of position 0, where it is a sink; `first` to `last` are the layers in which it stands out."""

    ratio: Float[Tensor, "layer"]
    """Norm of its residual stream before each layer over the median norm of the other positions."""
    first: int
    last: int
    dimension: int
    """The dimension with most of its squared norm, where the ratio is largest."""
    dimension_share: float
    attention: float
    """Its mean share of attention in these layers, from queries in the second half of the prompt."""
    even: float
    """The same were attention even."""

    def as_json(self) -> dict[str, object]:
        return {**self._asdict(), "ratio": self.ratio.tolist()}

    def __str__(self) -> str:
        on = self.last == len(self.ratio) - 1
        layers = f"from layer {self.first} on" if on else f"in {layer_range(self.first, self.last)}"
        return (
            f"Position 0 is an attention sink here: {layers} it has up to {float(self.ratio.max()):.0f} times the "
            f"median norm ({self.dimension_share:.0%} of it in dimension {self.dimension}) and gets "
            f"{self.attention:.2f} of attention (even: {self.even:.2f})."
        )


def find_sink(model: Model, inputs: Inputs) -> Sink | None:
    """The sink at position 0 on these prompts, or None where there is none, or too little text to tell.

    It stands out by `LEAST` in norm and gets more than an even share of attention. One forward pass over the longest
    prompts, at most `ROWS` of `LENGTH` tokens; keeps their residual streams and patterns. Nothing is asked of a
    bidirectional model, or of one without attention.
    """
    patterns = [site for site in model.sites if site.kind == "pattern"]
    ids = _longest(inputs)
    if not model.shape.causal or not patterns or ids.shape[1] < SHORTEST:
        return None
    streams = [Site("resid_pre", layer) for layer in range(model.shape.n_layers)]
    cache = model.run(ids, keep=streams, logits="last").cache
    norms = torch.stack([cache[site].double().norm(dim=-1) for site in streams])  # layer prompt pos
    ratio = norms[..., 0].median(-1).values / norms[..., 1:].flatten(1).median(-1).values
    stands = (ratio >= LEAST).nonzero()[:, 0].tolist()
    if not stands:
        return None
    first, last = _longest_run(stands)
    seen = model.run(ids, keep=[site for site in patterns if first <= (site.layer or 0) <= last], logits="last").cache
    half = ids.shape[1] // 2
    attention = torch.stack([pattern[:, :, half:, 0].double().mean() for pattern in seen.values()]).mean().item()
    even = math.fsum(1 / (1 + i) for i in range(half, ids.shape[1])) / (ids.shape[1] - half)
    squares = cache[streams[int(ratio.argmax())]][:, 0].double().square().mean(0)
    if not attention > even:
        return None
    largest = int(squares.argmax())
    return Sink(
        ratio=ratio,
        first=first,
        last=last,
        dimension=largest,
        dimension_share=float(squares[largest] / squares.sum()),
        attention=attention,
        even=even,
    )


def _longest(inputs: Inputs) -> Int[Tensor, "prompt pos"]:
    """The prompts of greatest length, without their padding."""
    ids, mask = ids_of(inputs), mask_of(inputs)
    if mask is None:
        return ids[:ROWS, :LENGTH]
    lengths = mask.sum(1)
    rows = (lengths == lengths.max()).nonzero()[:ROWS, 0]
    return torch.stack([ids[row][mask[row].bool()] for row in rows])[:, :LENGTH]


def _longest_run(layers: list[int]) -> tuple[int, int]:
    """The ends of the longest run of consecutive layers, the last of equals."""
    runs = [[layers[0]]]
    for layer in layers[1:]:
        runs[-1].append(layer) if layer == runs[-1][-1] + 1 else runs.append([layer])
    longest = max(reversed(runs), key=len)
    return longest[0], longest[-1]
