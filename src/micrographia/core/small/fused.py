"""The fused forward pass: logits at every position, without Sites, for training on sequences.

The same function of weights and tokens as `transformer.forward`, by torch's fused norm and attention and one product
for queries, keys and values. Its logits and gradients agree with the plain plan's to 1e-10 in float64 and 1e-4 in
float32; bit-equality holds within one plan only. Suffixes as in `transformer`.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from micrographia.core.errors import BadConfig
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import ACTIVATIONS, NORM_EPS, rotate
from micrographia.core.small.weights import Weights, unembedding


def fused_forward(
    arch: Architecture, weights: Weights, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos vocab"]:
    """Logits at every position; one pass, 2 FLOPs per weight and position. Differentiable.

    On an accelerator attention is computed unfused, since its fused backward pass is not deterministic there.
    """
    if not arch.attention:
        raise BadConfig("The fused plan was asked for, but this model has no attention. Use the plain forward.")
    x_BPD = weights["embed.W_E"][tokens]
    if arch.positions == "learned":
        x_BPD = x_BPD + weights["pos_embed.W_pos"][: tokens.shape[1]]
    with nullcontext() if tokens.device.type == "cpu" else sdpa_kernel(SDPBackend.MATH):
        for i in range(arch.n_layers):
            x_BPD = x_BPD + _attention(arch, weights, i, x_BPD)
            if arch.mlp:
                x_BPD = x_BPD + _mlp(arch, weights, i, x_BPD)
    return _affine(_norm(arch, weights, "ln_final", x_BPD), unembedding(arch, weights), weights.get("unembed.b_U"))


def _attention(arch: Architecture, weights: Weights, i: int, x_BPD: Tensor) -> Tensor:
    block, (H, E) = f"blocks.{i}.attn.", (arch.n_heads, arch.d_head)
    y = _norm(arch, weights, f"blocks.{i}.ln1", x_BPD)
    W = torch.cat([weights[f"{block}W_{x}"] for x in "QKV"]).transpose(0, 1).flatten(1)
    b = torch.cat([weights[f"{block}b_{x}"] for x in "QKV"]).flatten() if arch.attn_bias else None
    q, k, v = _affine(y, W, b).unflatten(-1, (3, H, E)).unbind(2)
    if arch.positions == "rotary":
        q, k = rotate(q), rotate(k)
    z = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=arch.causal)
    return _affine(z.transpose(1, 2).flatten(2), weights[f"{block}W_O"].flatten(0, 1), weights.get(f"{block}b_O"))


def _mlp(arch: Architecture, weights: Weights, i: int, x_BPD: Tensor) -> Tensor:
    block = f"blocks.{i}.mlp."
    y = _norm(arch, weights, f"blocks.{i}.ln2", x_BPD)
    pre = _affine(y, weights[block + "W_in"], weights.get(block + "b_in"))
    h = pre * F.silu(y @ weights[block + "W_gate"]) if arch.act == "swiglu" else ACTIVATIONS[arch.act](pre)
    return _affine(h, weights[block + "W_out"], weights.get(block + "b_out"))


def _affine(x_BPI: Tensor, W_IO: Tensor, b_O: Tensor | None) -> Tensor:
    """x @ W + b as one product over all rows."""
    rows = x_BPI.flatten(0, -2)
    out = rows @ W_IO if b_O is None else torch.addmm(b_O, rows, W_IO)
    return out.unflatten(0, x_BPI.shape[:-1])


def _norm(arch: Architecture, weights: Weights, name: str, x: Tensor) -> Tensor:
    if arch.norm == "none":
        return x
    if arch.norm == "rmsnorm":
        return F.rms_norm(x, x.shape[-1:], weights[name + ".w"], NORM_EPS)
    return F.layer_norm(x, x.shape[-1:], weights[name + ".w"], weights[name + ".b"], NORM_EPS)
