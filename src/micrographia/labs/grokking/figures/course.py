"""What the course of training shows: curves with the phases as bands, and sliders over the snapshots.

Figure numbers in `source` are those of Nanda et al., "Progress measures for grokking via mechanistic interpretability"
(2023).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.figures import Figure
from micrographia.labs.grokking.along import Along
from micrographia.labs.grokking.figures.explorer import explorer
from micrographia.labs.grokking.figures.shared import PAPER, frame_names, ks_of
from micrographia.labs.grokking.reading import Reading

MOST_POINTS = 4000  # of a curve
Bands = Sequence[Mapping[str, Any]]


def of_training(
    rows: Mapping[str, Sequence[float]], along: Along, ks: Sequence[int], bands: Bands, readings: Mapping[int, Reading]
) -> list[Figure]:
    """What the course of training shows. `readings`: the few epochs whose full logits the explorer carries."""
    figures = [losses(rows, bands), accuracy(rows, bands), progress(along, bands), weight_sizes(along, bands)]
    figures += [
        excluded_by_frequency(along, ks, bands),
        cosine_coefficients(along, ks, bands),
        concentration(along, bands),
    ]
    figures.append(spectrum_over_training(along, "embedding", ks))
    if "neuron_logit" in along.tables:
        figures.append(spectrum_over_training(along, "neuron_logit", ks))
        figures += [singular_values(along), neuron_clusters(along)]
    return [*figures, explorer(along, ks, readings)]


def lines(name: str, title: str, caption: str, x: Any, curves: Mapping[str, Any], bands: Bands, **more: Any) -> Figure:
    about = {key: more.pop(key) for key in ("source", "claims", "group") if key in more}
    y = np.stack([np.asarray(curve, dtype=np.float64) for curve in curves.values()])
    stride = -(-y.shape[1] // MOST_POINTS)
    data = {"x": np.asarray(x)[::stride], "y": y[:, ::stride], "names": list(curves), "x_label": "epoch"}
    return Figure(
        name=name, kind="lines", title=title, caption=caption, data={**data, "bands": list(bands), **more}, **about
    )


def losses(rows: Mapping[str, Sequence[float]], bands: Bands) -> Figure:
    train, test = (np.asarray(rows[name], dtype=np.float64) for name in ("train_loss", "test_loss"))
    seen = ~np.isnan(test)
    stride = -(-len(train) // MOST_POINTS)
    keep = seen | (np.arange(len(train)) % stride == 0)
    caption = (
        "The loss on pairs the network trains on falls at once; the loss on pairs it never saw first rises, then falls "
        "by orders of magnitude, long after. Bands are the phases found by change points."
    )
    test = np.interp(np.arange(len(test)), np.flatnonzero(seen), test[seen])
    return lines(
        "losses", "Training and test loss", caption, np.asarray(rows["epoch"])[keep],
        {"train loss": train[keep], "test loss": test[keep]}, bands,
        y_label="loss (nats)", log_y=True, source=f"{PAPER}, figure 2", claims=("phases-in-order",), group="The run",
    )  # fmt: skip


def accuracy(rows: Mapping[str, Sequence[float]], bands: Bands) -> Figure:
    values = np.asarray(rows["test_accuracy"], dtype=np.float64)
    seen = ~np.isnan(values)
    return lines(
        "accuracy", "Test accuracy", "The share of unseen pairs that are answered rightly: grokking is the late jump.",
        np.asarray(rows["epoch"])[seen], {"test accuracy": values[seen]}, bands,
        y_label="share right", source=f"{PAPER}, figure 2", claims=("generalises",), group="The run",
    )  # fmt: skip


def progress(along: Along, bands: Bands) -> Figure:
    c = along.curves
    curves = {
        "train loss": c["train_loss"],
        "test loss": c["test_loss"],
        "restricted loss (key frequencies alone)": c["restricted_projection"],
        "excluded loss (train pairs, without them)": c["excluded_loss"],
        "trig loss (key cosines alone)": c["trig_loss"],
    }
    caption = (
        "Restricted loss falls long before test loss: the circuit forms while the network still memorises. Excluded "
        "loss then rises as the network comes to rely on the circuit, and stays up when cleanup removes the rest."
    )
    return lines(
        "progress", "Restricted, excluded and trig loss", caption, along.epochs, curves, bands,
        y_label="loss (nats)", log_y=True, source=f"{PAPER}, figure 7", group="Progress measures",
        claims=("phases-in-order", "algorithm-beats-network"),
    )  # fmt: skip


def weight_sizes(along: Along, bands: Bands) -> Figure:
    curves = {"total": along.curves["squared_weights"]}
    tensors = {n.removeprefix("squared "): c for n, c in along.curves.items() if n.startswith("squared ")}
    curves |= {_short(name, tensors): curve for name, curve in tensors.items()}
    caption = "Weight decay sheds what memorised once the circuit does the work: the sum of squares falls in cleanup."
    return lines(
        "weights", "Sum of squared weights", caption, along.epochs, curves, bands, y_label="sum of squares",
        source=f"{PAPER}, figure 7", group="Progress measures", highlight=[0],
    )  # fmt: skip


def _short(name: str, names: Collection[str]) -> str:
    """A tensor by its own name, `W_K` for `blocks.0.attn.W_K`, with its layer where there are several."""
    last = name.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in names) == 1
    layer = re.match(r"blocks\.(\d+)\.", name)
    return last if alone or layer is None else f"L{layer[1]}.{last}"


def excluded_by_frequency(along: Along, ks: Sequence[int], bands: Bands) -> Figure:
    caption = (
        "Loss on the training pairs without one frequency: without a key frequency it stays up, without any other it "
        "falls as the training loss does."
    )
    return _by_frequency(
        along, "excluded_by_frequency", "Excluded loss by frequency", caption, ks, bands,
        y_label="loss (nats)", log_y=True, source=f"{PAPER}, figure 12", claims=("every-key-frequency-counts",),
    )  # fmt: skip


def cosine_coefficients(along: Along, ks: Sequence[int], bands: Bands) -> Figure:
    caption = "How much of each cos(w_k(a+b-c)) the logits hold. Many start; the key frequencies win."
    return _by_frequency(
        along, "cosine_coefficients", "Cosine coefficients of the logits", caption, ks, bands,
        y_label="coefficient", source=f"{PAPER}, figure 11", claims=("logit-variance",),
    )  # fmt: skip


def _by_frequency(
    along: Along, table: str, title: str, caption: str, ks: Sequence[int], bands: Bands, **more: Any
) -> Figure:
    values = along.tables[table]
    curves = {f"k = {k + 1}": values[:, k] for k in range(values.shape[1])}
    chosen = [k - 1 for k in ks]
    return lines(
        table, title, caption, along.epochs, curves, bands, group="Progress measures", highlight=chosen, **more
    )


def concentration(along: Along, bands: Bands) -> Figure:
    names = {"gini_embedding": "embedding", "gini_neuron_logit": "neuron-logit map"}
    curves = {label: along.curves[name] for name, label in names.items() if name in along.curves}
    caption = "Gini coefficient of the Fourier norms: 0 when all components are alike, towards 1 when a few hold all."
    return lines(
        "concentration", "Concentration in the Fourier basis", caption, along.epochs, curves, bands, y_label="Gini",
        source=f"{PAPER}, appendix C.2", claims=("gini-embedding", "gini-neuron-logit"), group="Progress measures",
    )  # fmt: skip


SPECTRA = {
    "embedding": ("Embedding", "3a", "norm over d_model"),
    "neuron_logit": ("Neuron-to-logit map", "3b", "norm over neurons"),
}


def spectrum_over_training(along: Along, table: str, ks: Sequence[int]) -> Figure:
    title, number, label = SPECTRA[table]
    values = along.tables[table]
    return Figure(
        name=f"spectrum_{table}",
        kind="bars",
        title=f"{title} in the Fourier basis",
        caption="At first all frequencies are alike; at the end a handful hold nearly all. Move the slider.",
        source=f"{PAPER}, figure {number}",
        data={"y": values, "names": ks_of(values.shape[1]), "x_label": "frequency k", "y_label": label,
              "highlight": [k - 1 for k in ks]},
        frames=frame_names(along.epochs),
        framed=("y",),
        group="The circuit",
    )  # fmt: skip


def singular_values(along: Along) -> Figure:
    values = along.tables["neuron_logit_singular_values"]
    return Figure(
        name="singular_values",
        kind="bars",
        title="Singular values of the neuron-to-logit map",
        caption="They end in pairs, a cosine and a sine each: the count of frequencies without any Fourier basis.",
        source=f"{PAPER}, section 4.2",
        data={"y": values, "names": ks_of(values.shape[1]), "x_label": "rank", "y_label": "singular value"},
        frames=frame_names(along.epochs),
        framed=("y",),
        group="The circuit",
    )


def neuron_clusters(along: Along) -> Figure:
    frequency, fve = along.tables["neuron_frequency"], along.tables["neuron_fve"]
    return Figure(
        name="neuron_clusters",
        kind="scatter",
        title="Neurons: their frequency, and how much of them it explains",
        caption="Each dot is a neuron. They climb to the top at the key frequencies: one frequency each.",
        source=f"{PAPER}, figure 5a",
        claims=("neurons-one-frequency",),
        data={"x": frequency, "y": fve, "x_label": "dominant frequency k", "y_label": "fraction of variance explained"},
        frames=frame_names(along.epochs),
        framed=("x", "y"),
        group="Neurons",
    )
