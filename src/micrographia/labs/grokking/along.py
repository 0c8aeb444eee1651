"""The cheap measures at every snapshot of a training run, for one set of key frequencies known at its end.

Curves carry one number a snapshot, tables a row of them. About a third of a second a snapshot at p = 113.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from micrographia.core.basis import fold
from micrographia.core.events import Progress, Watch
from micrographia.core.small.architecture import Architecture
from micrographia.core.store import read_tensors
from micrographia.labs.grokking import measure
from micrographia.labs.grokking.reading import Reading, Task, Weights, read
from micrographia.methods.fourier import cubes, spectra

SINGULAR_VALUES = 24


class Along(NamedTuple):
    """`curves[name]` is (snapshot,), `tables[name]` (snapshot, ...)."""

    epochs: list[int]
    curves: dict[str, np.ndarray]
    tables: dict[str, np.ndarray]


def measure_along(snapshots: dict[int, Path], arch: Architecture, task: Task, ks: Sequence[int], watch: Watch) -> Along:
    """Read every snapshot. Holds one network's activations at a time."""
    curves: dict[str, list[float]] = {}
    tables: dict[str, list[np.ndarray]] = {}
    for done, path in enumerate(snapshots.values(), 1):
        weights = read_tensors(path)
        reading = read(arch, weights, task)
        for name, value in curves_of(reading, weights, ks).items():
            curves.setdefault(name, []).append(value)
        for name, table in tables_of(reading).items():
            tables.setdefault(name, []).append(table.float().numpy())
        watch(Progress("measure along training", done, len(snapshots), "snapshot"))
    return Along(
        list(snapshots),
        {name: np.array(values) for name, values in curves.items()},
        {name: np.stack(values) for name, values in tables.items()},
    )


def curves_of(r: Reading, weights: Weights, ks: Sequence[int]) -> dict[str, float]:
    """One number each. Sections 5.1 and 5.2 of the paper."""
    found = measure.performance(r)
    restricted = measure.restricted_losses(r, ks, ["projection"])
    sizes = measure.weight_size(weights)
    found |= {f"restricted_{name}": value for name, value in restricted.items()}
    found |= measure.excluded_losses(r, ks) | measure.logit_cubes(r, ks)
    found |= {"gini_embedding": spectra.gini(spectra.embedding_spectrum(r.W_E).rows)}
    if r.W_L is not None:
        found["gini_neuron_logit"] = spectra.gini(spectra.neuron_logit_spectrum(r.W_L).rows)
    if r.pattern is not None:
        found["attention_to_equals"] = r.pattern[..., -1].double().mean().item()
    return found | {"squared_weights": sum(sizes.values())} | {f"squared {n}": x for n, x in sizes.items()}


def tables_of(r: Reading) -> dict[str, Tensor]:
    """Spectra, coefficients, neurons and the folded logits, by frequency k = 1 .. n // 2 where they have one."""
    found = {
        "embedding": spectra.embedding_spectrum(r.W_E).frequencies,
        "cosine_coefficients": cubes.cosine_coefficients(r.logits),
        "cosine_similarities": cubes.cosine_similarities(r.logits),
        "excluded_by_frequency": measure.excluded_by_frequency(r),
        "folded": fold(r.logits),
        "embedding_singular_values": _leading(torch.linalg.svdvals(r.W_E)),
    }
    clusters = measure.neuron_frequencies(r)
    if clusters is None or r.W_L is None:
        return found
    return found | {
        "neuron_logit": spectra.neuron_logit_spectrum(r.W_L).frequencies,
        "neuron_logit_singular_values": _leading(torch.linalg.svdvals(r.W_L)),
        "neuron_frequency": clusters.frequency,
        "neuron_fve": clusters.fve.nan_to_num(0.0),
    }


def _leading(values: Tensor) -> Tensor:
    return values[:SINGULAR_VALUES]
