"""TransformerLens' side of the attribution benchmark, in a process and an environment of its own.

Reads "<how> <count>" lines: attributes so many times, writes the scores of the last to <folder>/theirs.npz and answers
"done <peak MiB above what was resident before>". "default" leaves parameters as the library makes them, requiring
gradients; "frozen" freezes them and begins the graph at the embeddings. Two caches and their gradients, filtered to the
names in question, as in the library's own demonstration. Imports nothing of this project but its neighbour `memory`.
Usage: python attribution_worker.py FOLDER    (config.json, weights.npz and tokens.npz lie there)
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import memory
import numpy as np
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

ENDS = {"attn.hook_z": "z", "mlp.hook_post": "neurons", "hook_resid_pre": "resid_pre", "hook_mlp_out": "mlp_out"}


def load(folder: Path, chosen: dict) -> HookedTransformer:
    model = HookedTransformer(HookedTransformerConfig(**chosen["model"], device="cpu"))
    weights = np.load(folder / "weights.npz")
    model.load_state_dict({**model.state_dict(), **{name: torch.from_numpy(weights[name]) for name in weights.files}})
    return model.eval()


def attribute(model: HookedTransformer, tokens: dict[str, torch.Tensor], how: str) -> dict[str, np.ndarray]:
    """(clean - corrupt) times the gradient at the corrupt run, per prompt."""
    rows = torch.arange(len(tokens["right"]))

    def wanted(name: str) -> bool:
        return name.startswith("blocks.") and name.split(".", 2)[2] in ENDS

    with torch.no_grad():
        _, clean = model.run_with_cache(tokens["clean"], names_filter=wanted)
    model.requires_grad_(how == "default")
    corrupt: dict[str, torch.Tensor] = {}
    gradients: dict[str, torch.Tensor] = {}

    def forward(value: torch.Tensor, hook) -> None:
        corrupt[hook.name] = value.detach()

    def backward(value: torch.Tensor, hook) -> None:
        gradients[hook.name] = value.detach()

    with model.hooks():
        if how == "frozen":
            model.add_hook("hook_embed", lambda value, hook: value.detach().requires_grad_())
        model.add_hook(wanted, forward, "fwd")
        model.add_hook(wanted, backward, "bwd")
        logits = model(tokens["corrupt"])
        (logits[rows, -1, tokens["right"]] - logits[rows, -1, tokens["wrong"]]).sum().backward()
    model.zero_grad(set_to_none=True)
    model.requires_grad_(True)
    found = {}
    for name, value in corrupt.items():
        _, layer, end = name.split(".", 2)
        product = (clean[name] - value) * gradients[name]
        found[f"L{layer}.{ENDS[end]}"] = (product if ENDS[end] == "neurons" else product.sum(-1)).numpy()
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    chosen = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    torch.set_num_threads(chosen["threads"])
    model = load(folder, chosen)
    stored = np.load(folder / "tokens.npz")
    tokens = {name: torch.from_numpy(stored[name]) for name in stored.files}
    print("ready", version("transformer-lens"), torch.__version__, memory.resident(), flush=True)
    for line in sys.stdin:
        how, count = line.split()
        before = memory.reset_peak()
        found: dict[str, np.ndarray] = {}
        for _ in range(int(count)):
            found = attribute(model, tokens, how)
        above = memory.peak() - before
        if chosen["write"]:
            np.savez(folder / "theirs.npz", **found)
        print("done", above, flush=True)


if __name__ == "__main__":
    main()
