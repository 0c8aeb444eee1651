"""A peer's side of the hooks benchmark, in a process and an environment of its own: nnsight or TransformerLens.

Reads how often to run, runs so often with seven activations a layer kept, and answers "done"; what the first run kept
is in <folder>/kept.npz. Imports nothing of this project.
Usage: python hooks_worker.py FOLDER    (config.json, tokens.npy and model/ or weights.npz lie there)
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

LENS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "attn.hook_z": "z",
    "mlp.hook_post": "neurons",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
}
Run = Callable[[], dict[str, torch.Tensor]]


def lens(folder: Path, chosen: dict[str, Any], tokens: torch.Tensor) -> Run:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    model = HookedTransformer(HookedTransformerConfig(**chosen["model"], device="cpu")).eval()
    weights = np.load(folder / "weights.npz")
    model.load_state_dict({**model.state_dict(), **{name: torch.from_numpy(weights[name]) for name in weights.files}})
    names = {f"blocks.{i}.{end}": f"L{i}.{kind}" for i in range(model.cfg.n_layers) for end, kind in LENS.items()}

    def run() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            _, cache = model.run_with_cache(tokens, names_filter=lambda name: name in names)
        return {names[name]: value for name, value in cache.items()}

    return run


def nnsight(folder: Path, chosen: dict[str, Any], tokens: torch.Tensor) -> Run:
    from nnsight import NNsight
    from transformers import GPT2LMHeadModel

    module = GPT2LMHeadModel.from_pretrained(folder / "model").eval().requires_grad_(False)
    model = NNsight(module)
    heads = module.config.n_head

    def run() -> dict[str, torch.Tensor]:
        found = {}
        with torch.no_grad(), model.trace(input_ids=tokens, use_cache=False):
            for i, block in enumerate(model.transformer.h):
                found[f"L{i}.resid_pre"] = block.input.save()
                found[f"L{i}.z"] = block.attn.c_proj.input.save()
                found[f"L{i}.attn_out"] = block.attn.output[0].save()
                found[f"L{i}.resid_mid"] = block.ln_2.input.save()
                found[f"L{i}.neurons"] = block.mlp.c_proj.input.save()
                found[f"L{i}.mlp_out"] = block.mlp.output.save()
                output = block.output
                found[f"L{i}.resid_post"] = (output[0] if isinstance(output, tuple) else output).save()
        return {k: v.unflatten(-1, (heads, -1)) if k.endswith(".z") else v for k, v in found.items()}

    return run


PEERS = {"nnsight": (nnsight, "nnsight"), "TransformerLens": (lens, "transformer-lens")}


def main() -> None:
    folder = Path(sys.argv[1])
    chosen = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    torch.set_num_threads(chosen["threads"])
    make, package = PEERS[chosen["peer"]]
    run = make(folder, chosen, torch.from_numpy(np.load(folder / "tokens.npy")))
    np.savez(folder / "kept.npz", **{name: value.numpy() for name, value in run().items()})
    print("ready", version(package), torch.__version__, flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            run()
        print("done", flush=True)


if __name__ == "__main__":
    main()
