"""Form: how a dictionary turns its input into latents, apart from its weights.

`ACTIVATIONS` and `NORMALISATIONS` are the tables of what a Form may name; all tools' dictionaries are rows of them.
`p` are the pre-activations (..., latent). Axes: d_in d_out latent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.errors import BadConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How latents are computed: input -> normalised -> less `b_dec` -> pre-activations -> latents."""

    activation: str = "relu"
    """A row of `ACTIVATIONS`."""
    k: int | None = None
    """How many latents of a row are kept: by topk, topk-signed, abstopk and groupmax."""
    subtract_b_dec: bool = True
    """Whether the decoder's bias is subtracted from the input before encoding; never in a transcoder."""
    normalise: str = "none"
    """A row of `NORMALISATIONS`: what is done to the input, and undone on the output."""
    restore: bool = True
    """Whether the output is scaled back; a transcoder's is not."""
    decoder_norms: bool = False
    """Whether latents are in units of their decoder row's norm: p is multiplied by it, decoding divides by it."""
    axes: tuple[int, ...] = ()
    """The sizes of the last axes of input and output that are one here: (heads, d_head), or (layers, d_model)."""
    heads: bool = False
    """Whether its Site has the axes head and d_head, which it reads as one; their sizes are then the activation's."""

    def __post_init__(self) -> None:
        for value, table, what in (
            (self.activation, ACTIVATIONS, "activation"),
            (self.normalise, NORMALISATIONS, "normalisation"),
        ):
            if value not in table:
                raise BadConfig(f"Asked for a dictionary with the {what} {value!r}. There are {', '.join(table)}.")
        if (self.activation in COUNTED) != (self.k is not None):
            need = "needs a k" if self.activation in COUNTED else "has no k"
            raise BadConfig(f"A dictionary with the activation {self.activation!r} {need}. Found k = {self.k}.")
        if self.k is not None and self.k < 1:
            raise BadConfig(f"A dictionary keeps at least one latent of a row. Found k = {self.k}.")


class Gate(NamedTuple):
    """What an activation reads beside p: thresholds (latent,) or 0, and the number of latents that are kept."""

    threshold: Tensor
    k: int = 0


def relu(p: Tensor, gate: Gate) -> Tensor:
    return p.relu()


def tanh_relu(p: Tensor, gate: Gate) -> Tensor:
    return p.relu().tanh()


def jumprelu(p: Tensor, gate: Gate) -> Tensor:
    """ReLU(p) where p is strictly above its threshold (Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 3)."""
    return p.relu() * (p > gate.threshold)


def jump(p: Tensor, gate: Gate) -> Tensor:
    """p where it is above its threshold, also where that is negative: circuit-tracer's reading of JumpReLU."""
    return p * (p > gate.threshold)


def topk(p: Tensor, gate: Gate) -> Tensor:
    """The k largest p of each row, those of them that are positive (Gao et al. 2024, arXiv 2406.04093, section 2.3)."""
    values, at = p.topk(min(gate.k, p.shape[-1]), dim=-1, sorted=False)
    return torch.zeros_like(p).scatter(-1, at, values.relu())


def topk_signed(p: Tensor, gate: Gate) -> Tensor:
    """The k largest p of each row, also those that are negative: circuit-tracer's reading of top-k."""
    values, at = p.topk(min(gate.k, p.shape[-1]), dim=-1, sorted=False)
    return torch.zeros_like(p).scatter(-1, at, values)


def abstopk(p: Tensor, gate: Gate) -> Tensor:
    """The k of each row that are largest in size, with their sign."""
    at = p.abs().topk(min(gate.k, p.shape[-1]), dim=-1, sorted=False).indices
    return torch.zeros_like(p).scatter(-1, at, p.gather(-1, at))


def groupmax(p: Tensor, gate: Gate) -> Tensor:
    """The largest positive p of each of k groups of adjacent latents (sparsify)."""
    groups = p.relu().unflatten(-1, (gate.k, -1))
    values, at = groups.max(-1, keepdim=True)
    return torch.zeros_like(groups).scatter(-1, at, values).flatten(-2)


def gated(p: Tensor, gate: Gate) -> Tensor:
    raise AssertionError("a gated dictionary has two pre-activations: see Dictionary.encode")


ACTIVATIONS: dict[str, Callable[[Tensor, Gate], Tensor]] = {
    "relu": relu,
    "tanh-relu": tanh_relu,
    "jumprelu": jumprelu,
    "jump": jump,
    "topk": topk,
    "topk-signed": topk_signed,
    "abstopk": abstopk,
    "groupmax": groupmax,
    "gated": gated,
}
COUNTED = frozenset({"topk", "topk-signed", "abstopk", "groupmax"})
THRESHOLDED = frozenset({"jumprelu", "jump"})


class Scale(NamedTuple):
    """What was subtracted from a row of the input, what it was then divided by, and what the output is scaled by."""

    centre: Tensor
    divisor: Tensor
    back: Tensor


def layer_norm(x: Tensor) -> Scale:
    """Mean and unbiased standard deviation + 1e-5 of each row; the output is scaled by the deviation alone.

    So do SAELens (6.54) and OpenAI's sparse_autoencoder (model.py): it is no exact inverse.
    """
    centre, deviation = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    return Scale(centre, deviation + 1e-5, deviation)


def constant_norm(x: Tensor) -> Scale:
    """Each row to the norm sqrt(d_in). A row of zeros stays zero (SAELens gives NaN)."""
    norm = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    norm = torch.where(norm == 0, 1.0, norm)
    return Scale(torch.zeros_like(norm), norm, norm)


NORMALISATIONS: dict[str, Callable[[Tensor], Scale] | None] = {
    "none": None,
    "layer-norm": layer_norm,
    "constant-norm": constant_norm,
}
