"""The largest relative change of a distance, beside that of distances between other points."""

import torch
from micrographia.labs.projection.config import Config
from torch import Generator, Tensor

from micrographia.core.claims import Measured, Measures


def measure(config: Config, draw: Generator) -> tuple[Measures, Tensor]:
    """The figures of the claims, and by how much each distance grew."""
    points = torch.randn(config.n_points, config.d_in, generator=draw) * torch.arange(1.0, config.n_points + 1)[:, None]
    projected = points @ torch.randn(config.d_in, config.d_out, generator=draw) / config.d_out**0.5
    grown = torch.pdist(projected) / torch.pdist(points) - 1
    shuffled = torch.pdist(projected.flip(0)) / torch.pdist(points) - 1
    worst = Measured(grown.abs().max().item(), shuffled.abs().max().item())
    return {"distances-are-kept": worst, "the-mean-is-one": Measured(grown.mean().item())}, grown
