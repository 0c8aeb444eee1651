"""What one network shows: tables, spectra, heat maps in the token and the Fourier basis, neurons and attention.

Figure numbers in `source` are those of Nanda et al., "Progress measures for grokking via mechanistic interpretability"
(2023).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micrographia.core.basis import n_frequencies
from micrographia.core.figures import Figure, bars, heatmap, histogram, table, text
from micrographia.labs.grokking import quantities
from micrographia.labs.grokking.network import NetworkTensors
from micrographia.methods.fourier import spectra
from micrographia.methods.fourier.neurons import NeuronClusters

PAPER = "Nanda et al. 2023"
CIRCUIT, NEURONS = "The circuit", "Neurons"
MOST_VALUES = 12  # of a list in a cell
Results = Mapping[str, Any]


def tables(results: Results) -> list[Figure]:
    """What was found in numbers: frequencies, algorithm, replacements; and, not essential, everything else."""
    figures = [_frequencies(results), *_algorithm(results["algorithm"])]
    figures += [_rows(name, results[name], **about) for name, about in ROWS.items() if results[name]]
    return [*figures, *_measures(results["measures"])]


def _frequencies(results: Results) -> Figure:
    rows, published = results["frequencies"], results["published_rule"]
    keys = results["key_frequencies"]
    caption = f"Key frequencies: {_listed(keys)}." if keys else "No key frequency was found."
    caption += f" The published rule, the dominant frequency of any neuron, gives: {_listed(published)}."
    if results["overtones"]:
        caption += " An overtone is present in the logits, but is carried by another frequency's neurons."
    about: dict[str, Any] = {"name": "frequencies", "title": "The frequencies it uses"}
    about["group"] = about["title"]
    if not rows:
        return text(**about, paragraphs=[caption])
    strong = [i for i, row in enumerate(rows) if row["kind"] == "key"]
    return table(**about, rows=rows, columns=FREQUENCY_COLUMNS, caption=caption, highlight=strong)


FREQUENCY_COLUMNS = {
    "k": "k",
    "kind": "kind",
    "energy": "logit energy",
    "p_value": "p-value",
    "loss_change": "loss rise without",
    "own_neurons": "own neurons",
    "carried_by": "carried by",
}


def _listed(ks: Sequence[int]) -> str:
    return ", ".join(map(str, ks)) or "none"


def _algorithm(lines: Sequence[str]) -> list[Figure]:
    title = "The algorithm, read off the weights"
    return [text("algorithm", title, lines, preformatted=True, group=title)] if lines else []


def _rows(name: str, rows: Sequence[Mapping[str, Any]], title: str, caption: str, essential: bool = True) -> Figure:
    return table(
        name, title, rows, columns=ROW_COLUMNS, notes=[row["says"] for row in rows], caption=caption, group=title,
        essential=essential,
    )  # fmt: skip


ROW_COLUMNS = {
    "name": "what",
    "loss": "loss",
    "ratio": "to the network's",
    "accuracy": "accuracy",
    "train_loss": "train loss",
    "test_loss": "test loss",
}
ROWS: dict[str, dict[str, Any]] = {
    "replacements": {
        "title": "How well the algorithm alone does the task",
        "caption": "Parts of the network, and at last all of it, replaced by the formula above: how well does that do "
        "the task?",
    },
    "ablations": {
        "title": "Ablations and their controls",
        "caption": "What is lost when a part is ablated, beside controls that should matter little.",
        "essential": False,
    },
}


def _measures(measures: Results) -> list[Figure]:
    """Plain figures in one table; rows of figures in a table of their own; one a frequency has a picture."""
    inner = {name: rows for name, rows in measures.items() if name in MEASURE_TABLES and rows}
    plain = {name: x for name, x in measures.items() if name not in inner and not _is_long(x)}
    title = "All measures"
    rows = [[label, value] for label, value in _flat(plain)]
    about: dict[str, Any] = {"group": title, "caption": "At the end of the run.", "essential": False}
    figures = [table("measures", title, rows, columns=["measure", "value"], **about)]
    for name, found in inner.items():
        title, columns = MEASURE_TABLES[name]
        figures.append(table(f"measures_{name}", title, found, columns=columns, group=title, essential=False))
    return figures


MEASURE_TABLES = {
    "neuron_directions": (
        "What the read-out takes from the neurons",
        {"k": "k", "cosine": "as cos(w_k(a+b))", "sine": "as sin(w_k(a+b))"},
    ),
    "attention": (
        "The wave of each head",
        {"head": "head", "k": "k", "fve": "variance explained", "alpha": "alpha", "beta": "beta", "to_a": "to a",
         "to_b": "to b", "to_equals": "to equals"},
    ),
}  # fmt: skip


def _is_long(x: Any) -> bool:
    return isinstance(x, Sequence) and not isinstance(x, str) and len(x) > MOST_VALUES


def _flat(measures: Results, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names with a comma between; the name of a tensor as it is."""
    for name, x in measures.items():
        label = prefix + (name if "." in name else name.replace("_", " "))
        yield from _flat(x, f"{label}, ") if isinstance(x, Mapping) else [(label, x)]


def of_network(r: NetworkTensors, ks: Sequence[int], frequencies: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """What the network itself shows."""
    figures = [_energies(frequencies, len(r.logits)), _components("logits", centred(r.logits))]
    figures.append(_maps("logits", centred(r.logits)[..., :2], ["c = 0", "c = 1"]))
    clusters = quantities.neuron_frequencies(r)
    if r.neurons is not None and clusters is not None:
        figures += [_fve(clusters), _neuron_maps(r.neurons, clusters), _components("neurons", r.neurons)]
    if r.W_L is not None and clusters is not None and ks:
        figures.append(_cluster_read_out(r.W_L, clusters, ks[0]))
    if r.pattern is not None:
        figures.append(_maps("attention", r.pattern[..., 0], [f"head {i}" for i in range(r.pattern.shape[2])]))
    return figures


def _energies(frequencies: Sequence[Mapping[str, Any]], n: int) -> Figure:
    y = np.zeros(n_frequencies(n))
    for row in frequencies:
        y[row["k"] - 1] = row["energy"]
    return bars(
        "energies", "Logit energy in cos(w_k(a+b-c))", y, names=ks_of(len(y)), x_label="frequency k",
        y_label="fraction of energy", highlight=[row["k"] - 1 for row in frequencies if row["kind"] != "overtone"],
        caption="Fraction of the row-centred logits in each cube that is present; the key ones are drawn strong.",
        source=f"{PAPER}, section 4.2", claims=["logit-variance"], group=CIRCUIT,
    )  # fmt: skip


def _components(name: str, x: Tensor) -> Figure:
    """The norm of each 2-D Fourier component, but of the constant, which would hide all else."""
    norms = spectra.two_d_spectrum(x).clone()
    norms[0, 0] = torch.nan
    names = components_of(len(norms))
    return heatmap(
        f"{name}_fourier", z=norms.float().numpy(), x=names, y=names, x_label="component of b",
        y_label="component of a", **COMPONENTS[name],
    )  # fmt: skip


COMPONENTS: dict[str, dict[str, Any]] = {
    "logits": {
        "title": "Logits in the 2-D Fourier basis",
        "caption": "Norm over c of every product of a wave of a and one of b: a few blocks, cos and sin of one "
        "frequency each.",
        "source": f"{PAPER}, figure 4c",
        "group": CIRCUIT,
    },
    "neurons": {
        "title": "Neurons in the 2-D Fourier basis",
        "caption": "Norm over neurons: the constant's row and column (waves of one operand) and the products of equal "
        "frequency.",
        "source": f"{PAPER}, figure 4b",
        "group": NEURONS,
    },
}


def _maps(name: str, x: Tensor, panels: Sequence[str]) -> Figure:
    """Over all pairs: x (a, b, panel)."""
    z = x.permute(2, 0, 1).float().numpy()
    return heatmap(name, z=z, panels=panels, x_label="b", y_label="a", **MAPS[name])


MAPS: dict[str, dict[str, Any]] = {
    "logits": {
        "title": "Logits of two answers",
        "caption": "Diagonal waves of a + b, highest where a + b = c; the two maps are the same but for a shift.",
        "source": f"{PAPER}, figure 4",
        "group": CIRCUIT,
    },
    "neurons": {
        "title": "Four neurons over all pairs",
        "caption": "Each neuron is periodic in a and in b with one frequency: the most periodic neuron of four "
        "frequencies.",
        "source": f"{PAPER}, figure 4b",
        "group": NEURONS,
    },
    "attention": {
        "title": 'Attention from "=" to a',
        "caption": "Each head's attention is a wave in a and in b; where it gives less to a, it gives more to b.",
        "source": f"{PAPER}, figure 4a",
        "group": "Attention",
    },
}


def _neuron_maps(x: Tensor, clusters: NeuronClusters) -> Figure:
    fve = clusters.fve.nan_to_num(0.0)
    best = {int(clusters.frequency[i]): int(i) for i in fve.argsort(descending=True).flip(0)}
    chosen = sorted(best.values(), key=lambda i: -float(fve[i]))[:4]
    return _maps("neurons", x[..., chosen], [f"neuron {i} (k = {int(clusters.frequency[i])})" for i in chosen])


def _fve(clusters: NeuronClusters) -> Figure:
    return histogram(
        "fve", "How much of a neuron one frequency explains", clusters.fve[~clusters.fve.isnan()].numpy(), bins=40,
        x_label="fraction of variance explained", y_label="neurons", marks=[{"name": "0.85", "x": 0.85}],
        caption="Most neurons lie at the right: one frequency explains nearly all their variance over pairs.",
        source=f"{PAPER}, figure 5a", claims=["neurons-one-frequency"], group=NEURONS,
    )  # fmt: skip


def _cluster_read_out(W_L: Tensor, clusters: NeuronClusters, k: int) -> Figure:
    own, n = (clusters.frequency == k).nonzero()[:, 0], W_L.shape[1]
    norms = spectra.spectrum(W_L[own].T).rows if len(own) else torch.zeros(n, dtype=torch.float64)
    return bars(
        "cluster_read_out", f"What the neurons of k = {k} write to the logits", norms.float().numpy(),
        names=components_of(n), x_label="component of c", y_label="norm", highlight=[2 * k - 1, 2 * k],
        caption=f"Fourier norms over c of their rows of the neuron-to-logit map: cos and sin of k = {k} alone.",
        source=f"{PAPER}, figure 5b", group=NEURONS,
    )  # fmt: skip


def centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(-1, keepdim=True)


def components_of(n: int) -> list[str]:
    """Names of the rows of the Fourier basis: 1, cos 1, sin 1, ..."""
    return ["1", *(f"{wave} {k}" for k in range(1, n) for wave in ("cos", "sin"))][:n]


def ks_of(count: int) -> list[str]:
    return [str(k) for k in range(1, count + 1)]
