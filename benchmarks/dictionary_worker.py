"""A peer's side of the training of dictionaries, in a process and an environment of its own.

SAELens, dictionary_learning or sparsify, each through its own trainer where it has one apart from a language model:
`SAETrainer.step`, `Trainer.update`; of sparsify, whose trainer runs one, the lines of its loop around the autoencoder.
Reads a kind and how many steps to take, and answers "done". Imports nothing of this project.
Usage: python dictionary_worker.py FOLDER    (config.json and x.npz lie there)
"""

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

Step = Callable[[torch.Tensor], object]
STEPS = 1_000_000
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


def saelens(kind: str, chosen: dict[str, Any]) -> Step:
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "relu": (StandardTrainingSAE, StandardTrainingSAEConfig, {"l1_coefficient": 0.1}),
        "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, {"l0_coefficient": 0.1}),
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": chosen["k"]}),
        "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {"k": chosen["k"]}),
    }
    make, configure, own = kinds[kind]
    sae = make(configure(d_in=chosen["d"], d_sae=chosen["latents"], dtype="float32", device="cpu", **own))
    config = SAETrainerConfig(
        total_training_samples=STEPS * chosen["rows"],
        train_batch_size_samples=chosen["rows"],
        lr=chosen["lr"],
        lr_end=chosen["lr"],
    )
    trainer = SAETrainer(config, sae, iter(()))

    def step(x: torch.Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return step


def dictionary_learning(kind: str, chosen: dict[str, Any]) -> Step:
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "relu": (StandardTrainer, {"l1_penalty": 0.1}),
        "jumprelu": (JumpReluTrainer, {"target_l0": float(chosen["l0"])}),
        "topk": (TopKTrainer, {"k": chosen["k"]}),
        "batchtopk": (BatchTopKTrainer, {"k": chosen["k"]}),
    }
    make, own = kinds[kind]
    trainer = make(
        steps=STEPS,
        activation_dim=chosen["d"],
        dict_size=chosen["latents"],
        layer=0,
        lm_name="none",
        lr=chosen["lr"],
        device="cpu",
        **own,
    )
    taken = iter(range(STEPS))
    return lambda x: trainer.update(next(taken), x)


def sparsify(kind: str, chosen: dict[str, Any]) -> Step:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # it has no kernel for a CPU
    from sparsify import SparseCoder, SparseCoderConfig

    assert kind == "topk"
    sae = SparseCoder(chosen["d"], SparseCoderConfig(num_latents=chosen["latents"], k=chosen["k"]), dtype=torch.float32)
    adam = torch.optim.Adam(sae.parameters(), lr=chosen["lr"])
    fired = torch.zeros(chosen["latents"], dtype=torch.bool)

    def step(x: torch.Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        out = sae(x, x)
        fired[out.latent_indices.flatten()] = True
        out.fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()

    return step


TOOLS = {
    "saelens": (saelens, "sae-lens"),
    "dictionary_learning": (dictionary_learning, "dictionary-learning"),
    "sparsify": (sparsify, "eai-sparsify"),
}


def main() -> None:
    chosen = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    torch.set_num_threads(chosen["threads"])
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    make, package = TOOLS[chosen["tool"]]
    given = torch.from_numpy(np.load(FOLDER / "x.npz")["x"])
    steps = {kind: make(kind, chosen) for kind in chosen["kinds"]}
    for step in steps.values():
        step(given[0])
    print("ready", version(package), torch.__version__, flush=True)
    for line in sys.stdin:
        kind, n = line.split()
        for taken in range(int(n)):
            steps[kind](given[taken % len(given)])
        print("done", flush=True)


if __name__ == "__main__":
    main()
