"""One process of those that torchrun starts, training in float32. Arguments: folder, output, and the step to stop at.

Its state is written to the output: weights, moments, dead-latent counters, thresholds.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from worlds import world

from micrographia.core.distributed import current_group, joined
from micrographia.core.errors import Interrupted
from micrographia.core.events import Progress
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import stacks
from micrographia.methods.dictionaries.training.train import train_dictionaries
from micrographia.methods.dictionaries.training.trainer import Trainer, first_batches, fresh_state

STEPS, D, DEAD_AFTER = 40, 16, 1024
SHAPE = {"n_latents": 64, "steps": STEPS, "lr": 1e-3, "revival": "auxk", "dead_after": DEAD_AFTER}
RECIPES = [
    *(Recipe(kind="jumprelu", l0=l0, **SHAPE) for l0 in (2.0, 4.0)),
    Recipe(kind="batchtopk", k=1, **SHAPE),
]


def stepped() -> dict[str, torch.Tensor]:
    """The state of both stacks after all steps, and the losses on the way."""
    batches, losses, found = world(d=D), [], {}
    first = first_batches(batches, STEPS)
    for index, stack in enumerate(stacks(RECIPES, D, D, transcodes=False)):
        state = fresh_state(stack, first, torch.zeros(()))
        trainer = Trainer(stack, state, batches, current_group())
        losses += [trainer.step(batches(step))["loss"] for step in range(STEPS)]
        found |= {f"{index}.{name}": value for name, value in trainer.state.tensors().items()}
    return {**found, "losses": torch.cat(losses)}


def gone_on(folder: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """The weights of all dictionaries, trained with checkpoints in the folder; nothing where it was stopped."""
    losses = {}

    def hear(event):
        if not isinstance(event, Progress):
            return
        losses[event.done] = event.values["loss"]
        if event.done == stop_at and current_group().rank == 0:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        found = train_dictionaries(
            world(d=D), RECIPES, d_in=D, folder=folder, watch=hear if stop_at else lambda _: None
        )
    except Interrupted:
        return {"losses": torch.tensor(list(losses.values()))}
    return {f"{i}.{name}": value for i, each in enumerate(found) for name, value in each.weights.named().items()}


def main(folder: str, output: str, stop_at: str) -> None:
    torch.set_num_threads(1)
    with joined() as group:
        assert group.size == 2
        save_file(gone_on(Path(folder), int(stop_at)) if stop_at else stepped(), output.format(rank=group.rank))


if __name__ == "__main__":
    main(*sys.argv[1:])
