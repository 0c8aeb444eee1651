"""The paper's figures as data, one function each.

`of_training` draws what needs snapshots (curves, sliders, the explorer), `of_network` what one network shows. Figure
numbers in `source` are those of Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micrographia.core.basis import n_frequencies
from micrographia.core.claims import Figure
from micrographia.labs.grokking import measure
from micrographia.labs.grokking.along import Along
from micrographia.labs.grokking.reading import Reading
from micrographia.methods.fourier import spectra

PAPER = "Nanda et al. 2023"
MOST_POINTS = 4000  # of a curve
MOST_FRAMES = 30  # of the explorer: with plotly's own 4.7 MB the report stays near 10 MB
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


def of_network(r: Reading, ks: Sequence[int], frequencies: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """What the network itself shows."""
    figures = [energies(frequencies, len(r.logits)), logits_by_component(r), logit_map(r)]
    if r.neurons is not None:
        figures += [fve_histogram(r), neuron_maps(r), neurons_by_component(r)]
    if r.neurons is not None and ks:
        figures.append(cluster_read_out(r, ks[0]))
    return [*figures, *([attention_maps(r)] if r.pattern is not None else [])]


def _lines(name: str, title: str, caption: str, x: Any, curves: Mapping[str, Any], bands: Bands, **more: Any) -> Figure:
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
    return _lines(
        "losses", "Training and test loss", caption, np.asarray(rows["epoch"])[keep],
        {"train loss": train[keep], "test loss": test[keep]}, bands,
        y_label="loss (nats)", log_y=True, source=f"{PAPER}, figure 2", claims=("phases-in-order",), group="The run",
    )  # fmt: skip


def accuracy(rows: Mapping[str, Sequence[float]], bands: Bands) -> Figure:
    values = np.asarray(rows["test_accuracy"], dtype=np.float64)
    seen = ~np.isnan(values)
    return _lines(
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
    return _lines(
        "progress", "Restricted, excluded and trig loss", caption, along.epochs, curves, bands,
        y_label="loss (nats)", log_y=True, source=f"{PAPER}, figure 7", group="Progress measures",
        claims=("phases-in-order", "algorithm-beats-network"),
    )  # fmt: skip


def weight_sizes(along: Along, bands: Bands) -> Figure:
    curves = {"total": along.curves["squared_weights"]}
    tensors = {n.removeprefix("squared "): c for n, c in along.curves.items() if n.startswith("squared ")}
    curves |= {_short(name, tensors): curve for name, curve in tensors.items()}
    caption = "Weight decay sheds what memorised once the circuit does the work: the sum of squares falls in cleanup."
    return _lines(
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
    return _lines(
        table, title, caption, along.epochs, curves, bands, group="Progress measures", highlight=chosen, **more
    )


def concentration(along: Along, bands: Bands) -> Figure:
    names = {"gini_embedding": "embedding", "gini_neuron_logit": "neuron-logit map"}
    curves = {label: along.curves[name] for name, label in names.items() if name in along.curves}
    caption = "Gini coefficient of the Fourier norms: 0 when all components are alike, towards 1 when a few hold all."
    return _lines(
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
        data={"y": values, "names": _ks(values.shape[1]), "x_label": "frequency k", "y_label": label,
              "highlight": [k - 1 for k in ks]},
        frames=_labels(along.epochs),
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
        data={"y": values, "names": _ks(values.shape[1]), "x_label": "rank", "y_label": "singular value"},
        frames=_labels(along.epochs),
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
        frames=_labels(along.epochs),
        framed=("x", "y"),
        group="Neurons",
    )


def explorer(along: Along, ks: Sequence[int], readings: Mapping[int, Reading]) -> Figure:
    """The reader's own set of frequencies: the folded logits of every frame, the train rows' logits of a few."""
    chosen = np.unique(np.linspace(0, len(along.epochs) - 1, MOST_FRAMES).round().astype(int))
    chosen = np.union1d(chosen, [along.epochs.index(epoch) for epoch in readings])
    epochs = [along.epochs[i] for i in chosen]
    n = along.tables["folded"].shape[1]
    data: dict[str, Any] = {
        "folded": along.tables["folded"][chosen],
        "full": np.zeros((0, 0, n), np.float16),
        "full_frames": [],
        "labels": list(_labels(epochs)),
        "epochs": np.array(epochs),
        "key_frequencies": list(ks),
        "modulus": n,
        "counts_all": np.full(n, n),
    }
    train = next(iter(readings.values())).train if readings else None
    if train is not None:
        a, b = train.nonzero().T
        data["counts_train"] = np.bincount(((a + b) % n).numpy(), minlength=n)
        data["full_train"] = torch.stack([a, b], 1).short().numpy()
        data["full"] = np.stack([_centred(r.logits[a, b]).half().numpy() for r in readings.values()])
        data["full_frames"] = [epochs.index(epoch) for epoch in readings]
    return Figure(
        name="explorer",
        kind="explorer",
        title="Choose the frequencies yourself",
        caption=(
            "Pick any set of frequencies: the page recomputes the restricted loss (variant projection) at every "
            "checkpoint on the slider, and the excluded loss at those checkpoints that carry all train logits (stored "
            "as float16, so excluded losses below about 1e-3 are rounded)."
        ),
        source=f"{PAPER}, section 5.1",
        data=data,
        group="Explorer",
    )


def energies(frequencies: Sequence[Mapping[str, Any]], n: int) -> Figure:
    values = np.zeros(n_frequencies(n))
    for row in frequencies:
        values[row["k"] - 1] = row["energy"]
    return Figure(
        name="energies",
        kind="bars",
        title="Logit energy in cos(w_k(a+b-c))",
        caption="The share of the row-centred logits in each cube that is present; the key ones are drawn strong.",
        source=f"{PAPER}, section 4.2",
        claims=("logit-variance",),
        data={"y": values, "names": _ks(len(values)), "x_label": "frequency k", "y_label": "share of energy",
              "highlight": [row["k"] - 1 for row in frequencies if row["kind"] != "overtone"]},
        group="The circuit",
    )  # fmt: skip


def logits_by_component(r: Reading) -> Figure:
    norms = spectra.two_d_spectrum(_centred(r.logits))
    return _components(
        "logits_fourier", "Logits in the 2-D Fourier basis", norms, "4c", "The circuit",
        "Norm over c of every product of a wave of a and one of b: a few blocks, cos and sin of one frequency each.",
    )  # fmt: skip


def neurons_by_component(r: Reading) -> Figure:
    assert r.neurons is not None
    return _components(
        "neurons_fourier", "Neurons in the 2-D Fourier basis", spectra.two_d_spectrum(r.neurons), "4b", "Neurons",
        "Norm over neurons: the constant's row and column (waves of one operand) and the products of equal frequency.",
    )  # fmt: skip


def _components(name: str, title: str, norms: Tensor, number: str, group: str, caption: str) -> Figure:
    norms = norms.clone()
    norms[0, 0] = torch.nan  # the mean over pairs would hide all else
    components = _components_of(len(norms))
    data = {"z": norms[None].float().numpy(), "panels": [""], "x_label": "component of b", "y_label": "component of a"}
    return Figure(
        name=name, kind="heatmap", title=title, caption=caption, source=f"{PAPER}, figure {number}", group=group,
        data={**data, "x_names": components, "y_names": components, "colour": "sequential"},
    )  # fmt: skip


def _maps(name: str, title: str, z: Tensor, panels: Sequence[str], number: str, group: str, caption: str) -> Figure:
    data = {"z": z.float().numpy(), "panels": list(panels), "x_label": "b", "y_label": "a", "colour": "sequential"}
    return Figure(
        name=name,
        kind="heatmap",
        title=title,
        caption=caption,
        source=f"{PAPER}, figure {number}",
        data=data,
        group=group,
    )


def logit_map(r: Reading) -> Figure:
    return _maps(
        "logits", "Logits of two answers", _centred(r.logits)[..., :2].permute(2, 0, 1), ["c = 0", "c = 1"], "4",
        "The circuit", "Diagonal waves of a + b, highest where a + b = c; the two maps are the same but for a shift.",
    )  # fmt: skip


def neuron_maps(r: Reading) -> Figure:
    clusters = measure.neuron_frequencies(r)
    assert clusters is not None
    assert r.neurons is not None
    best = clusters.fve.nan_to_num(0.0).argsort(descending=True)
    firsts = {int(clusters.frequency[i]): int(i) for i in best.flip(0)}  # the best neuron of each frequency
    chosen = sorted(firsts.values(), key=lambda i: -float(clusters.fve[i].nan_to_num(0.0)))[:4]
    panels = [f"neuron {i} (k = {int(clusters.frequency[i])})" for i in chosen]
    return _maps(
        "neurons", "Four neurons over all pairs", r.neurons[..., chosen].permute(2, 0, 1), panels, "4b", "Neurons",
        "Each neuron is periodic in a and in b with one frequency: the most periodic neuron of four frequencies.",
    )  # fmt: skip


def attention_maps(r: Reading) -> Figure:
    assert r.pattern is not None
    heads = r.pattern[..., 0].permute(2, 0, 1)
    panels = [f"head {i}" for i in range(len(heads))]
    return _maps(
        "attention", 'Attention from "=" to a', heads, panels, "4a", "Attention",
        "Each head's attention is a wave in a and in b; where it gives less to a, it gives more to b.",
    )  # fmt: skip


def fve_histogram(r: Reading) -> Figure:
    clusters = measure.neuron_frequencies(r)
    assert clusters is not None
    fve = clusters.fve[~clusters.fve.isnan()].numpy()
    return Figure(
        name="fve",
        kind="histogram",
        title="How much of a neuron one frequency explains",
        caption="Most neurons stand at the right: one frequency explains nearly all their variance over pairs.",
        source=f"{PAPER}, figure 5a",
        claims=("neurons-one-frequency",),
        data={"values": fve, "x_label": "fraction of variance explained", "y_label": "neurons", "bins": 40,
              "marks": [{"name": "0.85", "x": 0.85}]},
        group="Neurons",
    )  # fmt: skip


def cluster_read_out(r: Reading, k: int) -> Figure:
    clusters = measure.neuron_frequencies(r)
    assert clusters is not None
    assert r.W_L is not None
    own = (clusters.frequency == k).nonzero()[:, 0]
    n = r.W_L.shape[1]
    norms = spectra.spectrum(r.W_L[own].T).rows if len(own) else torch.zeros(n, dtype=torch.float64)
    components = _components_of(n)
    return Figure(
        name="cluster_read_out",
        kind="bars",
        title=f"What the neurons of k = {k} write to the logits",
        caption=f"Fourier norms over c of their rows of the neuron-to-logit map: cos and sin of k = {k} alone.",
        source=f"{PAPER}, figure 5b",
        data={"y": norms.float().numpy(), "names": components, "x_label": "component of c", "y_label": "norm",
              "highlight": [2 * k - 1, 2 * k]},
        group="Neurons",
    )  # fmt: skip


def _components_of(n: int) -> list[str]:
    """Names of the rows of the Fourier basis: 1, cos 1, sin 1, ..."""
    waves = [f"{wave} {k}" for k in range(1, n) for wave in ("cos", "sin")]
    return ["1", *waves[: n - 1]]


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(-1, keepdim=True)


def _ks(count: int) -> list[str]:
    return [str(k) for k in range(1, count + 1)]


def _labels(epochs: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"epoch {epoch}" for epoch in epochs)
