"""A peer's side of the hooks benchmark, in a process and an environment of its own: nnsight or TransformerLens.

Reads how often to run, runs so often with seven activations a layer kept, and answers "done"; what the first run kept
is in <folder>/kept.npz. Imports nothing of this project.
Usage: python hooks_worker.py FOLDER    (config.json, tokens.npz and model/ or weights.npz lie there)
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
    import lens_model

    model = lens_model.load(folder, chosen)
    names = {f"blocks.{i}.{end}": f"L{i}.{kind}" for i in range(model.cfg.n_layers) for end, kind in LENS.items()}

    def run() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            _, cache = model.run_with_cache(tokens, names_filter=lambda name: name in names)
        return {names[name]: value for name, value in cache.items()}

    return run


def nnsight(folder: Path, chosen: dict[str, Any], tokens: torch.Tensor) -> Run:
    from nnsight import NNsight
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=getattr(torch, chosen["dtype"]))
    module = module.to(chosen["device"]).eval().requires_grad_(False)
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
    tokens = torch.from_numpy(np.load(folder / "tokens.npz")["tokens"]).to(chosen["device"])
    run = make(folder, chosen, tokens)
    np.savez(folder / "kept.npz", **{name: value.float().cpu().numpy() for name, value in run().items()})
    print("ready", version(package), torch.__version__, flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            run()
        if chosen["device"] != "cpu":
            torch.cuda.synchronize()
        print("done", flush=True)


if __name__ == "__main__":
    main()
