"""What one network shows: tables, spectra, heat maps in the token and the Fourier basis, neurons and attention.

Figure numbers in `source` are those of Nanda et al., "Progress measures for grokking via mechanistic interpretability"
(2023).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micrographia.core.basis import n_frequencies
from micrographia.core.figures import Figure, bars, histogram, table, text
from micrographia.labs.grokking import quantities
from micrographia.labs.grokking.network import NetworkTensors
from micrographia.methods.fourier import spectra
from micrographia.methods.fourier.activations import NeuronClusters
from micrographia.methods.fourier.figures import centred, component_names, fourier_map, frequency_names, pair_map

PAPER = "Nanda et al. 2023"
CIRCUIT, NEURONS = "The circuit", "Neurons"
MOST_VALUES = 12  # of a list in a cell
Rows = Sequence[Mapping[str, Any]]
COLUMNS = {
    "frequencies": {
        "k": "k", "kind": "kind", "energy": "logit energy", "p_value": "p-value", "loss_change": "loss rise without",
        "own_neurons": "own neurons", "neurons_p": "their p-value", "carried_by": "carried by",
    },
    "losses": {
        "name": "what", "loss": "loss", "ratio": "loss / network's", "accuracy": "accuracy",
        "train_loss": "train loss", "test_loss": "test loss",
    },
    "neuron_directions": {"k": "k", "cosine": "as cos(w_k(a+b))", "sine": "as sin(w_k(a+b))"},
    "attention": {
        "head": "head", "k": "k", "fve": "variance explained", "alpha": "alpha", "beta": "beta", "to_a": "to a",
        "to_b": "to b", "to_equals": "to equals",
    },
}  # fmt: skip
HEADINGS = {"attention": "The wave of each head", "neuron_directions": "What the read-out takes from the neurons"}
LOSSES = {
    "replacements": (
        "How well the algorithm alone does the task",
        "Parts of the network, and at last all of it, replaced by the formula above: how well does that do the task?",
    ),
    "ablations": (
        "Ablations and their controls",
        "What is lost when a part is ablated, beside controls that should matter little.",
    ),
}
CAPTIONS = {
    "energies": "Fraction of the row-centred logits in each cube that is present; the key ones are drawn strong.",
    "logit components": "Norm over c of every product of a wave of a and one of b. After grokking: a few blocks, cos "
    "and sin of one frequency each.",
    "logits": "After grokking: diagonal waves of a + b, highest where a + b = c; the maps differ by a shift alone.",
    "fve": "The further right, the more of a neuron's variance over pairs one frequency explains; after grokking most "
    "lie past the mark.",
    "neurons": "The most periodic neuron of each of four frequencies. After grokking each is a wave in a and in b.",
    "neuron components": "Norm over neurons. After grokking: the constant's row and column (waves of one operand) and "
    "the products of equal frequency.",
    "read-out": "Fourier norms over c of their rows of the neuron-to-logit map. After grokking: cos and sin of k = {k} "
    "alone.",
    "attention": "After grokking: a wave in a and in b; where a head gives less to a, it gives more to b.",
}


def tables(results: Mapping[str, Any]) -> list[Figure]:
    """What was found in numbers: frequencies, algorithm, replacements; and, not essential, everything else."""
    figures = [_frequencies(results)]
    if lines := results["algorithm"]:
        figures.append(_section(text, "algorithm", "The algorithm, read off the weights", lines, preformatted=True))
    for name, (title, caption) in LOSSES.items():
        if rows := results[name]:
            about = {"notes": [row["says"] for row in rows], "essential": name != "ablations", "caption": caption}
            figures.append(_section(table, name, title, rows, columns=COLUMNS["losses"], **about))
    return [*figures, *_measures(results["measures"])]


def _section(kind: Any, name: str, title: str, content: Any, **more: Any) -> Figure:
    """Alone under its heading."""
    return kind(name, title, content, group=title, **more)


def _frequencies(results: Mapping[str, Any]) -> Figure:
    rows, (keys, published) = results["frequencies"], (results[name] for name in ("key_frequencies", "published_rule"))
    caption = f"Key frequencies: {', '.join(map(str, keys))}." if keys else "No key frequency was found."
    rule = ", ".join(map(str, published)) or "none"
    caption += f" The published rule, the dominant frequency of any neuron, gives: {rule}."
    if results["overtones"]:
        caption += " An overtone is present in the logits, but is carried by another frequency's neurons."
    section = partial(_section, name="frequencies", title="The frequencies it uses")
    if not rows:
        return section(text, content=[caption])
    strong = [i for i, row in enumerate(rows) if row["kind"] == "key"]
    return section(table, content=rows, columns=COLUMNS["frequencies"], caption=caption, highlight=strong)


def _measures(measures: Mapping[str, Any]) -> list[Figure]:
    """Plain figures in one table; rows of figures in a table of their own; one a frequency has a picture."""
    inner = {name: rows for name, rows in measures.items() if name in HEADINGS and rows}
    lists = {name for name, x in measures.items() if isinstance(x, list) and len(x) > MOST_VALUES}
    rows = list(_flat({name: x for name, x in measures.items() if name not in inner.keys() | lists}))
    shown = partial(_section, table, essential=False)
    return [
        shown("measures", "All measures", rows, columns=["measure", "value"], caption="At the end of the run."),
        *(shown(f"measures_{name}", HEADINGS[name], each, columns=COLUMNS[name]) for name, each in inner.items()),
    ]


def _flat(measures: Mapping[str, Any], prefix: str = "") -> Iterator[list[Any]]:
    """Nested names with a comma between; the name of a tensor as it is."""
    for name, x in measures.items():
        label = prefix + (name if "." in name else name.replace("_", " "))
        yield from _flat(x, f"{label}, ") if isinstance(x, Mapping) else [[label, x]]


def of_network(r: NetworkTensors, ks: Sequence[int], frequencies: Rows) -> list[Figure]:
    """What the network itself shows."""
    circuit = {"source": f"{PAPER}, figure 4", "group": CIRCUIT}
    figures = [
        _energies(frequencies, len(r.logits)),
        fourier_map("logits_fourier", "Logits in the 2-D Fourier basis", centred(r.logits),
                    caption=CAPTIONS["logit components"], **{**circuit, "source": f"{PAPER}, figure 4c"}),
        pair_map("logits", "Logits of two answers", centred(r.logits)[..., :2], ["c = 0", "c = 1"],
              caption=CAPTIONS["logits"], **circuit),
    ]  # fmt: skip
    clusters = quantities.neuron_frequencies(r)
    if clusters is not None and r.neurons is not None and r.W_L is not None:
        figures += _of_neurons(r.neurons, r.W_L, clusters, ks)
    if r.pattern is not None:
        panels = [f"head {i}" for i in range(r.pattern.shape[2])]
        about = {"caption": CAPTIONS["attention"], "source": f"{PAPER}, figure 4a", "group": "Attention"}
        figures.append(pair_map("attention", 'Attention from "=" to a', r.pattern[..., 0], panels, **about))
    return figures


def _energies(frequencies: Rows, n: int) -> Figure:
    y = np.zeros(n_frequencies(n))
    for row in frequencies:
        y[row["k"] - 1] = row["energy"]
    return bars(
        "energies", "Logit energy in cos(w_k(a+b-c))", y, names=frequency_names(len(y)), x_label="frequency k",
        y_label="fraction of energy", highlight=[row["k"] - 1 for row in frequencies if row["kind"] != "overtone"],
        caption=CAPTIONS["energies"], source=f"{PAPER}, section 4.2", claims=["logit-variance"], group=CIRCUIT,
    )  # fmt: skip


def _of_neurons(neurons: Tensor, W_L: Tensor, clusters: NeuronClusters, ks: Sequence[int]) -> list[Figure]:
    fve = clusters.fve.nan_to_num(0.0)
    best = {int(clusters.frequency[i]): int(i) for i in fve.argsort(descending=True).flip(0)}
    chosen = sorted(best.values(), key=lambda i: -float(fve[i]))[:4]
    panels = [f"neuron {i} (k = {int(clusters.frequency[i])})" for i in chosen]
    about = {"source": f"{PAPER}, figure 4b", "group": NEURONS}
    figures = [
        histogram("fve", "How much of a neuron one frequency explains", clusters.fve[~clusters.fve.isnan()].numpy(),
                  bins=40, x_label="fraction of variance explained", y_label="neurons",
                  marks=[{"name": "0.85", "x": 0.85}], caption=CAPTIONS["fve"], source=f"{PAPER}, figure 5a",
                  claims=["neurons-one-frequency"], group=NEURONS),
        pair_map("neurons", "Four neurons over all pairs", neurons[..., chosen], panels, caption=CAPTIONS["neurons"],
              **about),
        fourier_map("neurons_fourier", "Neurons in the 2-D Fourier basis", neurons,
                    caption=CAPTIONS["neuron components"], **about),
    ]  # fmt: skip
    return [*figures, _cluster_read_out(W_L, clusters, ks[0])] if ks else figures


def _cluster_read_out(W_L: Tensor, clusters: NeuronClusters, k: int) -> Figure:
    own, n = (clusters.frequency == k).nonzero()[:, 0], W_L.shape[1]
    norms = spectra.spectrum(W_L[own].T).rows if len(own) else torch.zeros(n, dtype=torch.float64)
    return bars(
        "cluster_read_out", f"What the neurons of k = {k} write to the logits", norms.float().numpy(),
        names=component_names(n), x_label="component of c", y_label="norm", highlight=[2 * k - 1, 2 * k],
        caption=CAPTIONS["read-out"].format(k=k), source=f"{PAPER}, figure 5b", group=NEURONS,
    )  # fmt: skip
