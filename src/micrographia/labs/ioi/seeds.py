"""The networks of a run: one per seed, trained side by side, each a Run of its own that any command can open.

A network that is finished is not trained again; one that was interrupted goes on from its checkpoint.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from micrographia.core.errors import Interrupted, MicrographiaError, NonFiniteLoss
from micrographia.core.events import Watch, silent
from micrographia.core.running import carry_out
from micrographia.core.runtime import settings
from micrographia.core.store import RunFolder
from micrographia.core.tasks import Done, Task, run_tasks
from micrographia.labs.ioi.config import Config, preset_of
from micrographia.labs.ioi.train import train_network

LAB = "ioi"
FOLDER = "networks"


def train_seeds(
    config: Config, folder: Path, *, runner: str = "local", workers: int | None = None, watch: Watch = silent
) -> dict[int, Path]:
    """Train `config.seeds` networks under `folder`; the Run of each by its seed, the first being `config.seed`.

    Every network takes one thread of the CPU, so as many train at once as there are cores; each draws weights and
    batches of its own. Raises Interrupted when the user stops, NonFiniteLoss when a network fails; what was done stays.
    """
    seeds = range(config.seed, config.seed + config.seeds)
    places = {seed: folder / FOLDER / f"seed-{seed}" for seed in seeds}
    alone = dataclasses.replace(config, seeds=1, threads=1)
    tasks = [
        Task(f"seed {seed}", train_seed, {"config": dataclasses.replace(alone, seed=seed), "out": str(place)})
        for seed, place in places.items()
    ]
    with stoppable(), closing(run_tasks(tasks, runner=runner, workers=workers, watch=watch)) as ending:
        for done in ending:
            raise_if_failed(done)
    return places


def train_seed(config: Config, out: str) -> str:
    """Train the one network of this config to the end, or go on with it; the path of its Run."""
    preset = preset_of(config)
    carry_out(config, _train, lab=LAB, preset=preset, dtype="float32", out=Path(out), resume=True, watch=silent)
    return out


def _train(config: Config, folder: RunFolder, watch: Watch) -> None:
    try:
        with settings(config.threads or 1, config.device):
            rows = train_network(config, folder, watch)
    except (Interrupted, NonFiniteLoss) as error:
        folder.set_status("interrupted" if isinstance(error, Interrupted) else "failed")
        raise
    folder.finish({name: column[-1] for name, column in rows.items()}, [], [], rows)


@contextmanager
def stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("Stopped by request; every network is saved as far as it came. Resume to go on.") from error


def raise_if_failed(done: Done) -> None:
    """A failed worker tells its error as text; the first line is type and message."""
    if done.error is None:
        return
    kind, _, message = done.error.split("\n", 1)[0].partition(": ")
    kinds = {each.__name__: each for each in (Interrupted, NonFiniteLoss)}
    raise kinds.get(kind, MicrographiaError)(f"{done.task.name}: {message or kind}")
