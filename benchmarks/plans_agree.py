"""Do the plain and the fast plan take the same training steps, at the published settings?

    python benchmarks/plans_agree.py --seeds 0 1 2 3 --epochs 100

Trains each seed with both plans from the same weights and prints the largest relative difference of the train losses.
Rounding differs and training amplifies it, so losses agree closely at first and drift apart after thousands of steps;
therefore sets of key frequencies are compared between runs, never epochs. Writes docs/results/plans_agree.json.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from micrographia.core.runtime import settings
from micrographia.core.training import AdamW, fresh_state, train
from micrographia.labs.grokking.config import Config, paper
from micrographia.labs.grokking.task import make_pairs
from micrographia.labs.grokking.train import fresh_weights, make_plan

PLACE = Path(__file__).parents[1] / "docs" / "results" / "plans_agree.json"


def losses(config: Config, epochs: int) -> list[float]:
    """The train loss before each of the first steps."""
    pairs = make_pairs(config)
    plan = make_plan(config, pairs, pairs.train)
    names = ("lr", "weight_decay", "beta1", "beta2", "eps", "warmup")
    optimiser = AdamW(**{name: getattr(config, name) for name in names})
    return [loss.item() for _, loss in train(fresh_state(fresh_weights(config)), plan, optimiser, steps=epochs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    rows = []
    with settings(chosen.threads):
        for seed in chosen.seeds:
            config = dataclasses.replace(paper(), seed=seed)
            plain, fast = (
                np.array(losses(dataclasses.replace(config, plan=plan), chosen.epochs)) for plan in ("plain", "fast")
            )
            apart = np.abs(plain / fast - 1)
            row = {"seed": seed, "epochs": chosen.epochs, "largest_relative_difference": float(apart.max())}
            row |= {"at_epoch": int(apart.argmax()), "loss_there": float(plain[apart.argmax()])}
            rows.append(row | {"last_plain": float(plain[-1]), "last_fast": float(fast[-1])})
            print(rows[-1], flush=True)
    record = {"dtype": "float32", "torch": torch.__version__, "threads": chosen.threads, "rows": rows}
    PLACE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
