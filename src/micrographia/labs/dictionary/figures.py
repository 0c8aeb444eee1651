"""The lab's pictures and tables, as Figures: what the report shows and the terminal prints.

Where a picture has frames, they are the dictionaries, those of the published recipe first.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.train_loop import Rows as Columns
from micrographia.labs.dictionary.measure import Analysed
from micrographia.labs.dictionary.train import Moment
from micrographia.methods.dictionaries.geometry.analysis import CUTS, DictionaryGeometry
from micrographia.methods.dictionaries.geometry.firing_together import Context
from micrographia.methods.dictionaries.geometry.neuron_sparsity import PUBLISHED, by_cut_offs
from micrographia.methods.dictionaries.geometry.rare import RARE, TwoClusters, sensitivity

SPARSITY, CLUSTER, TRAINING, LATENTS = "Neuron sparsity", "Rare latents", "Training", "Some latents"
POST = "Nanda, Some open source sparse autoencoders for a one-layer model (2023)"
FVES, NEXTS = (0.15, 0.25, 0.35, 0.45, 0.55), (0.02, 0.05, 0.1, 0.15, 0.2)
RARITIES = (1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3)
BINS = 41
RECIPES = {
    "name": "dictionary", "what": "recipe", "l0": "L0", "fvu": "FVU", "recovered": "loss recovered, zero",
    "recovered_mean": "loss recovered, mean", "dense": "dense rows", "rare": "rare latents", "dead": "never fired",
    "aligned": "of rare: one encoder direction",
}  # fmt: skip
SPLITS = {
    "name": "dictionary", "rows": "rows", "one": "1-sparse", "ten": "10-sparse", "dense": "dense",
    "kurtosis": "kurtosis", "in_null_space": "decoder in null space of W_out",
    "encoder_in_null_space": "encoder in null space",
}  # fmt: skip
CLUSTERS = {
    "name": "dictionary", "rare": "rare latents", "aligned": "encoder cosine > 0.95",
    "aligned_decoder": "decoder cosine > 0.95", "aligned_common": "as many common ones",
    "aligned_random": "as many random ones", "most_together": "fire on one token, at most",
    "projection_common": "enc . dec, common", "projection_rare": "enc . dec, rare",
}  # fmt: skip
PAIRS = {
    "pair": "dictionaries", "directions": "cosine of rare directions", "common": "of common means",
    "to_common": "rare to nearest common one, median", "healthy_to_common": "common to nearest common one, median",
}  # fmt: skip


def of_run(
    analysed: Analysed,
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    course: Sequence[Moment],
    contexts: Mapping[str, Sequence[Context]],
    columns: Columns | None,
) -> list[Figure]:
    """All figures of a Run. `records`: its tables; `columns`: the training of the language model, if it was trained."""
    return [
        figures.table(
            "recipes", "Dictionaries", records["dictionaries"], columns=RECIPES, group=CLUSTER, headline=True,
            caption="The published recipe at each seed, and what is changed in it. All on held-out text; rare means "
            "less than one firing in 10,000 tokens, dead ones among them.",
            claims=("rare-majority", "no-dead-latents", "resampling-helps", "jumprelu-has-none"),
        ),
        *of_sparsity(analysed, records["neuron_sparsity"]),
        *of_cluster(analysed, records),
        *of_training(course, columns),
        *of_latents(contexts, records["latents"]),
    ]  # fmt: skip


def of_sparsity(analysed: Analysed, rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """The split into 1-sparse, 10-sparse and dense rows, its baselines, and how it hangs on the cut-offs."""
    labels = [f"{row['name']}: {row['rows']}" for row in rows]
    ids = ("one-sparse", "ten-sparse", "dense")
    grids = [[by_cut_offs(a.shares, FVES, NEXTS, among) for among in (None, a.common)] for a in analysed.values()]
    panels = [f"{kind}, {of}" for of in ("all rows", "common latents") for kind in SPLIT.values()]
    return [
        figures.table(
            "neuron-sparsity", "How many neurons a decoder row writes to", rows, columns=SPLITS, group=SPARSITY,
            source=POST, claims=(*ids, "privileged-basis", "read-by-the-model"),
            caption="1-sparse: more than 35 % of the squared norm in one neuron and less than 10 % in the next nine; "
            "10-sparse: more than 35 % in ten; else dense. A Gaussian row has kurtosis 3.",
        ),
        figures.bars(
            "sparsity-split", "1-sparse, 10-sparse, dense", np.array([[row[key] for row in rows] for key in SPLIT]),
            names=labels, series=list(SPLIT.values()), y_label="share of rows", group=SPARSITY, source=POST, claims=ids,
            caption="The same rows in a random basis, and Gaussian ones, stand beside each dictionary.",
        ),
        figures.heatmap(
            "sparsity-cut-offs", "The split under other cut-offs",
            np.stack([torch.cat(each).numpy() for each in grids]), panels=panels, frames=list(analysed), framed=("z",),
            x=[f"{x:g}" for x in NEXTS], y=[f"{x:g}" for x in FVES], x_label="next nine below",
            y_label="one or ten neurons above", value="share of rows", group=SPARSITY, claims=ids,
            caption=f"Published: above {PUBLISHED.one:g}, below {PUBLISHED.next_nine:g}. How many rows are dense does "
            "not depend on the next nine.",
        ),
    ]  # fmt: skip


SPLIT = {"one": "1-sparse", "ten": "10-sparse", "dense": "dense"}


def of_cluster(analysed: Analysed, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Figure]:
    """How often latents fire, where the rare ones point, and what they are worth."""
    each, names = list(analysed.values()), list(analysed)
    about = {"group": CLUSTER, "source": POST}
    frames = {"frames": names}
    cuts = np.array([sensitivity(a.dictionary, a.frequency.to(a.cluster.rare.device), list(RARITIES)) for a in each])
    cosine, projection = (-1.0, 1.0), (-1.0, 2.0)
    return [
        figures.table(
            "rare-cluster", "Rare latents", records["rare_latents"], columns=CLUSTERS, **about,
            claims=("one-encoder-direction", "no-decoder-direction", "one-input-fires-all"),
            caption="Cosines are with the mean of the rare latents' own columns. As many common and random directions, "
            "with their own mean, show what a mean does by itself.",
        ),
        figures.table(
            "between-autoencoders", "Between autoencoders", records["between"], columns=PAIRS, **about,
            claims=("same-direction-in-another",), caption="Of the published recipe at two seeds.",
        ),
        figures.histogram(
            "density", "How often latents fire", np.stack([_log(a) for a in each]), x_label="log10 of firings a token",
            bins=60, marks=[{"name": "rare below", "x": math.log10(RARE)}], framed=("values",), **frames, **about,
            claims=("rare-majority",),
            caption=f"On {each[0].metrics.n_tokens:,} held-out tokens. Latents that never fired stand at half a firing.",
        ),
        figures.lines(
            "encoder-cosines", "Cosines with the mean rare direction", _middles(*cosine),
            np.stack([[_shares(x, *cosine) for x in _cosines(a)] for a in each]),
            names=["encoder, rare", "encoder, common", "decoder, rare", "decoder, common"], x_label="cosine",
            y_label="share of latents", framed=("y",), **frames, **about,
            claims=("one-encoder-direction", "no-decoder-direction"),
            caption="Encoder columns with the mean of the rare ones; decoder rows with the mean of theirs.",
        ),
        figures.scatter(
            "rarity-cosine", "Frequency and encoder direction", np.stack([_log(a) for a in each]),
            np.stack([a.cluster.encoder.cpu().numpy() for a in each]), x_label="log10 of firings a token",
            y_label="cosine with the mean rare encoder", framed=("x", "y"), **frames, **about, caption="A point a latent.",
        ),
        figures.lines(
            "rare-cut", "The cluster under other cuts", np.array(RARITIES), np.concatenate([cuts[..., 1], cuts[..., 2]]),
            names=[f"{name}, {what}" for what in ("rare", "of these aligned") for name in names], log_x=True,
            x_label="rare below, firings a token", y_label="share", reach=(0, 1), **about, claims=("rare-majority",),
            caption="How the share of rare latents, and of those with one encoder direction, hang on the cut.",
        ),
        figures.histogram(
            "fired-together", "Rare latents that fire on one token", _some(each[0].fired), x_label="share of rare latents",
            log_y=True, y_label="tokens", bins=50, **about, claims=("one-input-fires-all",),
            caption=f"Of the dictionary {names[0]}.",
        ),
        figures.lines(
            "enc-dec", "Encoder times decoder", _middles(*projection),
            np.stack([[_shares(a.directions.projection[of], *projection) for of in (a.cluster.rare, a.common)] for a in each]),
            names=["rare", "common"], x_label="encoder column times decoder row", y_label="share of latents",
            framed=("y",), **frames, **about, claims=("healthy-latents-return", "rare-latents-do-not"),
            caption="1: the latent, alone, gives back what it reads. The ends hold what lies beyond.",
        ),
        figures.lines(
            "loss-by-frequency", "Loss recovered without rare latents", np.array([max(c, CUTS[1] / 10) for c in CUTS]),
            np.array([[a.worth.zero[cut] for cut in CUTS] for a in each]), names=names, log_x=True, **about,
            x_label="only latents of at least this frequency", y_label="loss recovered (zero ablation)",
            claims=("rare-latents-idle",), caption="The leftmost point has all latents.",
        ),
    ]  # fmt: skip


def of_training(course: Sequence[Moment], columns: Columns | None) -> list[Figure]:
    """The findings in the course of training, and the language model's own."""
    found = []
    if columns is not None:
        found.append(
            figures.lines(
                "language-model", "The language model", columns["step"],
                np.array([columns[key] for key in ("loss_nats", "held_out_nats")]), names=["batch", "held out"],
                x_label="step", y_label="nats a token", group=TRAINING, caption="Cross-entropy of the next token.",
            )
        )  # fmt: skip
    if course:
        found.append(
            figures.table(
                "course", "In the course of training", [each._asdict() for each in course], group=TRAINING,
                essential=False, caption="On fewer tokens than at the end.",
            )
        )  # fmt: skip
    return found + [_course(course, key, title) for key, title in COURSES.items() if course]


COURSES = {
    "rare": "Share of rare latents in training",
    "aligned": "Of these, share with one encoder direction in training",
    "dense": "Share of dense decoder rows in training",
    "fvu": "FVU in training",
    "l0": "L0 in training",
}


def _course(course: Sequence[Moment], key: str, title: str) -> Figure:
    names = list(dict.fromkeys(each.name for each in course))
    rows = [[each for each in course if each.name == name] for name in names]
    x = np.array([[each.step for each in row] for row in rows])
    y = np.array([[getattr(each, key) for each in row] for row in rows])
    return figures.lines(f"course-{key}", title, x, y, names=names, x_label="step", y_label=key, group=TRAINING)


def of_latents(contexts: Mapping[str, Sequence[Context]], rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Where some latents of the first dictionary fire most."""
    shown = {f"{name}, {i + 1}": each for name, found in contexts.items() for i, each in enumerate(found)}
    table = figures.table(
        "latents", "Some latents", rows, group=LATENTS, essential=False,
        caption="Of the first dictionary: common ones evenly over their frequencies, then rare ones.",
    )  # fmt: skip
    if not shown:
        return [table]
    return [
        table,
        figures.tokens(
            "top-tokens", "Where they fire most", [each.tokens for each in shown.values()],
            np.array([each.values for each in shown.values()]), names=list(shown), value="latent", group=LATENTS,
            caption="Held-out text around the token on which each fires most.",
        ),
    ]  # fmt: skip


def between(pairs: Mapping[tuple[str, str], TwoClusters]) -> list[dict[str, Any]]:
    """A row for each two dictionaries."""
    return [
        {
            "pair": " and ".join(pair),
            "directions": two.directions,
            "common": two.common,
            "to_common": float(two.to_common.double().nanmedian()) if len(two.to_common) else None,
            "healthy_to_common": float(two.healthy_to_common.double().nanmedian()),
        }
        for pair, two in pairs.items()
    ]


def _log(a: DictionaryGeometry) -> np.ndarray:
    return a.frequency.clamp_min(0.5 / a.metrics.n_tokens).log10().cpu().numpy()


def _cosines(a: DictionaryGeometry) -> list[Tensor]:
    return [x[of] for x in (a.cluster.encoder, a.cluster.decoder) for of in (a.cluster.rare, a.common)]


def _some(values: Tensor) -> np.ndarray:
    return values[values.isfinite()].numpy()


def _middles(low: float, high: float) -> np.ndarray:
    ends = np.linspace(low, high, BINS + 1)
    return (ends[1:] + ends[:-1]) / 2


def _shares(values: Tensor, low: float, high: float) -> np.ndarray:
    """The share of values in each bin; NaN of none."""
    known = values[values.isfinite()].double().cpu().numpy()
    counts = np.histogram(known.clip(low, high), BINS, (low, high))[0]
    return counts / len(known) if len(known) else np.full(BINS, math.nan)
