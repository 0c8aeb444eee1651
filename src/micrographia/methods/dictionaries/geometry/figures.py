"""Pictures of the geometry of dictionaries: how sparse in the neurons, how rare, and where the rare latents point.

Each takes several dictionaries by name, which are the frames of the picture or its lines. A slider starts at its last
frame: the first dictionary is that one.
"""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.methods.dictionaries.geometry.analysis import CUTS, DictionaryGeometry
from micrographia.methods.dictionaries.geometry.neuron_sparsity import PUBLISHED, by_cut_offs
from micrographia.methods.dictionaries.geometry.rare import RARE, sensitivity

FVES, NEXTS = (0.15, 0.25, 0.35, 0.45, 0.55), (0.02, 0.05, 0.1, 0.15, 0.2)
RARITIES = (1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3)
BINS = 41
Analysed = Mapping[str, DictionaryGeometry]


def of_neuron_sparsity(analysed: Analysed) -> list[Figure]:
    """The split under other cut-offs."""
    grids = [[by_cut_offs(a.shares, FVES, NEXTS, among) for among in (None, a.common)] for a in _last_first(analysed)]
    kinds = ("1-sparse", "10-sparse", "dense")
    return [
        figures.heatmap(
            "sparsity-cut-offs", "The split under other cut-offs",
            np.stack([torch.cat(each).numpy() for each in grids]),
            panels=[f"{kind}, {of}" for of in ("all rows", "common latents") for kind in kinds],
            frames=[*analysed][::-1], framed=("z",), x=[f"{x:g}" for x in NEXTS], y=[f"{x:g}" for x in FVES],
            x_label="next nine below", y_label="one or ten neurons above", value="share of rows",
            caption=f"Published: above {PUBLISHED.one:g}, below {PUBLISHED.next_nine:g}. How many rows are dense does "
            "not depend on the next nine.",
        )
    ]  # fmt: skip


def of_rare_latents(analysed: Analysed) -> list[Figure]:
    """How often latents fire, where the rare ones point, and what they are worth."""
    each, names = list(analysed.values()), list(analysed)
    framed, moving = partial(dict, frames=names[::-1]), _last_first(analysed)
    log = np.stack([_log(a) for a in moving])
    encoder = np.stack([a.cluster.encoder.cpu().numpy() for a in moving])
    cosines = np.stack([_two([a.cluster.encoder, a.cluster.decoder], a, -1.0, 1.0) for a in moving])
    products = np.stack([_two([a.directions.projection], a, -1.0, 2.0) for a in moving])
    cuts = np.array([sensitivity(a.dictionary, a.frequency.to(a.cluster.rare.device), list(RARITIES)) for a in each])
    shares = np.concatenate([cuts[..., 1], cuts[..., 2]])
    rare = [{"name": "rare below", "x": math.log10(RARE)}]
    return [
        figures.histogram(
            "density", "How often latents fire", log, x_label="log10 of firings a token", bins=60, marks=rare,
            caption=f"On {each[0].firing.n_tokens:,} tokens. Latents that never fired stand at half a firing.",
            **framed(framed=("values",)),
        ),
        figures.lines(
            "encoder-cosines", "Cosines with the mean rare direction", _middles(-1.0, 1.0), cosines,
            names=["encoder, rare", "encoder, common", "decoder, rare", "decoder, common"], x_label="cosine",
            y_label="share of latents", **framed(framed=("y",)),
            caption="Encoder columns with the mean of the rare ones; decoder rows with the mean of theirs.",
        ),
        figures.scatter(
            "rarity-cosine", "Frequency and encoder direction", log, encoder, x_label="log10 of firings a token",
            y_label="cosine with the mean rare encoder", caption="A point a latent.", **framed(framed=("x", "y")),
        ),
        figures.lines(
            "rare-cut", "The cluster under other cuts", np.array(RARITIES), shares, reach=(0, 1), log_x=True,
            names=[f"{name}, {what}" for what in ("rare", "of these aligned") for name in names],
            x_label="rare below, firings a token", y_label="share",
            caption="How the share of rare latents, and of those with one encoder direction, hang on the cut.",
        ),
        figures.histogram(
            "fired-together", "Rare latents that fire on one token", each[0].fired[each[0].fired.isfinite()].numpy(),
            x_label="share of rare latents", log_y=True, y_label="tokens", bins=50,
            caption=f"Of the dictionary {names[0]}.",
        ),
        figures.lines(
            "enc-dec", "Encoder times decoder", _middles(-1.0, 2.0), products, names=["rare", "common"],
            x_label="encoder column times decoder row", y_label="share of latents", **framed(framed=("y",)),
            caption="1: the latent, alone, gives back what it reads. The ends hold what lies beyond.",
        ),
        figures.lines(
            "loss-by-frequency", "Loss recovered without rare latents", np.array([max(c, CUTS[1] / 10) for c in CUTS]),
            np.array([[a.worth.zero[cut] for cut in CUTS] for a in each]), names=names, log_x=True,
            x_label="only latents of at least this frequency", y_label="loss recovered (zero ablation)",
            caption="The leftmost point has all latents.",
        ),
    ]  # fmt: skip


def _last_first(analysed: Analysed) -> list[DictionaryGeometry]:
    return [*analysed.values()][::-1]


def _log(a: DictionaryGeometry) -> np.ndarray:
    return a.frequency.clamp_min(0.5 / a.firing.n_tokens).log10().cpu().numpy()


def _two(values: list[Tensor], a: DictionaryGeometry, low: float, high: float) -> list[np.ndarray]:
    """Of rare and of common latents, the share of each value in each bin."""
    return [_shares(x[of], low, high) for x in values for of in (a.cluster.rare, a.common)]


def _middles(low: float, high: float) -> np.ndarray:
    ends = np.linspace(low, high, BINS + 1)
    return (ends[1:] + ends[:-1]) / 2


def _shares(values: Tensor, low: float, high: float) -> np.ndarray:
    """The share of values in each bin; NaN of none."""
    known = values[values.isfinite()].double().cpu().numpy()
    counts = np.histogram(known.clip(low, high), BINS, (low, high))[0]
    return counts / len(known) if len(known) else np.full(BINS, math.nan)
