"""TransformerLens' side of the patching benchmark, in a process and an environment of its own.

Reads "<task> <count>" lines, task "resid_pre" or "heads": patches so many cells of that task, taken evenly over its
grid (all of them for the grid's own size), writes them to <folder>/theirs.npz and answers "done <peak MiB above what
was resident before>". Imports nothing of this project but its neighbour `memory`.
Usage: python sweep_worker.py FOLDER    (config.json, weights.npz and tokens.npz lie there)
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import memory
import numpy as np
import pandas as pd
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig, patching

SETTERS = {
    "resid_pre": ("resid_pre", patching.layer_pos_patch_setter),
    "heads": ("z", patching.layer_pos_head_vector_patch_setter),
}


def load(folder: Path, chosen: dict) -> HookedTransformer:
    model = HookedTransformer(HookedTransformerConfig(**chosen["model"], device="cpu"))
    weights = np.load(folder / "weights.npz")
    model.load_state_dict({**model.state_dict(), **{name: torch.from_numpy(weights[name]) for name in weights.files}})
    return model.eval()


def main() -> None:
    folder = Path(sys.argv[1])
    chosen = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    torch.set_num_threads(chosen["threads"])
    torch.set_grad_enabled(False)
    model = load(folder, chosen)
    stored = np.load(folder / "tokens.npz")
    tokens = {name: torch.from_numpy(stored[name]) for name in stored.files}
    rows = torch.arange(len(tokens["right"]))
    _, clean = model.run_with_cache(tokens["clean"], names_filter=lambda name: name.endswith(("resid_pre", "hook_z")))

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (logits[rows, -1, tokens["right"]] - logits[rows, -1, tokens["wrong"]]).mean()

    print("ready", version("transformer-lens"), torch.__version__, memory.resident(), flush=True)
    for line in sys.stdin:
        task, count = line.split()
        cells = chosen["cells"][task]
        which = np.linspace(0, len(cells) - 1, int(count)).round().astype(int)
        frame = pd.DataFrame([cells[i] for i in which], columns=["layer", "pos", "head"][: len(cells[0])])
        before = memory.reset_peak()
        name, setter = SETTERS[task]
        found = patching.generic_activation_patch(model, tokens["corrupt"], clean, metric, setter, name, index_df=frame)
        np.savez(folder / "theirs.npz", which=which, values=found.numpy())
        print("done", memory.peak() - before, flush=True)


if __name__ == "__main__":
    main()
