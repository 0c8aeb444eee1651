"""The reader's own set of frequencies: what the page needs to compute restricted and excluded losses itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from micrographia.core.figures import Figure, widget
from micrographia.labs.grokking.along import Along
from micrographia.labs.grokking.figures.shared import PAPER, centred, frame_names
from micrographia.labs.grokking.reading import Reading

ASSET = "micrographia.labs.grokking:explorer.js"
MOST_FRAMES = 30  # with plotly's own 4.7 MB the report stays near 10 MB


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
        "labels": list(frame_names(epochs)),
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
        data["full"] = np.stack([centred(r.logits[a, b]).half().numpy() for r in readings.values()])
        data["full_frames"] = [epochs.index(epoch) for epoch in readings]
    return widget(
        "explorer",
        "Choose the frequencies yourself",
        ASSET,
        data,
        caption=(
            "Pick any set of frequencies: the page recomputes the restricted loss (variant projection) at every "
            "checkpoint on the slider, and the excluded loss at those checkpoints that carry all train logits (stored "
            "as float16, so excluded losses below about 1e-3 are rounded)."
        ),
        source=f"{PAPER}, section 5.1",
        group="Explorer",
    )
