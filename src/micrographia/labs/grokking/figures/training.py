"""What training shows: curves with the phases as bands, sliders over the snapshots, and the explorer.

Figure numbers in `source` are those of Nanda et al., "Progress measures for grokking via mechanistic interpretability"
(2023).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from micrographia.core.figures import Figure, bars, lines, scatter, table, widget
from micrographia.labs.grokking.figures.network import CIRCUIT, NEURONS, PAPER
from micrographia.labs.grokking.network import NetworkTensors
from micrographia.labs.grokking.training_curves import TrainingCurves
from micrographia.methods.fourier.figures import centred, frequency_names
from micrographia.methods.phases import bands

ASSET = "micrographia.labs.grokking:explorer.js"
MOST_POINTS = 4000  # of a curve
MOST_FRAMES = 30  # of the explorer: with plotly's own 4.7 MB the report stays near 10 MB
PHASES = {
    "memorised": "memorised: the training loss has fallen",
    "circuit": "circuit: the restricted loss is half-way down",
    "circuit_formed": "cleanup begins: the test loss starts to fall",
    "cleanup": "grokked: the test loss is half-way down",
    "settled": "settled: the weights have stopped shrinking",
}
MEASURES = {
    "train_loss": "train loss",
    "test_loss": "test loss",
    "restricted_projection": "restricted loss (key frequencies alone)",
    "excluded_loss": "excluded loss (train pairs, without them)",
    "trig_loss": "trig loss (key cosines alone)",
}
SPECTRA = (
    ("embedding", "Embedding", "3a", "norm over d_model"),
    ("neuron_logit", "Neuron-to-logit map", "3b", "norm over neurons"),
)
CAPTIONS = {
    "losses": "In grokking the training loss falls at once; the loss on unseen pairs first rises, then falls by orders "
    "of magnitude, long after. Bands are the phases found by change points.",
    "accuracy": "The fraction of unseen pairs that are answered correctly: grokking is a late jump.",
    "phases": "From change points in the measures along training, not by eye. A dash: it did not happen in this run.",
    "progress": "In grokking the restricted loss falls long before the test loss: the circuit forms while the network "
    "still memorises. Excluded loss then rises as the network comes to rely on the circuit, and stays up in cleanup.",
    "weights": "In grokking the sum of squares falls in cleanup: weight decay removes what memorised once the circuit "
    "does the work.",
    "excluded": "The loss on the training pairs without one frequency: it stays up where the network relies on it.",
    "cosines": "How much of each cos(w_k(a+b-c)) the logits hold. In grokking many start and the key frequencies win.",
    "gini": "Gini coefficient of the Fourier norms: 0 when all components are alike, towards 1 when a few hold all.",
    "spectrum": "At first all frequencies are alike; after grokking a handful hold nearly all. Move the slider.",
    "singular": "After grokking they come in pairs, a cosine and a sine each: frequencies counted without a basis.",
    "clusters": "Each dot is a neuron. In grokking they climb to the top at the key frequencies: one frequency each.",
    "explorer": "Pick any set of frequencies: the page recomputes the restricted loss (variant projection) at every "
    "checkpoint on the slider, and the excluded loss at those checkpoints that carry all train logits (stored as "
    "float16, so excluded losses below about 1e-3 are rounded).",
}


def of_run(rows: Mapping[str, Sequence[float]], phases: Mapping[str, Any]) -> list[Figure]:
    """Losses and accuracy at every epoch that was measured, and when each phase ended."""
    names = ("epoch", "train_loss", "test_loss", "test_accuracy")
    epoch, train, test, right = (np.asarray(rows[name], dtype=np.float64) for name in names)
    seen = ~np.isnan(test)
    keep = seen | (np.arange(len(train)) % -(-len(train) // MOST_POINTS) == 0)
    test = np.interp(np.arange(len(test)), np.flatnonzero(seen), test[seen])
    curves = partial(_curves, phases=phases, group="The run", source=f"{PAPER}, figure 2")
    losses, accuracy = {"train loss": train[keep], "test loss": test[keep]}, {"test accuracy": right[seen]}
    return [
        curves("losses", "Training and test loss", epoch[keep], losses, y_label="loss (nats)", log_y=True,
               caption=CAPTIONS["losses"], claims=["phases-in-order"]),
        curves("accuracy", "Test accuracy", epoch[seen], accuracy, y_label="fraction right",
               caption=CAPTIONS["accuracy"], claims=["generalises"]),
        *_phase_table(phases),
    ]  # fmt: skip


def _phase_table(phases: Mapping[str, Any]) -> list[Figure]:
    if all(phases.get(name) is None for name in PHASES):
        return []
    spans = {name: "{:,.0f} to {:,.0f}".format(*span) for name, span in phases["intervals"].items() if span}
    rows = [[text, phases[name], spans.get(name, "")] for name, text in PHASES.items()]
    columns = ["what happened", "epoch", "between"]
    return [table("phases", "The phases", rows, columns=columns, caption=CAPTIONS["phases"], group="The phases")]


def _curves(name: str, title: str, x: Any, curves: Mapping[str, Any], phases: Mapping[str, Any], **more: Any) -> Figure:
    y = np.stack([np.asarray(curve, dtype=np.float64) for curve in curves.values()])
    every = slice(None, None, -(-y.shape[1] // MOST_POINTS))
    x, y = np.asarray(x)[every], y[:, every]
    return lines(name, title, x, y, names=list(curves), x_label="epoch", bands=bands(phases), **more)


def of_snapshots(c: TrainingCurves, ks: Sequence[int]) -> list[Figure]:
    """Spectra and neurons, with a slider over the snapshots."""
    strong, frames = [k - 1 for k in ks], frame_names(c.epochs)
    figures = [
        bars(f"spectrum_{name}", f"{title} in the Fourier basis", y, names=frequency_names(y.shape[1]), group=CIRCUIT,
             x_label="frequency k", y_label=label, highlight=strong, caption=CAPTIONS["spectrum"],
             source=f"{PAPER}, figure {number}", frames=frames, framed=["y"])
        for name, title, number, label in SPECTRA if (y := c.tables.get(name)) is not None
    ]  # fmt: skip
    if "neuron_fve" not in c.tables:
        return figures
    values = c.tables["neuron_logit_singular_values"]
    return [
        *figures,
        bars("singular_values", "Singular values of the neuron-to-logit map", values, group=CIRCUIT, frames=frames,
             framed=["y"], names=frequency_names(values.shape[1]), x_label="rank", y_label="singular value",
             caption=CAPTIONS["singular"], source=f"{PAPER}, section 4.2"),
        scatter("neuron_clusters", "Neurons: their frequency, and how much of them it explains",
                c.tables["neuron_frequency"], c.tables["neuron_fve"], x_label="dominant frequency k",
                y_label="fraction of variance explained", caption=CAPTIONS["clusters"], source=f"{PAPER}, figure 5a",
                claims=["neurons-one-frequency"], group=NEURONS, frames=frames, framed=["x", "y"]),
    ]  # fmt: skip


def of_progress(c: TrainingCurves, ks: Sequence[int], phases: Mapping[str, Any]) -> list[Figure]:
    """The progress measures, section 5 of the paper."""
    over = partial(_curves, x=c.epochs, phases=phases, group="Progress measures")
    strong = [k - 1 for k in ks]
    sizes = {name.removeprefix("squared "): y for name, y in c.curves.items() if name.startswith("squared ")}
    sizes = {"total": c.curves["squared_weights"]} | {_short(name, sizes): y for name, y in sizes.items()}
    gini = {"gini_embedding": "embedding", "gini_neuron_logit": "neuron-logit map"}
    by_k = {name: {f"k = {k}": y for k, y in enumerate(c.tables[name].T, 1)} for name in BY_FREQUENCY}
    return [
        over("progress", "Restricted, excluded and trig loss",
             curves={label: c.curves[name] for name, label in MEASURES.items()}, y_label="loss (nats)", log_y=True,
             caption=CAPTIONS["progress"], source=f"{PAPER}, figure 7",
             claims=["phases-in-order", "algorithm-beats-network"]),
        over("weights", "Sum of squared weights", curves=sizes, y_label="sum of squares", highlight=[0],
             caption=CAPTIONS["weights"], source=f"{PAPER}, figure 7"),
        over("excluded_by_frequency", "Excluded loss by frequency", curves=by_k["excluded_by_frequency"],
             y_label="loss (nats)", log_y=True, highlight=strong, caption=CAPTIONS["excluded"],
             source=f"{PAPER}, figure 12", claims=["every-key-frequency-counts"]),
        over("cosine_coefficients", "Cosine coefficients of the logits", curves=by_k["cosine_coefficients"],
             y_label="coefficient", highlight=strong, caption=CAPTIONS["cosines"], source=f"{PAPER}, figure 11",
             claims=["logit-variance"]),
        over("concentration", "Concentration in the Fourier basis",
             curves={label: c.curves[name] for name, label in gini.items() if name in c.curves}, y_label="Gini",
             caption=CAPTIONS["gini"], source=f"{PAPER}, appendix C.2", claims=["gini-embedding", "gini-neuron-logit"]),
    ]  # fmt: skip


BY_FREQUENCY = ("excluded_by_frequency", "cosine_coefficients")


def _short(name: str, names: Collection[str]) -> str:
    """A tensor by its own name, `W_K` for `blocks.0.attn.W_K`, with its layer where there are several."""
    last = name.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in names) == 1
    layer = re.match(r"blocks\.(\d+)\.", name)
    return last if alone or layer is None else f"L{layer[1]}.{last}"


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
    about = {"caption": CAPTIONS["explorer"], "source": f"{PAPER}, section 5.1", "group": "Explorer"}
    return widget("explorer", "Choose the frequencies yourself", ASSET, data, **about)


def frame_names(epochs: Sequence[int]) -> list[str]:
    return [f"epoch {epoch}" for epoch in epochs]
