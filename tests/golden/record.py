"""Thirty steps of each lab's `tiny()` preset, and the file that holds them.

    python tests/golden/record.py        # from the root of the repository, with the package importable

writes `<lab>_cpu.json` anew: the training loss that each step started from, by the preset's own plan, on one thread.
A change that should not alter numbers leaves these files as they are; one that does is shown with its curves.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from micrographia.core.training import fresh_state, train
from micrographia.labs.grokking.config import tiny as tiny_grokking
from micrographia.labs.grokking.task import make_pairs
from micrographia.labs.grokking.train import fresh_weights, make_optimiser, make_plan

HERE = Path(__file__).parent
STEPS = 30


def grokking() -> list[float]:
    config = tiny_grokking()
    pairs = make_pairs(config)
    plan = make_plan(config, pairs, pairs.train)
    steps = train(fresh_state(fresh_weights(config)), plan, make_optimiser(config), steps=STEPS)
    return [loss.item() for _, loss in steps]


LABS: dict[str, Callable[[], list[float]]] = {"grokking": grokking}


def path_of(lab: str) -> Path:
    return HERE / f"{lab}_cpu.json"


def golden_losses(lab: str) -> list[float]:
    return json.loads(path_of(lab).read_text(encoding="utf-8"))["train_loss"]


def record() -> None:
    torch.set_num_threads(1)
    for lab, losses in LABS.items():
        content = {"lab": lab, "preset": "tiny", "device": "cpu", "train_loss": losses()}
        path_of(lab).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
