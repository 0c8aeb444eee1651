"""TransformerLens' side of the patching benchmark, in a process and an environment of its own.

Reads "<task> <count>" lines, task "resid_pre" or "heads": patches so many cells of that task, taken evenly over its
grid (all of them for the grid's own size), writes them to <folder>/theirs.npz and answers "done <peak MiB above what
was held before>".
The model is 3.9's HookedTransformer, or 4.3's TransformerBridge where the folder holds a model of transformers.
Usage: python sweep_worker.py FOLDER    (config.json, tokens.npz and either weights.npz or model/ lie there)
"""

import sys
from importlib.metadata import version
from pathlib import Path

import lens_model
import memory
import numpy as np
import pandas as pd
import torch
from transformer_lens import patching

SETTERS = {
    "resid_pre": ("resid_pre", patching.layer_pos_patch_setter),
    "heads": ("z", patching.layer_pos_head_vector_patch_setter),
}


def main() -> None:
    folder = Path(sys.argv[1])
    chosen = lens_model.settings(folder)
    device = chosen["device"]
    torch.set_grad_enabled(False)
    model, tokens = lens_model.load(folder, chosen), lens_model.tokens(folder, device)
    rows = torch.arange(len(tokens["right"]), device=tokens["right"].device)
    wanted = [f"blocks.{i}.{name}" for i in range(model.cfg.n_layers) for name in ("hook_resid_pre", "attn.hook_z")]
    _, clean = model.run_with_cache(tokens["clean"], names_filter=wanted)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (logits[rows, -1, tokens["right"]] - logits[rows, -1, tokens["wrong"]]).mean()

    print("ready", version("transformer-lens"), torch.__version__, memory.now(device), flush=True)
    for line in sys.stdin:
        task, count = line.split()
        cells = chosen["cells"][task]
        which = np.linspace(0, len(cells) - 1, int(count)).round().astype(int)
        frame = pd.DataFrame([cells[i] for i in which], columns=["layer", "pos", "head"][: len(cells[0])])
        before = memory.reset_peak(device)
        name, setter = SETTERS[task]
        found = patching.generic_activation_patch(model, tokens["corrupt"], clean, metric, setter, name, index_df=frame)
        np.savez(folder / "theirs.npz", which=which, values=lens_model.array(found))
        print("done", memory.peak(device) - before, flush=True)


if __name__ == "__main__":
    main()
