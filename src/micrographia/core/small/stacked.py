"""The stacked plan: many small models in one program, each with its own batch, scored at a few positions.

An objective for `training.train`. All members share every product, by a leading member axis; of the last layer, MLP and
unembedding are computed at the scored columns alone. Short sequences only: attention is a product over all pairs of
positions. Loss and gradients agree with the plain forward's to 1e-10 in float64 and 1e-4 in float32; bits differ.
Suffixes: E member, B batch, P pos, C scored column, H head, A d_head, D d_model, M neuron, V vocab.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import BadConfig, BadShape
from micrographia.core.gradients import with_gradients
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.next_token import IGNORED
from micrographia.core.small.transformer import ACTIVATIONS
from micrographia.core.training import Flat, Layout, LossAndGradient


class StackedRows(NamedTuple):
    """Rows of every member: what it reads, and the token wanted at each scored column, or IGNORED."""

    tokens: Int[Tensor, "member batch pos"]
    targets: Int[Tensor, "member batch column"]


StackedBatches = Callable[[int], StackedRows]
"""step -> the rows of that step, the same whenever it is asked for."""


def can_stack(arch: Architecture) -> bool:
    """Whether this plan computes what the plain forward of `arch` computes."""
    plain = arch.norm == "none" and arch.positions == "learned" and not arch.attn_bias and not arch.unembed_bias
    return arch.attention and plain and arch.act != "swiglu"


def stacked_forward(
    arch: Architecture,
    weights: dict[str, Tensor],
    tokens: Int[Tensor, "member batch pos"],
    columns: Sequence[int],
) -> Float[Tensor, "member batch column vocab"]:
    """Logits of every member at these positions. Differentiable; one pass. Raises BadConfig for positions not there."""
    E, _, P = tokens.shape
    if not columns or not all(0 <= column < P for column in columns):
        raise BadConfig(f"Logits at {list(columns)} of {P} positions were asked for. Give some of 0 to {P - 1}.")
    W_E = weights["embed.W_E"]
    offset = torch.arange(E, device=tokens.device)[:, None, None] * arch.d_vocab
    x_EBPD = F.embedding(tokens + offset, W_E.flatten(0, 1)) + weights["pos_embed.W_pos"][:, None, :P]
    for i in range(arch.n_layers):
        at = tuple(columns) if i == arch.n_layers - 1 else tuple(range(P))
        x_EBPD = _at(x_EBPD, at) + _attention(arch, weights, i, x_EBPD, at)
        if arch.mlp:
            x_EBPD = x_EBPD + _mlp(arch, weights, i, x_EBPD)
    W_U = W_E[:, : arch.d_vocab_out].mT if arch.tied else weights["unembed.W_U"]
    return _products(x_EBPD, W_U)


def _at(x_EBPD: Tensor, at: tuple[int, ...]) -> Tensor:
    """These positions; all of them, and one alone, without a copy."""
    if at == tuple(range(x_EBPD.shape[2])):
        return x_EBPD
    return x_EBPD[:, :, at[0] : at[0] + 1] if len(at) == 1 else x_EBPD[:, :, list(at)]


def _attention(arch: Architecture, weights: dict[str, Tensor], i: int, x_EBPD: Tensor, at: tuple[int, ...]) -> Tensor:
    W = {name: weights[f"blocks.{i}.attn.W_{name}"].transpose(1, 2).flatten(2) for name in "QKV"}
    heads = (arch.n_heads, arch.d_head)
    q_EBCHA = _products(_at(x_EBPD, at), W["Q"]).unflatten(-1, heads) * arch.d_head**-0.5
    k_EBPHA, v_EBPHA = _products(x_EBPD, torch.cat([W["K"], W["V"]], 2)).unflatten(-1, (2, *heads)).unbind(3)
    scores_EBCPH = (q_EBCHA[:, :, :, None] * k_EBPHA[:, :, None]).sum(-1)
    if arch.causal:
        places = torch.arange(x_EBPD.shape[2], device=x_EBPD.device)
        ahead = places > places[list(at), None]
        if bool(ahead.any()):
            scores_EBCPH = scores_EBCPH.masked_fill(ahead[..., None], -torch.inf)
    pattern_EBCPH = scores_EBCPH.softmax(3)
    z = (pattern_EBCPH[..., None] * v_EBPHA[:, :, None]).sum(3)
    return _products(z.flatten(3), weights[f"blocks.{i}.attn.W_O"].flatten(1, 2))


def _mlp(arch: Architecture, weights: dict[str, Tensor], i: int, x_EBPD: Tensor) -> Tensor:
    block = f"blocks.{i}.mlp."
    pre = _products(x_EBPD, weights[block + "W_in"], weights.get(block + "b_in"))
    return _products(ACTIVATIONS[arch.act](pre), weights[block + "W_out"], weights.get(block + "b_out"))


def _products(x_EBPI: Tensor, W_EIO: Tensor, b_EO: Tensor | None = None) -> Tensor:
    """x @ W + b of every member, as one batched product over its rows."""
    rows = x_EBPI.flatten(1, 2)
    out = rows @ W_EIO if b_EO is None else torch.baddbmm(b_EO[:, None], rows, W_EIO)
    return out.unflatten(1, x_EBPI.shape[1:3])


class Stacked:
    """Mean cross-entropy of every member over its scored targets, by autograd.

    `columns`: the positions at which anything is scored. Cost per member: three passes over its batch. Raises BadConfig
    for an architecture outside the plan and for columns that the rows lack, BadShape for rows that do not fit.
    """

    def __init__(self, arch: Architecture, batches: StackedBatches, columns: Sequence[int]) -> None:
        if not can_stack(arch):
            raise BadConfig(
                "The stacked plan needs attention with learned positions and no norm, no biases of attention or "
                f"unembedding, and no SwiGLU. Found {arch}. Use `next_token.NextToken`."
            )
        self.arch, self.batches, self.columns = arch, batches, tuple(columns)
        self.layout = Layout(arch.weight_shapes())

    @with_gradients
    def __call__(self, weights: Flat, step: int = 0) -> LossAndGradient:
        tokens, targets = self.batches(step)
        if len(tokens) != len(weights) or targets.shape[2] != len(self.columns):
            raise BadShape(
                f"Rows of {len(tokens)} members with {targets.shape[2]} columns were given, for {len(weights)} "
                f"members' weights and {len(self.columns)} columns. Give as many."
            )
        leaves = {name: view.detach().requires_grad_() for name, view in self.layout.views(weights).items()}
        logits = stacked_forward(self.arch, leaves, tokens, self.columns)
        each = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=IGNORED, reduction="none")
        loss = each.view(len(weights), -1).sum(1) / (targets != IGNORED).flatten(1).sum(1).clamp(min=1)
        found = torch.autograd.grad(loss.sum(), list(leaves.values()))
        return LossAndGradient(loss.detach(), self.layout.join(dict(zip(leaves, found))))
