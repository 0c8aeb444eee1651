"""Another tool, in a process and an environment of its own, reads dictionaries that we wrote, by its own loader.

For each line "<case>" it loads the folder <case> of its only argument and writes what the tool computes for <case>'s x
(in inputs.npz) to <case>.npz: `latents`, dense, and `reconstruction`. The tool is named in config.json.
Usage: python formats_worker.py FOLDER
"""

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Both = tuple[Tensor, Tensor]


def saelens(folder: Path, x: Tensor) -> Both:
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder)
    return sae.encode(x), sae(x)


def sparsify(folder: Path, x: Tensor) -> Both:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # which it would else use without a GPU too, and fail
    from sparsify import SparseCoder

    coder = SparseCoder.load_from_disk(folder)
    top = coder.encode(x)
    latents = torch.zeros(len(x), coder.num_latents).scatter(-1, top.top_indices, top.top_acts)
    return latents, coder(x).sae_out


def dictionary_learning(folder: Path, x: Tensor) -> Both:
    from dictionary_learning.utils import load_dictionary

    dictionary, _ = load_dictionary(str(folder), "cpu")
    return dictionary.encode(x), dictionary(x)


def circuit_tracer(folder: Path, x: Tensor) -> Both:
    from circuit_tracer.transcoder import cross_layer_transcoder as across
    from circuit_tracer.transcoder import single_layer_transcoder as single
    from circuit_tracer.utils.hf_utils import yaml

    if (folder / "params.npz").exists():
        loaded = single.load_gemma_scope_transcoder(str(folder / "params.npz"), 0)
    elif (folder / "params.safetensors").exists():
        loaded = single.load_gemma_scope_2_transcoder(str(folder / "params.safetensors"), 0)
    else:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        hooks = {name: config[name] for name in ("feature_input_hook", "feature_output_hook")}
        if config["model_kind"] == "cross_layer_transcoder":
            loaded = across.load_clt(str(folder), dtype=torch.float32, **hooks)
            latents = loaded.encode(x)
            return latents, loaded.decode(latents)
        paths = {int(path.stem.split("_")[1]): str(path) for path in folder.glob("layer_*.safetensors")}
        loaded = single.load_transcoder_set(paths, config["scan"], **hooks)
    latents = loaded.encode(x)
    return latents, loaded.decode(latents, x)


TOOLS: dict[str, tuple[str, Callable[[Path, Tensor], Both]]] = {
    "saelens": ("sae-lens", saelens),
    "sparsify": ("eai-sparsify", sparsify),
    "dictionary_learning": ("dictionary-learning", dictionary_learning),
    "circuit_tracer": ("circuit-tracer", circuit_tracer),
}


def main() -> None:
    root = Path(sys.argv[1])
    package, run = TOOLS[json.loads((root / "config.json").read_text(encoding="utf-8"))["tool"]]
    inputs = np.load(root / "inputs.npz")
    torch.set_num_threads(1)
    print("ready", package, version(package), torch.__version__, flush=True)
    for line in sys.stdin:
        case = line.strip()
        with torch.no_grad():
            latents, reconstruction = run(root / case, torch.from_numpy(inputs[case]))
        np.savez(root / f"{case}.npz", latents=latents.numpy(), reconstruction=reconstruction.numpy())
        print("done", case, flush=True)


if __name__ == "__main__":
    main()
