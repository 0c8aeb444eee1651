"""A lean TopK autoencoder in plain torch: a dense encoder, `topk`, an embedding bag as decoder, autograd, fused Adam.

What a careful user writes in thirty lines: no dead latents are counted, no row is normalised. The decoder's gradient is
sparse within the bag; the encoder's goes through the active latents by `index_add_`, in slices.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from micrographia.core.stream.batches import Activations

SLICE = 8  # of the k latents of a row at a time: rows x 8 x d contributions in memory


class Encoder(torch.autograd.Function):
    """x, W (latent, d), b -> the k largest pre-activations of each row, and which they are."""

    @staticmethod
    def forward(ctx, x: Tensor, W: Tensor, b: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, at = torch.addmm(b, x, W.T).topk(k, sorted=False)
        ctx.save_for_backward(x, W, at)
        ctx.mark_non_differentiable(at)
        return values.relu(), at

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x, W, at), d_values = ctx.saved_tensors, grad_outputs[0]
        d_W, d_b = torch.zeros_like(W), W.new_zeros(len(W))
        for one, slope in zip(at.split(SLICE, 1), d_values.split(SLICE, 1)):
            d_W.index_add_(0, one.flatten(), (slope[..., None] * x[:, None]).flatten(0, 1))
        d_b.index_add_(0, at.flatten(), d_values.flatten())
        return None, d_W, d_b, None


class LeanTopK:
    """Its weights and optimiser; `run(n)` takes n steps."""

    def __init__(self, given: Sequence[Activations], n: int, k: int, lr: float) -> None:
        d = given[0].x.shape[-1]
        self.given, self.k, self.taken = [each.x for each in given], k, 0
        decoder = F.normalize(torch.randn(n, d), dim=1)
        self.weights = [decoder.clone(), torch.zeros(n), decoder, torch.zeros(d)]
        for each in self.weights:
            each.requires_grad_()
        self.adam = torch.optim.Adam(self.weights, lr=lr, fused=True)

    def run(self, steps: int) -> None:
        encoder, b_enc, decoder, b_dec = self.weights
        for _ in range(steps):
            x = self.given[self.taken % len(self.given)]
            values, at = Encoder.apply(x, encoder, b_enc, self.k)  # type: ignore[misc]  # apply has no signature
            out = F.embedding_bag(at, decoder, per_sample_weights=values, mode="sum") + b_dec
            (out - x).square().sum(1).mean().backward()
            self.adam.step()
            self.adam.zero_grad()
            self.taken += 1
