"""The phases of one training run, from its rows and the measures at its snapshots."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from micrographia.core.train_loop import Rows
from micrographia.labs.grokking.along import Along
from micrographia.methods.phases import find_phases

DENSE = ("epoch", "train_loss", "test_loss", "squared_weights")
"""The columns of the rows: known at more epochs than there are snapshots."""


def phases_of(rows: Rows, along: Along, *, fourier: bool) -> dict[str, Any]:
    """Epochs of the boundaries, each None where no change is supported, and their intervals under `intervals`.

    Without key frequencies there is no restricted loss, so no circuit is looked for.
    """
    epochs, train, test, squared = (np.asarray(rows[name], dtype=float) for name in DENSE)
    sparse = {name: np.full(len(epochs), math.nan) for name in ("restricted_projection", "excluded_loss")}
    if fourier:
        for name, curve in sparse.items():
            curve[np.searchsorted(epochs, along.epochs)] = along.curves[name]
    found = find_phases(
        epochs,
        train_loss=train,
        test_loss=test,
        restricted_loss=sparse["restricted_projection"],
        excluded_loss=sparse["excluded_loss"] if fourier else None,
        squared_weights=squared,
    )
    boundaries = {name: getattr(found, name) for name in found._fields}
    intervals = {name: None if b.epoch is None else [b.low, b.high] for name, b in boundaries.items()}
    return {**{name: b.epoch for name, b in boundaries.items()}, "intervals": intervals}


def bands(phases: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The three phases as bands of a picture: up to the end of memorisation, of circuit formation, of cleanup."""
    edges = [0, phases.get("memorised"), phases.get("circuit_formed"), phases.get("settled")]
    names = ("memorisation", "circuit formation", "cleanup")
    spans = zip(names, edges[:-1], edges[1:])
    return [{"name": name, "start": a, "end": b} for name, a, b in spans if a is not None and b is not None and a < b]
