"""The fast plan of a model without attention: many vectors, each added by itself to the residual stream after a layer.

What one neuron adds is one vector, times a number a row. So the next layer's pre-activations are those of the run as it
is plus a multiple of one row, with no product; the norm's divisor is a quadratic in that number; and where the last MLP
wrote, the logits follow at once. Later layers are recomputed in blocks that stay in the cache.
It agrees with `transformer.forward` to 1e-10 in float64 and 1e-4 in float32. With norm: LN(x) W + b = (x W') / s(x) +
b', where W' holds the gain and the centring. Suffixes: S row, B added vector, D d_model, M neuron, V vocab.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import BadConfig
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import ACTIVATIONS, NORM_EPS
from micrographia.core.small.weights import Weights, unembedding

BLOCK = 1024
"""Rows x vectors that go through the layers at once: 256 neurons of each are then 1 MB, which a core's cache holds."""


class Reader(NamedTuple):
    """x -> (x W') / s(x) + b': a norm and the product behind it; s is the deviation of x, its size, or 1."""

    norm: str
    W: Float[Tensor, "d_model out"]
    b: Float[Tensor, "out"]

    def __call__(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row out"]:
        if self.norm == "none":
            return torch.addmm(self.b, x, self.W)
        centred = self.centred(x)
        return (x @ self.W).div_((centred.square().mean(-1, keepdim=True) + NORM_EPS).sqrt_()).add_(self.b)

    def centred(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.norm == "layernorm" else x


class ReadAlong(NamedTuple):
    """What a Reader reads of x + a w for many numbers a, from one product for x and one for w."""

    reader: Reader
    of_x: Tensor
    of_w: Tensor
    square: Tensor
    cross: Tensor
    own: Tensor

    @classmethod
    def of(cls, reader: Reader, x: Float[Tensor, "row d_model"], w: Float[Tensor, "vector d_model"]) -> "ReadAlong":
        x_, w_ = reader.centred(x), reader.centred(w)
        square, own = x_.square().mean(-1), w_.square().mean(-1)
        of_x = x @ reader.W + (reader.b if reader.norm == "none" else 0.0)
        return cls(reader, of_x, w @ reader.W, square, w_ @ x_.T / x.shape[-1], own)

    def at(self, a: Float[Tensor, "vector row"], b: slice) -> Float[Tensor, "vector row out"]:
        """For the vectors in b."""
        read = torch.addcmul(self.of_x, a[..., None], self.of_w[b, None])
        if self.reader.norm == "none":
            return read
        square = self.square + 2 * a * self.cross[b] + a.square() * self.own[b, None]
        scale = square.clamp_(min=0).add_(NORM_EPS).sqrt_()  # rounding takes it below 0 where a w cancels x
        return read.div_(scale[..., None]).add_(self.reader.b)


def supports(arch: Architecture) -> bool:
    """Whether this plan computes what the plain forward of `arch` computes after a layer."""
    return arch.mlp and not arch.attention


class MlpStack:
    """The layers of a model without attention, merged with their norms. Raises BadConfig for one that has any."""

    def __init__(self, arch: Architecture, weights: Weights) -> None:
        if not supports(arch):
            raise BadConfig("The plan of MLPs alone was asked for, of a model with attention. Use the plain forward.")
        self.arch = arch
        self.readers = [self._reader(weights, layer) for layer in range(1, arch.n_layers)]
        self.readers.append(self._merged(weights, "ln_final", unembedding(arch, weights), weights.get("unembed.b_U")))
        self.W_out = [weights[f"blocks.{layer}.mlp.W_out"] for layer in range(arch.n_layers)]
        self.b_out = [weights.get(f"blocks.{layer}.mlp.b_out") for layer in range(arch.n_layers)]

    def _reader(self, weights: Weights, layer: int) -> Reader:
        block = f"blocks.{layer}."
        W, b = weights[f"{block}mlp.W_in"], weights.get(f"{block}mlp.b_in")
        if self.arch.act == "swiglu":
            gate = weights[f"{block}mlp.W_gate"]
            b = None if b is None else torch.cat([torch.zeros_like(b), b])
            W = torch.cat([gate, W], 1)
        return self._merged(weights, f"{block}ln2", W, b)

    def _merged(self, weights: Weights, norm: str, W: Tensor, b: Tensor | None) -> Reader:
        b = W.new_zeros(W.shape[1]) if b is None else b
        if self.arch.norm == "none":
            return Reader(self.arch.norm, W, b)
        merged = weights[f"{norm}.w"][:, None] * W
        if self.arch.norm == "rmsnorm":
            return Reader(self.arch.norm, merged, b)
        return Reader(self.arch.norm, merged - merged.mean(0), weights[f"{norm}.b"] @ W + b)

    def logits_after(
        self,
        layer: int,
        residual: Float[Tensor, "row d_model"],
        amounts: Float[Tensor, "row vector"],
        vectors: Float[Tensor, "vector d_model"],
    ) -> Float[Tensor, "vector row vocab"]:
        """The logits when `amounts[s, b] * vectors[b]` is added to row s of `residual`, the stream after `layer`.

        Cost for each row and vector: no product for the next layer's input, one for its output, two for every layer
        after that, and the unembedding. Memory: the logits, and one block.
        """
        S, B = amounts.shape
        out = residual.new_empty(B, S, self.arch.d_vocab_out)
        at_once = max(1, BLOCK // S)
        for first in range(0, S, BLOCK):
            rows = slice(first, first + BLOCK)
            x_SD, a_BS = residual[rows], amounts[rows].T.contiguous()
            along = ReadAlong.of(self.readers[layer], x_SD, vectors)
            for b in range(0, B, at_once):
                some = slice(b, b + at_once)
                out[some, rows] = self._rest(layer, x_SD, a_BS[some], vectors[some], along.at(a_BS[some], some))
        return out

    def _rest(self, layer: int, x_SD: Tensor, a_BS: Tensor, w_BD: Tensor, read_BSM: Tensor) -> Tensor:
        """The logits, from what the next layer reads."""
        last = self.arch.n_layers - 1
        if layer == last:
            return read_BSM
        x = torch.addcmul(x_SD, a_BS[..., None], w_BD[:, None]).flatten(0, 1)
        pre = read_BSM.flatten(0, 1)
        for i in range(layer + 1, last + 1):
            x.addmm_(self._act(pre), self.W_out[i])
            bias = self.b_out[i]
            x = x if bias is None else x.add_(bias)
            pre = self.readers[i](x)
        return pre.unflatten(0, a_BS.shape)

    def _act(self, pre: Tensor) -> Tensor:
        act = self.arch.act
        if act == "swiglu":
            gate, up = pre.chunk(2, -1)
            return F.silu(gate) * up
        return torch.ops.aten.gelu_(pre) if act == "gelu" else ACTIVATIONS[act](pre)
