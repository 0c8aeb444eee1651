"""Networks trained in a second, for the tests of `analyse` to share, and how others would write them down."""

import functools
from typing import NamedTuple

import jaxtyping
import torch
from torch import Generator, Tensor

from micrographia.core.small.architecture import Architecture
from micrographia.core.small.ensemble import PlainObjective
from micrographia.core.small.last_position import LastPosition, supports
from micrographia.core.small.weights import init_weights
from micrographia.core.training import AdamW, Layout, fresh_state, train
from micrographia.labs.grokking.task import SPLITS, all_rows

FRACTION = 0.5


class Trained(NamedTuple):
    arch: Architecture
    weights: dict[str, Tensor]
    modulus: int
    operation: str
    train: Tensor


@functools.cache
def trained(
    p: int = 13,
    operation: str = "add",
    *,
    act: str = "relu",
    split: str = "shuffle",
    seed: int = 0,
    steps: int = 200,
    fraction: float = FRACTION,
    answers: int | None = None,
) -> Trained:
    """By default a network that has memorised its pairs and begun to rest against weight decay."""
    arch = Architecture(
        d_vocab=p + 1, d_vocab_out=answers or p + 1, n_ctx=3, d_model=32, n_heads=2, d_head=16, d_mlp=64, act=act
    )
    tokens, labels = all_rows(p, operation)
    mask = SPLITS[split](p * p, fraction, seed)
    plan = (LastPosition if supports(arch) else PlainObjective)(arch, tokens[mask][None], labels[mask][None])
    layout = Layout(arch.weight_shapes())
    state = fresh_state(layout.pack([init_weights(arch, Generator().manual_seed(seed))]))
    jaxtyping.config.update("jaxtyping_disable", True)  # checked long since; here they cost more than a step
    try:
        states = [state, *(after for after, _ in train(state, plan, AdamW(lr=3e-3, weight_decay=2.0), steps=steps))]
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return Trained(
        arch, {name: x.clone() for name, x in layout.member(states[-1].weights, 0).items()}, p, operation, mask
    )


def as_paper(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the code published with Nanda et al. (2023) saves them: every matrix (out, in), mask buffers too."""
    turned = {
        **dict.fromkeys(("W_E", "W_in", "W_out"), lambda x: x.T),
        **dict.fromkeys(("W_Q", "W_K", "W_V"), lambda x: x.transpose(1, 2)),
        "W_O": lambda x: x.permute(2, 0, 1).flatten(1),
    }
    state = {name: turned.get(name.rpartition(".")[2], lambda x: x)(x).contiguous() for name, x in weights.items()}
    return state | {"blocks.0.attn.mask": torch.ones(3, 3).tril()}


def as_lens(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As TransformerLens saves them: biases of zero and buffers too."""
    H, D, E = weights["blocks.0.attn.W_Q"].shape
    zeros = {f"blocks.0.attn.b_{x}": torch.zeros(H, E) for x in "QKV"} | {"blocks.0.attn.b_O": torch.zeros(D)}
    zeros |= {"unembed.b_U": torch.zeros(weights["unembed.W_U"].shape[1])}
    buffers = {"mask": torch.zeros(0, 0, dtype=torch.bool), "IGNORE": torch.tensor(-torch.inf)}
    return {**weights, **zeros, **{f"blocks.0.attn.{name}": x for name, x in buffers.items()}}
