"""The same epochs by TransformerLens' HookedTransformer, in a process and an environment of its own.

Reads a number of epochs from standard input, trains so long, answers "done <last loss>"; so a benchmark can time it in
turn with its own chunks. Imports nothing of this project but `obvious`, whose loop it shares.
Usage: python lens_worker.py FOLDER    (config.json and data.npz lie there)
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from obvious import ObviousLoop
from transformer_lens import HookedTransformer, HookedTransformerConfig


def main() -> None:
    folder = Path(sys.argv[1])
    data, config = np.load(folder / "data.npz"), json.loads((folder / "config.json").read_text(encoding="utf-8"))
    torch.set_num_threads(config["threads"])
    torch.set_flush_denormal(True)
    model = HookedTransformer(HookedTransformerConfig(**config["model"], device="cpu"))
    weights = {name: torch.from_numpy(data[name]) for name in data.files if "." in name}
    model.load_state_dict({**model.state_dict(), **weights})
    train, test = (
        tuple(torch.from_numpy(data[f"{name}_{part}"]) for part in ("tokens", "labels")) for name in ("train", "test")
    )
    loop = ObviousLoop(model, train, test, **config["optimiser"])
    print("ready", version("transformer-lens"), torch.__version__, flush=True)
    for line in sys.stdin:
        loop.run(int(line))
        print("done", loop.losses[-1], flush=True)


if __name__ == "__main__":
    main()
