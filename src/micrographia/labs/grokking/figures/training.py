"""What training shows: curves with the phases as bands, sliders over the snapshots, and the explorer.

Figure numbers in `source` are those of Nanda et al., "Progress measures for grokking via mechanistic interpretability"
(2023).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from micrographia.core.figures import Figure, bars, lines, scatter, table, widget
from micrographia.labs.grokking.figures.network import PAPER, centred, ks_of
from micrographia.labs.grokking.network import NetworkTensors
from micrographia.labs.grokking.training_curves import TrainingCurves, bands

MOST_POINTS = 4000  # of a curve
MOST_FRAMES = 30  # of the explorer: with plotly's own 4.7 MB the report stays near 10 MB
ASSET = "micrographia.labs.grokking:explorer.js"
RUN, CIRCUIT, PROGRESS = "The run", "The circuit", "Progress measures"
Columns = Mapping[str, Sequence[float]]


def of_run(rows: Columns, phases: Mapping[str, Any]) -> list[Figure]:
    """Losses and accuracy at every epoch that was measured, and when each phase ended."""
    epoch, train, test, right = (np.asarray(rows[name], dtype=np.float64) for name in ROWS)
    seen = ~np.isnan(test)
    keep = seen | (np.arange(len(train)) % -(-len(train) // MOST_POINTS) == 0)
    test = np.interp(np.arange(len(test)), np.flatnonzero(seen), test[seen])
    caption = (
        "The loss on pairs the network trains on falls at once; the loss on pairs it never saw first rises, then falls "
        "by orders of magnitude, long after. Bands are the phases found by change points."
    )
    return [
        _curves(
            "losses", "Training and test loss", epoch[keep], {"train loss": train[keep], "test loss": test[keep]},
            phases, y_label="loss (nats)", log_y=True, caption=caption, source=f"{PAPER}, figure 2", group=RUN,
            claims=["phases-in-order"],
        ),
        _curves(
            "accuracy", "Test accuracy", epoch[seen], {"test accuracy": right[seen]}, phases, y_label="fraction right",
            caption="The fraction of unseen pairs that are answered rightly: grokking is the late jump.", group=RUN,
            source=f"{PAPER}, figure 2", claims=["generalises"],
        ),
        *phase_table(phases),
    ]  # fmt: skip


ROWS = ("epoch", "train_loss", "test_loss", "test_accuracy")
PHASES = {
    "memorised": "memorised: the training loss has fallen",
    "circuit": "circuit: the restricted loss is half-way down",
    "circuit_formed": "cleanup begins: the test loss starts to fall",
    "cleanup": "grokked: the test loss is half-way down",
    "settled": "settled: the weights have stopped shrinking",
}


def phase_table(phases: Mapping[str, Any]) -> list[Figure]:
    """The epoch of every phase; nothing where none was found."""
    if all(phases.get(name) is None for name in PHASES):
        return []
    spans = {name: span for name, span in (phases.get("intervals") or {}).items() if span}
    rows = [
        [text, phases.get(name), "{:,.0f} to {:,.0f}".format(*spans[name]) if name in spans else ""]
        for name, text in PHASES.items()
    ]
    columns = ["what happened", "epoch", "between"]
    caption = "From change points in the measures along training, not by eye. A dash: it did not happen in this run."
    return [table("phases", "The phases", rows, columns=columns, caption=caption, group="The phases")]


def of_training(c: TrainingCurves, ks: Sequence[int], phases: Mapping[str, Any]) -> list[Figure]:
    """The measures at the snapshots: first the weights in the Fourier basis, then the progress measures."""
    figures = [_spectrum(c, name, ks) for name in SPECTRA if name in c.tables]
    figures += [_singular_values(c)] if "neuron_logit_singular_values" in c.tables else []
    figures += [_progress(c, phases), _weight_sizes(c, phases)]
    figures += [_by_frequency(c, name, ks, phases) for name in BY_FREQUENCY]
    return [*figures, _concentration(c, phases), *([_neuron_clusters(c)] if "neuron_fve" in c.tables else [])]


def _curves(name: str, title: str, x: Any, curves: Mapping[str, Any], phases: Mapping[str, Any], **more: Any) -> Figure:
    y = np.stack([np.asarray(curve, dtype=np.float64) for curve in curves.values()])
    every = slice(None, None, -(-y.shape[1] // MOST_POINTS))
    x, y = np.asarray(x)[every], y[:, every]
    return lines(name, title, x, y, names=list(curves), x_label="epoch", bands=bands(phases), **more)


def _progress(c: TrainingCurves, phases: Mapping[str, Any]) -> Figure:
    curves = {label: c.curves[name] for name, label in MEASURES.items()}
    caption = (
        "Restricted loss falls long before test loss: the circuit forms while the network still memorises. Excluded "
        "loss then rises as the network comes to rely on the circuit, and stays up when cleanup removes the rest."
    )
    return _curves(
        "progress", "Restricted, excluded and trig loss", c.epochs, curves, phases, y_label="loss (nats)", log_y=True,
        caption=caption, source=f"{PAPER}, figure 7", claims=["phases-in-order", "algorithm-beats-network"],
        group=PROGRESS,
    )  # fmt: skip


MEASURES = {
    "train_loss": "train loss",
    "test_loss": "test loss",
    "restricted_projection": "restricted loss (key frequencies alone)",
    "excluded_loss": "excluded loss (train pairs, without them)",
    "trig_loss": "trig loss (key cosines alone)",
}


def _weight_sizes(c: TrainingCurves, phases: Mapping[str, Any]) -> Figure:
    tensors = {name.removeprefix("squared "): y for name, y in c.curves.items() if name.startswith("squared ")}
    curves = {"total": c.curves["squared_weights"]} | {_short(name, tensors): y for name, y in tensors.items()}
    caption = "Weight decay sheds what memorised once the circuit does the work: the sum of squares falls in cleanup."
    return _curves(
        "weights", "Sum of squared weights", c.epochs, curves, phases, y_label="sum of squares", caption=caption,
        source=f"{PAPER}, figure 7", group=PROGRESS, highlight=[0],
    )  # fmt: skip


def _short(name: str, names: Collection[str]) -> str:
    """A tensor by its own name, `W_K` for `blocks.0.attn.W_K`, with its layer where there are several."""
    last = name.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in names) == 1
    layer = re.match(r"blocks\.(\d+)\.", name)
    return last if alone or layer is None else f"L{layer[1]}.{last}"


def _by_frequency(c: TrainingCurves, name: str, ks: Sequence[int], phases: Mapping[str, Any]) -> Figure:
    curves = {f"k = {k}": y for k, y in enumerate(c.tables[name].T, 1)}
    return _curves(
        name, x=c.epochs, curves=curves, phases=phases, highlight=[k - 1 for k in ks], group=PROGRESS,
        **BY_FREQUENCY[name],
    )  # fmt: skip


BY_FREQUENCY: dict[str, dict[str, Any]] = {
    "excluded_by_frequency": {
        "title": "Excluded loss by frequency",
        "y_label": "loss (nats)",
        "log_y": True,
        "caption": "Loss on the training pairs without one frequency: without a key frequency it stays up, without "
        "any other it falls as the training loss does.",
        "source": f"{PAPER}, figure 12",
        "claims": ["every-key-frequency-counts"],
    },
    "cosine_coefficients": {
        "title": "Cosine coefficients of the logits",
        "y_label": "coefficient",
        "caption": "How much of each cos(w_k(a+b-c)) the logits hold. Many start; the key frequencies win.",
        "source": f"{PAPER}, figure 11",
        "claims": ["logit-variance"],
    },
}


def _concentration(c: TrainingCurves, phases: Mapping[str, Any]) -> Figure:
    names = {"gini_embedding": "embedding", "gini_neuron_logit": "neuron-logit map"}
    curves = {label: c.curves[name] for name, label in names.items() if name in c.curves}
    caption = "Gini coefficient of the Fourier norms: 0 when all components are alike, towards 1 when a few hold all."
    return _curves(
        "concentration", "Concentration in the Fourier basis", c.epochs, curves, phases, y_label="Gini",
        caption=caption, source=f"{PAPER}, appendix C.2", claims=["gini-embedding", "gini-neuron-logit"],
        group=PROGRESS,
    )  # fmt: skip


SPECTRA = {
    "embedding": ("Embedding", "3a", "norm over d_model"),
    "neuron_logit": ("Neuron-to-logit map", "3b", "norm over neurons"),
}


def _spectrum(c: TrainingCurves, name: str, ks: Sequence[int]) -> Figure:
    title, number, label = SPECTRA[name]
    y = c.tables[name]
    return bars(
        f"spectrum_{name}", f"{title} in the Fourier basis", y, names=ks_of(y.shape[1]), x_label="frequency k",
        y_label=label, highlight=[k - 1 for k in ks], source=f"{PAPER}, figure {number}", group=CIRCUIT,
        caption="At first all frequencies are alike; at the end a handful hold nearly all. Move the slider.",
        frames=frame_names(c.epochs), framed=["y"],
    )  # fmt: skip


def _singular_values(c: TrainingCurves) -> Figure:
    y = c.tables["neuron_logit_singular_values"]
    return bars(
        "singular_values", "Singular values of the neuron-to-logit map", y, names=ks_of(y.shape[1]), x_label="rank",
        y_label="singular value", source=f"{PAPER}, section 4.2", group=CIRCUIT,
        caption="They end in pairs, a cosine and a sine each: the count of frequencies without any Fourier basis.",
        frames=frame_names(c.epochs), framed=["y"],
    )  # fmt: skip


def _neuron_clusters(c: TrainingCurves) -> Figure:
    return scatter(
        "neuron_clusters", "Neurons: their frequency, and how much of them it explains", c.tables["neuron_frequency"],
        c.tables["neuron_fve"], x_label="dominant frequency k", y_label="fraction of variance explained",
        caption="Each dot is a neuron. They climb to the top at the key frequencies: one frequency each.",
        source=f"{PAPER}, figure 5a", claims=["neurons-one-frequency"], group="Neurons",
        frames=frame_names(c.epochs), framed=["x", "y"],
    )  # fmt: skip


def explorer(c: TrainingCurves, ks: Sequence[int], networks: Mapping[int, NetworkTensors]) -> Figure:
    """The reader's own set of frequencies: the folded logits of every frame, the train rows' logits of a few.

    `networks`, by epoch, are those whose train rows' logits the page carries; it computes the losses itself.
    """
    chosen = np.unique(np.linspace(0, len(c.epochs) - 1, MOST_FRAMES).round().astype(int))
    chosen = np.union1d(chosen, [c.epochs.index(epoch) for epoch in networks])
    epochs = [c.epochs[i] for i in chosen]
    n = c.tables["folded"].shape[1]
    data: dict[str, Any] = {
        "folded": c.tables["folded"][chosen],
        "full": np.zeros((0, 0, n), np.float16),
        "full_frames": [],
        "labels": frame_names(epochs),
        "epochs": np.array(epochs),
        "key_frequencies": list(ks),
        "modulus": n,
        "counts_all": np.full(n, n),
    }
    train = next(iter(networks.values())).train if networks else None
    if train is not None:
        a, b = train.nonzero().T
        data["counts_train"] = np.bincount(((a + b) % n).numpy(), minlength=n)
        data["full_train"] = torch.stack([a, b], 1).short().numpy()
        data["full"] = np.stack([centred(r.logits[a, b]).half().numpy() for r in networks.values()])
        data["full_frames"] = [epochs.index(epoch) for epoch in networks]
    caption = (
        "Pick any set of frequencies: the page recomputes the restricted loss (variant projection) at every "
        "checkpoint on the slider, and the excluded loss at those checkpoints that carry all train logits (stored "
        "as float16, so excluded losses below about 1e-3 are rounded)."
    )
    return widget(
        "explorer", "Choose the frequencies yourself", ASSET, data, caption=caption,
        source=f"{PAPER}, section 5.1", group="Explorer",
    )  # fmt: skip


def frame_names(epochs: Sequence[int]) -> list[str]:
    return [f"epoch {epoch}" for epoch in epochs]
