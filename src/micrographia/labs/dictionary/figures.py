"""The lab's pictures and tables, as Figures: what the report shows and the terminal prints.

Where a picture has frames, they are the dictionaries; it shows the first of the published recipe, the last frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.small.language_model import loss_curve
from micrographia.core.train_loop import Rows as Columns
from micrographia.labs.dictionary.train import Moment
from micrographia.methods.dictionaries.geometry.figures import Analysed, of_neuron_sparsity, of_rare_latents
from micrographia.methods.dictionaries.geometry.firing_together import Context
from micrographia.methods.dictionaries.geometry.rare import TwoClusters

SPARSITY, CLUSTER, TRAINING, LATENTS = "Neuron sparsity", "Rare latents", "Training", "Some latents"
POST = "Nanda, Some open source sparse autoencoders for a one-layer model (2023)"
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
        *_of(of_neuron_sparsity(analysed), SPARSITY),
    ]  # fmt: skip


SPLIT = {"one": "1-sparse", "ten": "10-sparse", "dense": "dense"}


def of_cluster(analysed: Analysed, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Figure]:
    """How often latents fire, where the rare ones point, and what they are worth."""
    about = {"group": CLUSTER, "source": POST}
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
        *_of(of_rare_latents(analysed), CLUSTER),
    ]  # fmt: skip


CLAIMS_OF = {
    "sparsity-cut-offs": ("one-sparse", "ten-sparse", "dense"),
    "density": ("rare-majority",), "rare-cut": ("rare-majority",),
    "encoder-cosines": ("one-encoder-direction", "no-decoder-direction"),
    "rarity-cosine": ("one-encoder-direction",),
    "fired-together": ("one-input-fires-all",),
    "enc-dec": ("healthy-latents-return", "rare-latents-do-not"),
    "loss-by-frequency": ("rare-latents-idle",),
}  # fmt: skip


def _of(pictures: Sequence[Figure], group: str) -> list[Figure]:
    """Pictures of the method, with the claims that they bear on and their section."""
    return [replace(each, group=group, source=POST, claims=CLAIMS_OF[each.name]) for each in pictures]


def of_training(course: Sequence[Moment], columns: Columns | None) -> list[Figure]:
    """The findings in the course of training, and the language model's own."""
    found = [] if columns is None else [loss_curve(columns, TRAINING)]
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
