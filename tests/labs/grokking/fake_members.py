"""Members that nobody trained: a Run with the weights of the start, and results as a trained one would have them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from micrographia.core.claims import Run
from micrographia.core.config import flat, with_fields
from micrographia.core.errors import Interrupted, NonFiniteLoss
from micrographia.core.small.weights import init_weights
from micrographia.core.store import RunFolder, load_run
from micrographia.core.tasks import Done, Task
from micrographia.labs.grokking.config import Config, tiny
from micrographia.labs.grokking.task import architecture


def smallest(**changes: Any) -> Config:
    """p = 11, and a network that fits."""
    small = {"modulus": 11, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 24, "epochs": 40, "snapshots": 4}
    return with_fields(tiny(), **{**small, "checkpoint_every": 20, **changes})


class FakeRuns:
    """Stands in for the lab's `run` and for `run_tasks`; `begun` names the members that were trained, in order."""

    def __init__(self, grok: dict[int, int | None] | None = None) -> None:
        self.grok = grok or {}
        """Seed -> epoch of grokking, None for never; by default epoch 20."""
        self.begun: list[str] = []
        self.broken: set[str] = set()
        self.stopped: set[str] = set()
        self.stop_after: int | None = None

    def stand_in(self, monkeypatch: pytest.MonkeyPatch, room: str) -> "FakeRuns":
        """In place of the real ones in a room of the lab, "sweep" or "lottery"."""
        monkeypatch.setattr(f"micrographia.labs.grokking.{room}.run.run", self.run)
        monkeypatch.setattr("micrographia.core.lab.run_tasks", self.run_tasks)
        return self

    def run(self, config: Config, *, out: Path, resume: bool) -> Run:
        with RunFolder.open(
            out,
            lab="grokking",
            preset="custom",
            config=flat(config),
            provenance={"threads": 1},
            resume=resume,
        ) as folder:
            if folder.status != "finished":
                self.begun.append(out.name)
                if out.name in self.stopped:
                    raise Interrupted("Stopped by request at epoch 7 of 40; all is saved.")
                if out.name in self.broken:
                    folder.set_status("failed")
                    raise NonFiniteLoss("The loss is NaN at step 7.")
                self._finish(config, folder)
        return load_run(out)

    def run_tasks(self, tasks: list[Task], **options: Any) -> Iterator[Done]:
        """One after the other in this process; Ctrl-C comes after `stop_after` of them."""
        for i, task in enumerate(tasks):
            if i == self.stop_after:
                raise KeyboardInterrupt
            try:
                yield Done(task, task.function(**task.arguments))
            except (Interrupted, NonFiniteLoss) as error:
                yield Done(task, error=f"{type(error).__name__}: {error}\n\nTraceback ...")

    def _finish(self, config: Config, folder: RunFolder) -> None:
        weights = init_weights(architecture(config), torch.Generator().manual_seed(config.seed))
        for epoch in (0, 20, config.epochs):
            folder.save_snapshot(epoch, weights)
        grokked = self.grok.get(config.seed, 20)
        epochs = list(range(config.epochs + 1))
        right = [float(grokked is not None and epoch >= grokked) for epoch in epochs]
        metrics = {
            "epoch": epochs,
            "train_loss": [1.0 if epoch < 10 else 1e-3 for epoch in epochs],
            "test_accuracy": [x if epoch % 5 == 0 else float("nan") for epoch, x in zip(epochs, right)],
            "test_loss": [1e-3 if x else 3.0 for x in right],
        }
        folder.finish(results(config, right[-1]), [], [], metrics)


def results(config: Config, accuracy: float) -> dict[str, Any]:
    keys = [1 + config.seed % 4, 5] if accuracy == 1 else []
    return {
        "phases": {"memorised": 10, "circuit": 15, "cleanup": 20, "settled": None},
        "key_frequencies": keys,
        "published_rule": [*keys, 3],
        "frequencies": [{"k": k, "kind": "key"} for k in keys],
        "measures": {
            "train_loss": 1e-3, "test_loss": 1e-3, "test_accuracy": accuracy, "trig_loss": 0.1, "excluded_loss": 4.0,
            "restricted_loss": {"projection": 0.2, "quadratic": 0.3}, "logit_variance_explained": 0.9,
        },
    }  # fmt: skip
