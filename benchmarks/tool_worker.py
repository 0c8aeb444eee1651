"""TransformerLens 4.3's own attribution tool, in a process and an environment of its own.

Reads "<time or write> tool <count>" lines: attributes all pairs so many times, with "write" puts the scores of the
last into <folder>/theirs.npz (heads and MLP outputs, per prompt), and answers "done <peak MiB above what was held
before>". `attribution_patch` is called once a pair: given several, it does the same one after the other.
Usage: python tool_worker.py FOLDER    (config.json, tokens.npz and model/ lie there)
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import memory
import numpy as np
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis.attribution_patching import AttributionResult, attribution_patch

KINDS = {"attn_head_out": "z", "mlp_out": "mlp_out"}


def gap(right: int, wrong: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda logits: logits[0, -1, right] - logits[0, -1, wrong]


def attribute(model: TransformerBridge, tokens: dict[str, torch.Tensor]) -> list[AttributionResult]:
    answers = zip(tokens["right"].tolist(), tokens["wrong"].tolist())
    pairs = zip(tokens["clean"].split(1), tokens["corrupt"].split(1), answers)
    return [attribution_patch(model, clean, corrupt, gap(*answer)) for clean, corrupt, answer in pairs]


def scores(found: list[AttributionResult], n_pos: int, n_heads: int) -> dict[str, np.ndarray]:
    """By Site: prompt x position (x head)."""
    arrays: dict[str, np.ndarray] = {}
    for prompt, result in enumerate(found):
        for node, score in result.node_scores.items():
            if node.kind in KINDS:
                heads = () if node.head is None else (n_heads,)
                name = f"L{node.layer}.{KINDS[node.kind]}"
                place = (prompt, node.position) if node.head is None else (prompt, node.position, node.head)
                arrays.setdefault(name, np.zeros((len(found), n_pos, *heads)))[place] = score
    return arrays


def main() -> None:
    folder = Path(sys.argv[1])
    chosen = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    torch.set_num_threads(chosen["threads"])
    device, dtype = chosen["device"], getattr(torch, chosen["dtype"])
    model = TransformerBridge.boot_transformers(str(folder / "model"), device=device, dtype=dtype).eval()
    stored = np.load(folder / "tokens.npz")
    tokens = {name: torch.from_numpy(stored[name]).to(device) for name in stored.files}
    print("ready", version("transformer-lens"), torch.__version__, memory.now(device), flush=True)
    for line in sys.stdin:
        what, _, count = line.split()
        before = memory.reset_peak(device)
        found: list[AttributionResult] = []
        for _ in range(int(count)):
            found = attribute(model, tokens)
        if device != "cpu":
            torch.cuda.synchronize()
        above = memory.peak(device) - before
        if what == "write":
            np.savez(folder / "theirs.npz", **scores(found, tokens["clean"].shape[1], model.cfg.n_heads))
        print("done", above, flush=True)


if __name__ == "__main__":
    main()
