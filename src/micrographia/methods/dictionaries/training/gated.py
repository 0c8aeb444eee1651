"""The gated dictionary's loss and gradient (Rajamanoharan et al. 2024, arXiv 2404.16014).

With u = x W_enc: the gate is u + b_gate, the size u exp(r_mag) + b_mag (eq. 6), f = 1[gate > 0] ReLU(size) (eq. 5).
The loss (eq. 8) is the reconstruction, l1 of ReLU(gate), and ||x - x_hat(ReLU(gate))||^2 with the decoder and its bias
held constant: only so do they not bend to the shrunken latents. Axes: member row latent d.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from micrographia.methods.dictionaries.training.activations import Latents, passed
from micrographia.methods.dictionaries.training.dense import encoder_input
from micrographia.methods.dictionaries.training.penalties import PENALTIES, add_norms_gradient, decoder_norms
from micrographia.methods.dictionaries.training.prefixes import back, forward
from micrographia.methods.dictionaries.training.stack import Now, Outcome, ScaledBatch, Stack

Weights = Mapping[str, Tensor]


def gated(stack: Stack, weights: Weights, batch: ScaledBatch, now: Now, into: Weights) -> Outcome:
    """A Plan. Seven products of 2 d latents FLOPs a row; holds five tensors (member, row, latent)."""
    recipe, decoder = stack.recipe, weights["decoder"]
    f, u, _ = encode_gated(stack, weights, batch, now)
    gate = (u + weights["b_gate"][:, None]).relu_()
    decoded = forward(stack, weights, f, batch)
    norms = decoder_norms(decoder, recipe.layers) if recipe.norm_weighted else torch.ones_like(decoder[..., 0])
    sparsity = PENALTIES["l1"](stack, gate, norms, now, batch.rows)
    seen = forward(stack, weights, gate, batch, whole=True)
    terms = {**decoded.terms, "sparsity": sparsity.value, "gate": seen.terms["reconstruction"]}
    d_size = passed(back(stack, weights, f, decoded.slopes, None, batch, into), f, 0)
    assert sparsity.latents is not None
    d_gate = passed(torch.baddbmm(sparsity.latents, seen.slopes[0], decoder.mT), gate, 0)
    if recipe.norm_weighted and sparsity.norms is not None:
        add_norms_gradient(into["decoder"], decoder, sparsity.norms, recipe.layers)
    into["b_mag"].copy_(d_size.sum(1))
    into["b_gate"].copy_(d_gate.sum(1))
    d_size *= weights["r_mag"].exp()[:, None]
    into["r_mag"].copy_((d_size * u).sum(1))
    du = d_size.add_(d_gate)
    torch.bmm(du.mT, encoder_input(stack, weights, batch), out=into["encoder"])
    if stack.subtracts:
        into["b_dec"].sub_((du.sum(1)[:, None] @ weights["encoder"])[:, 0])
    return Outcome(terms, f.sign().sum(1))


def encode_gated(stack: Stack, weights: Weights, batch: ScaledBatch, now: Now) -> Latents:
    """The latents of a batch; kept is u."""
    u = torch.bmm(encoder_input(stack, weights, batch), weights["encoder"].mT)
    size = (u * weights["r_mag"].exp()[:, None]).add_(weights["b_mag"][:, None]).relu_()
    return Latents(passed(size, u + weights["b_gate"][:, None], 0), u)
