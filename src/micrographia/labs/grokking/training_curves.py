"""Training curves: the cheap measures at every snapshot, for the key frequencies found at the end, and the phases.

A curve is one number a snapshot, a table a row of them. About a third of a second a snapshot at p = 113.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from micrographia.core.basis import fold
from micrographia.core.events import Progress, Watch
from micrographia.core.train_loop import Rows
from micrographia.labs.grokking import quantities
from micrographia.labs.grokking.network import NetworkTensors
from micrographia.methods.fourier import cubes, spectra
from micrographia.methods.phases import find_phases

SINGULAR_VALUES = 24
DENSE = ("epoch", "train_loss", "test_loss", "squared_weights")
"""Columns of the Run's rows: known at more epochs than there are snapshots."""


class TrainingCurves(NamedTuple):
    """`curves[name]` is (snapshot,), `tables[name]` (snapshot, ...)."""

    epochs: list[int]
    curves: dict[str, np.ndarray]
    tables: dict[str, np.ndarray]


def training_curves(
    network_at: Callable[[int], NetworkTensors], epochs: Sequence[int], ks: Sequence[int], watch: Watch
) -> TrainingCurves:
    """Measure the network of every epoch. Holds one network's activations at a time."""
    found: list[tuple[dict[str, float], dict[str, Tensor]]] = []
    for done, epoch in enumerate(epochs, 1):
        r = network_at(epoch)
        found.append((curves_of(r, ks), tables_of(r)))
        watch(Progress("measure along training", done, len(epochs), "snapshot"))
    curves, tables = (list(each) for each in zip(*found))
    return TrainingCurves(
        list(epochs),
        {name: np.array([each[name] for each in curves]) for name in curves[0]},
        {name: torch.stack([each[name].float() for each in tables]).numpy() for name in tables[0]},
    )


def curves_of(r: NetworkTensors, ks: Sequence[int]) -> dict[str, float]:
    """One number each. Sections 5.1 and 5.2 of the paper."""
    sizes = quantities.weight_size(r)
    found = quantities.performance(r) | quantities.excluded_losses(r, ks) | quantities.logit_cubes(r, ks)
    found |= {f"restricted_{name}": x for name, x in quantities.restricted_losses(r, ks, ["projection"]).items()}
    found["gini_embedding"] = spectra.gini(spectra.embedding_spectrum(r.W_E).rows)
    if r.W_L is not None:
        found["gini_neuron_logit"] = spectra.gini(spectra.neuron_logit_spectrum(r.W_L).rows)
    return found | {"squared_weights": sizes.pop("total")} | {f"squared {name}": x for name, x in sizes.items()}


def tables_of(r: NetworkTensors) -> dict[str, Tensor]:
    """Spectra, coefficients, neurons and the folded logits, by frequency k = 1 .. n // 2 where they have one."""
    found = {
        "embedding": spectra.embedding_spectrum(r.W_E).frequencies,
        "cosine_coefficients": cubes.cosine_coefficients(r.logits),
        "excluded_by_frequency": quantities.excluded_by_frequency(r),
        "folded": fold(r.logits),
    }
    clusters = quantities.neuron_frequencies(r)
    if clusters is None or r.W_L is None:
        return found
    return found | {
        "neuron_logit": spectra.neuron_logit_spectrum(r.W_L).frequencies,
        "neuron_logit_singular_values": torch.linalg.svdvals(r.W_L)[:SINGULAR_VALUES],
        "neuron_frequency": clusters.frequency,
        "neuron_fve": clusters.fve.nan_to_num(0.0),
    }


def phases_of(rows: Rows, curves: TrainingCurves, *, fourier: bool) -> dict[str, Any]:
    """The boundaries as `Phases.as_json` gives them; without key frequencies there is no circuit to look for."""
    epochs, train, test, squared = (np.asarray(rows[name], dtype=float) for name in DENSE)
    sparse = {name: np.full(len(epochs), math.nan) for name in ("restricted_projection", "excluded_loss")}
    if fourier:
        for name, curve in sparse.items():
            curve[np.searchsorted(epochs, curves.epochs)] = curves.curves[name]
    return find_phases(
        epochs,
        train_loss=train,
        test_loss=test,
        restricted_loss=sparse["restricted_projection"],
        excluded_loss=sparse["excluded_loss"] if fourier else None,
        squared_weights=squared,
    ).as_json()
