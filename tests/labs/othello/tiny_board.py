"""A model of a 4x4 board with random weights, a probe with random directions, and games."""

import torch

from micrographia.core.config import with_fields
from micrographia.core.runtime import generator
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.labs.othello.config import tiny
from micrographia.labs.othello.engine.board import Board
from micrographia.labs.othello.intervene import Chosen
from micrographia.labs.othello.network import architecture
from micrographia.labs.othello.reading import sites_of
from micrographia.labs.othello.task import vocabulary
from micrographia.methods.probes.probe import ProbeLayer, ProbeTarget, SiteProbes

BOARD = Board(4)
CHOSEN = Chosen((1,), 3.0)


def tiny_model(size=4, **fields):
    config = with_fields(tiny(), size=size, **fields)
    arch = architecture(config)
    return Transformer(arch, init_weights(arch, generator(0)), vocabulary(Board(size)))


def random_probe(model, board=BOARD, seed=0):
    n_sites, d, n = len(sites_of(model)), model.shape.d_model, board.n_squares
    draw = generator(seed)
    weight = torch.randn(n_sites, d, 3 * n, generator=draw)
    return SiteProbes(ProbeTarget(n, 3), ProbeLayer(weight, torch.randn(n_sites, 3 * n, generator=draw)))
