"""TransformerLens 3.9's side of the attribution benchmark, in a process and an environment of its own.

Reads "<time or write> <how> <count>" lines: attributes so many times, with "write" puts the scores of the last into
<folder>/theirs.npz, and answers "done <peak MiB above what was held before>". "default" leaves parameters as the
library makes them, requiring gradients; "frozen" freezes them and begins the graph at the embeddings. Two caches and
their gradients, filtered to the names in question, as in the library's own demonstration.
Usage: python attribution_worker.py FOLDER    (config.json, weights.npz and tokens.npz lie there)
"""

import sys
from importlib.metadata import version
from pathlib import Path

import lens_model
import memory
import numpy as np
import torch
from transformer_lens import HookedTransformer

ENDS = {"attn.hook_z": "z", "mlp.hook_post": "neurons", "hook_resid_pre": "resid_pre", "hook_mlp_out": "mlp_out"}


def attribute(model: HookedTransformer, tokens: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    """(clean - corrupt) times the gradient at the corrupt run, per prompt."""
    rows = torch.arange(len(tokens["right"]), device=tokens["right"].device)

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
        found[f"L{layer}.{ENDS[end]}"] = product if ENDS[end] == "neurons" else product.sum(-1)
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    chosen = lens_model.settings(folder)
    device = chosen["device"]
    model, tokens = lens_model.load(folder, chosen), lens_model.tokens(folder, device)
    print("ready", version("transformer-lens"), torch.__version__, memory.now(device), flush=True)
    for line in sys.stdin:
        what, how, count = line.split()
        before = memory.reset_peak(device)
        found: dict[str, torch.Tensor] = {}
        for _ in range(int(count)):
            found = attribute(model, tokens, how)
        lens_model.wait(device)
        above = memory.peak(device) - before
        if what == "write":
            np.savez(folder / "theirs.npz", **{name: lens_model.array(value) for name, value in found.items()})
        print("done", above, flush=True)


if __name__ == "__main__":
    main()
