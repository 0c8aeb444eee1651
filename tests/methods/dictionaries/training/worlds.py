"""Activations with known features in superposition: a pure function of the step."""

import torch

from micrographia.core.runtime import batch_generator, generator
from micrographia.core.stream.batches import Activations


def world(d=16, n=32, active=3.0, scale=1.0, rows=256, seed=0, offset=0.3, d_out=None):
    """`n` features in `d` dims, `active` of them on in a row, a common offset and a little noise."""
    random = generator(seed)
    features = torch.randn(n, d, generator=random)
    features /= features.norm(dim=-1, keepdim=True)
    written = features if d_out is None else torch.randn(n, d_out, generator=random) / d_out**0.5
    centre = offset * torch.randn(d, generator=random)

    def batches(step):
        random = batch_generator(seed + 1, step)
        on = torch.rand(rows, n, generator=random) < active / n
        size = on * (torch.rand(rows, n, generator=random) + 0.5)
        x = scale * (size @ features + centre + 0.02 * torch.randn(rows, d, generator=random))
        return Activations(x, None if d_out is None else 3 * scale * (size @ written))

    return batches


def fresh(batches, count=4, start=1_000_000):
    """Rows that no training has seen."""
    found = [batches(start + i) for i in range(count)]
    x = torch.cat([each.x for each in found], -2)
    return x, x if found[0].target is None else torch.cat([each.target for each in found], -2)


def fvu(dictionary, x, target):
    return ((target - dictionary.reconstruct(x)).square().sum() / (target - target.mean(0)).square().sum()).item()


def mean_l0(dictionary, x):
    return (dictionary.encode(x) != 0).sum(-1).double().mean().item()
