"""One network, run once on all pairs and brought into the coordinates in which its task is addition mod n.

This is all that the measures see: logits, last-position neurons, attention and weights in cyclic order. With a final
norm the neurons are divided by its scale and the map to the logits takes its gain, so that the neurons write
`neurons @ W_L` directly to the logits in every architecture; those of several layers stand side by side.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.basis import Characters, characters, pairs_to_cyclic, to_cyclic
from micrographia.core.edits import Edit
from micrographia.core.model import Tap
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import forward
from micrographia.core.small.weights import unembedding
from micrographia.labs.grokking.task import all_rows

Weights = Mapping[str, Tensor]


class Task(NamedTuple):
    """What the network was asked: the operation, and which pairs it saw (None: not known)."""

    modulus: int
    operation: str
    train: Bool[Tensor, "pairs"] | None


class Reading(NamedTuple):
    """n is the order of the group: p, or p - 1 for multiplication. Without an MLP or attention its parts are None."""

    logits: Float[Tensor, "n n n"]
    train: Bool[Tensor, "n n"] | None
    neurons: Float[Tensor, "n n m"] | None
    W_L: Float[Tensor, "m n"] | None
    pattern: Float[Tensor, "n n head key"] | None
    """Attention of the last position in the first layer, to a, b and "="; b too in the order of a's residues."""
    W_E: Float[Tensor, "n d_model"]
    answers: Float[Tensor, "pairs p"]
    """Logits of the p residues at all p * p pairs, in the order of the task's rows; zeros of a product included."""
    labels: Int[Tensor, "pairs"]
    seen: Bool[Tensor, "pairs"] | None
    """The split, in that order."""


def cyclic(task: Task) -> Characters:
    """The coordinates of the task; for an operation without any, those of addition, which then claim nothing."""
    found = characters(task.operation, task.modulus)
    if found is not None:
        return found
    plain = characters("add", task.modulus)
    assert plain is not None
    return plain


def read(arch: Architecture, weights: Weights, task: Task) -> Reading:
    """Run all pairs and keep what the measures need. One forward; about 0.25 GB at p = 113."""
    tokens, labels = all_rows(task.modulus, task.operation)
    layers = range(arch.n_layers)
    keep = [Site("neurons", i) for i in layers if arch.mlp] + ([Site("pattern", 0)] if arch.attention else [])
    normed = arch.norm != "none"
    tap = Tap([*keep, *([Site("final_norm_scale")] if normed else [])])
    logits = _last_logits(arch, weights, tokens, tap)
    cache = tap.finish()
    order = cyclic(task)
    square = (task.modulus, task.modulus)
    neurons = None
    if arch.mlp:
        flat = torch.cat([cache[Site("neurons", i)][:, -1] for i in layers], 1)
        if normed:
            flat = flat / cache[Site("final_norm_scale")][:, -1]
        neurons = pairs_to_cyclic(flat.unflatten(0, square), order)
    pattern = None
    if arch.attention:
        by_tokens = cache[Site("pattern", 0)][:, :, -1].unflatten(0, square)
        pattern = by_tokens[order.left[:, None], order.left]
    return Reading(
        logits=to_cyclic(logits, order),
        train=None if task.train is None else pairs_to_cyclic(task.train.unflatten(0, square), order),
        neurons=neurons,
        W_L=neuron_to_logits(arch, weights, order.out) if arch.mlp else None,
        pattern=pattern,
        W_E=weights["embed.W_E"][order.left],
        answers=logits[:, : task.modulus],
        labels=labels,
        seen=task.train,
    )


def logits_of(arch: Architecture, weights: Weights, task: Task, *, edits: tuple[Edit, ...] = ()) -> Tensor:
    """Cyclic logits alone, (n, n, n): what an edited network answers."""
    tokens, _ = all_rows(task.modulus, task.operation)
    return to_cyclic(_last_logits(arch, weights, tokens, Tap((), edits)), cyclic(task))


@torch.no_grad()
def _last_logits(arch: Architecture, weights: Weights, tokens: Tensor, tap: Tap) -> Float[Tensor, "pairs vocab"]:
    logits = forward(arch, weights, tokens, tap=tap, last=True)
    return logits[:, -1]


def neuron_to_logits(arch: Architecture, weights: Weights, out: Int[Tensor, "n"]) -> Float[Tensor, "m n"]:
    """What each neuron adds to each answer's logit on the direct path, final norm's gain included; rows centred."""
    read_out = unembedding(arch, weights).double()
    if arch.norm != "none":
        read_out = weights["ln_final.w"].double()[:, None] * read_out
    if arch.norm == "layernorm":
        read_out = read_out - read_out.mean(0)  # the norm takes the mean off what is written
    maps = [weights[f"blocks.{i}.mlp.W_out"].double() @ read_out[:, out] for i in range(arch.n_layers)]
    W_L = torch.cat(maps)
    return W_L - W_L.mean(1, keepdim=True)
