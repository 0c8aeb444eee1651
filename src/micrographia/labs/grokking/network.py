"""One network, run once on all pairs, in the coordinates in which its task is addition mod n.

This is all that the measures need: logits, last-position neurons, attention and weights in cyclic order. With a final
norm the neurons are divided by its scale and the map to the logits takes its gain, so that the neurons write
`neurons @ W_L` directly to the logits in every architecture; those of several layers stand side by side.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.basis import Characters, characters, pairs_to_cyclic, to_cyclic
from micrographia.core.edits import apply
from micrographia.core.model import Tap
from micrographia.core.sites import Site
from micrographia.core.small.transformer import Transformer, forward
from micrographia.core.small.weights import neuron_to_logits
from micrographia.labs.grokking.task import AllPairs


class NetworkTensors(NamedTuple):
    """n is the order of the group: p, or p - 1 for multiplication. Without an MLP or attention its parts are None."""

    model: Transformer
    pairs: AllPairs
    """In the order of the task's rows, zeros of a product included; all else is in cyclic order."""
    logits: Float[Tensor, "n n n"]
    train: Bool[Tensor, "n n"] | None
    neurons: Float[Tensor, "n n m"] | None
    W_L: Float[Tensor, "m n"] | None
    pattern: Float[Tensor, "n n head key"] | None
    """Attention of the last position in the first layer, to a, b and, where there is one, "="; b too in the order of
    a's residues."""
    W_E: Float[Tensor, "n d_model"]
    answers: Float[Tensor, "pairs p"]
    """Logits of the p residues, in the order of `pairs`."""


def cyclic(pairs: AllPairs) -> Characters:
    """The coordinates of the operation; where it has none those of addition, which then claim nothing."""
    found = characters(pairs.operation, pairs.modulus) or characters("add", pairs.modulus)
    assert found is not None
    return found


def tensors_of(model: Transformer, pairs: AllPairs) -> NetworkTensors:
    """Run all pairs and keep what the measures need. One forward; about 0.25 GB at p = 113."""
    arch, layers, order = model.arch, range(model.arch.n_layers), cyclic(pairs)
    keep = [Site("neurons", i) for i in layers if arch.mlp] + ([Site("pattern", 0)] if arch.attention else [])
    normed = arch.norm != "none"
    tap = Tap([*keep, *([Site("final_norm_scale")] if normed else [])])
    logits = _last_logits(model, pairs, tap)
    cache = tap.finish()
    square = (pairs.modulus, pairs.modulus)
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
    return NetworkTensors(
        model=model,
        pairs=pairs,
        logits=to_cyclic(logits, order),
        train=None if pairs.train is None else pairs_to_cyclic(pairs.train.unflatten(0, square), order),
        neurons=neurons,
        W_L=neuron_to_logits(arch, model.state, order.out) if arch.mlp else None,
        pattern=pattern,
        W_E=model.state["embed.W_E"][order.left],
        answers=logits[:, : pairs.modulus],
    )


def with_attention(r: NetworkTensors, pattern: Float[Tensor, "n n head key"]) -> Float[Tensor, "n n n"]:
    """Cyclic logits with another attention of the last position in the first layer. One forward."""
    p, order = r.pairs.modulus, cyclic(r.pairs)
    rows = torch.zeros(p, p, *pattern.shape[2:], dtype=pattern.dtype)
    rows[order.left[:, None], order.left] = pattern

    def change(old: Tensor) -> Tensor:
        new = old.clone()
        new[:, :, -1] = rows.flatten(0, 1).to(old)
        return new

    return to_cyclic(_last_logits(r.model, r.pairs, Tap((), (apply("L0.pattern", change),))), order)


@torch.no_grad()
def _last_logits(model: Transformer, pairs: AllPairs, tap: Tap) -> Float[Tensor, "pairs vocab"]:
    return forward(model.arch, model.state, pairs.tokens, tap=tap, last=True)[:, -1]
