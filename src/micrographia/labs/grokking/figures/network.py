"""What one network shows: spectra, heat maps in the token and the Fourier basis, neurons and attention.

Figure numbers in `source` are those of Nanda et al., "Progress measures for grokking via mechanistic interpretability"
(2023).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micrographia.core.basis import n_frequencies
from micrographia.core.figures import Figure
from micrographia.labs.grokking import measure
from micrographia.labs.grokking.figures.shared import PAPER, centred, components_of, ks_of
from micrographia.labs.grokking.reading import Reading
from micrographia.methods.fourier import spectra


def of_network(r: Reading, ks: Sequence[int], frequencies: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """What the network itself shows."""
    figures = [energies(frequencies, len(r.logits)), logits_by_component(r), logit_map(r)]
    if r.neurons is not None:
        figures += [fve_histogram(r), neuron_maps(r), neurons_by_component(r)]
    if r.neurons is not None and ks:
        figures.append(cluster_read_out(r, ks[0]))
    return [*figures, *([attention_maps(r)] if r.pattern is not None else [])]


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
        data={"y": values, "names": ks_of(len(values)), "x_label": "frequency k", "y_label": "share of energy",
              "highlight": [row["k"] - 1 for row in frequencies if row["kind"] != "overtone"]},
        group="The circuit",
    )  # fmt: skip


def logits_by_component(r: Reading) -> Figure:
    norms = spectra.two_d_spectrum(centred(r.logits))
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
    components = components_of(len(norms))
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
        "logits", "Logits of two answers", centred(r.logits)[..., :2].permute(2, 0, 1), ["c = 0", "c = 1"], "4",
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
    components = components_of(n)
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
