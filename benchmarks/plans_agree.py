"""Do the plain and the fast plan take the same training steps, at the published settings?

    python benchmarks/plans_agree.py --seeds 0 1 2 3 --epochs 100 --dtype float32
    python benchmarks/plans_agree.py --seeds 0 1 2 3 --epochs 100 --dtype float64

Trains each seed with both plans from the same weights and prints the largest relative difference of the train losses.
Rounding differs and training amplifies it; how much of a difference is rounding, the two precisions together tell.
Writes its part of docs/results/plans_agree.json and leaves that of the other precision.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from micrographia.core.provenance import provenance
from micrographia.core.runtime import settings
from micrographia.core.training import fresh_state, train
from micrographia.labs.grokking.config import Config, paper
from micrographia.labs.grokking.task import make_pairs
from micrographia.labs.grokking.train import fresh_weights, make_optimiser, make_plan

PLACE = Path(__file__).parents[1] / "docs" / "results" / "plans_agree.json"


def losses(config: Config, epochs: int) -> list[float]:
    """The train loss before each of the first steps."""
    pairs = make_pairs(config)
    plan = make_plan(config, pairs, pairs.train)
    start = fresh_state(fresh_weights(config))
    return [loss.item() for _, loss in train(start, plan, make_optimiser(config), steps=epochs)]


def compare(config: Config, epochs: int) -> dict[str, float]:
    """Where and by how much the two plans' losses are furthest apart, relative to the fast plan's."""
    plain, fast = (np.array(losses(dataclasses.replace(config, plan=plan), epochs)) for plan in ("plain", "fast"))
    apart = np.abs(plain / fast - 1)
    worst = int(apart.argmax())
    row = {"seed": config.seed, "epochs": epochs, "largest_relative_difference": float(apart[worst])}
    return row | {
        "at_epoch": worst,
        "loss_there": float(plain[worst]),
        "last_plain": float(plain[-1]),
        "last_fast": float(fast[-1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    rows = []
    with settings(chosen.threads):
        for seed in chosen.seeds:
            rows.append(compare(dataclasses.replace(paper(), seed=seed, dtype=chosen.dtype), chosen.epochs))
            print(rows[-1], flush=True)
    told = provenance(None, "cpu", chosen.dtype, chosen.threads)
    about = {name: told[name] for name in ("torch", "threads", "cpu")}
    record = json.loads(PLACE.read_text(encoding="utf-8")) if PLACE.exists() else {}
    PLACE.write_text(json.dumps({**record, chosen.dtype: {**about, "rows": rows}}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
