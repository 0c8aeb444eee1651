"""One process of two that train together, as torchrun starts them. Arguments: rank, meeting file, output."""

import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from worlds import world

from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries

SHAPE = {"n_latents": 32, "steps": 8, "lr": 3e-3, "revival": "auxk", "dead_after": 256, "revival_weight": 0.5}
RECIPES = [
    Recipe(kind="relu", sparsity=0.1, n_latents=32, steps=8),
    Recipe(kind="topk", k=3, multi_topk=0.125, **SHAPE),
    Recipe(kind="batchtopk", k=3, prefixes=(8,), **SHAPE),
    Recipe(kind="jumprelu", l0=3.0, **SHAPE),
    Recipe(kind="jumprelu", l0=3.0, penalty="l0-quadratic", sparsity=0.1, n_latents=32, steps=8),
    Recipe(kind="relu", penalty="lp", sparsity=0.1, p_end=0.5, p_changes=2, n_latents=32, steps=8),
    Recipe(kind="gated", sparsity=0.1, n_latents=32, steps=8),
    Recipe(kind="topk", k=2, n_latents=32, steps=8, revival="resample", revive_at=(5,), dead_after=256),
]


def trained() -> dict[str, torch.Tensor]:
    """The weights of all, and the losses on the way."""
    losses = []
    found = train_dictionaries(
        world(), RECIPES, d_in=16, course=Course(like=torch.zeros((), dtype=torch.float64)),
        watch=lambda event: losses.append(event.values["loss"]),
    )  # fmt: skip
    tensors = {f"{i}.{name}": value for i, each in enumerate(found) for name, value in each.weights.named().items()}
    return {**tensors, "losses": torch.tensor(losses, dtype=torch.float64)}


def main(rank: int, meeting: str, output: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    save_file(trained(), output)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
