"""The networks of a sweep or a lottery: each trained by the lab's own run, side by side, each in a folder of its own.

A member that is finished is not trained again, one that was interrupted goes on from its checkpoint; one that fails is
told and the others go on.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.errors import Interrupted
from micrographia.core.events import Note, Watch
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import read_tensors
from micrographia.core.store.checkpoints import snapshots
from micrographia.core.tasks import Done, Task, run_tasks
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.network import NetworkTensors, tensors_of
from micrographia.labs.grokking.run import run
from micrographia.labs.grokking.task import architecture, make_pairs

FOLDER = "members"


def train_member(config: Config, out: str) -> Run:
    """Train a member, or go on with it, or read it when it is finished."""
    return run(config, out=Path(out), resume=True)


def network_at(config: Config, run: Run, epoch: int) -> NetworkTensors:
    """A member's network at one of its snapshots."""
    return tensors_of(Transformer(architecture(config), read_tensors(snapshots(run.path)[epoch])), make_pairs(config))


def epochs_kept(run: Run) -> list[int]:
    """Epochs whose weights the member keeps, rising; the last is its last epoch."""
    return sorted(snapshots(run.path))


def train_all(
    function: Callable[..., Any],
    configs: Mapping[str, Config],
    folder: Path,
    *,
    runner: str,
    workers: int | None,
    watch: Watch,
    **arguments: Any,
) -> dict[str, Done]:
    """`function(config, out, **arguments)` for every member, by name. Raises Interrupted when the user stops.

    `function` stands at the top of a module; what it gives must travel between processes.
    """
    tasks = [
        Task(name, function, {"config": config, "out": str(folder / FOLDER / name), **arguments})
        for name, config in configs.items()
    ]
    found: dict[str, Done] = {}
    try:
        with closing(run_tasks(tasks, runner=runner, workers=workers, watch=watch)) as ending:
            for done in ending:
                found[done.task.name] = done
                _tell(done, watch)
    except KeyboardInterrupt as error:
        raise Interrupted(_so_far(found, tasks)) from error
    if any(_was_stopped(done) for done in found.values()):
        raise Interrupted(_so_far(found, tasks))
    return {name: found[name] for name in configs}


def first_line(error: str | None) -> str | None:
    """Type and message of a failure, without its traceback."""
    return error.split("\n", 1)[0] if error else None


def _tell(done: Done, watch: Watch) -> None:
    if done.error and not _was_stopped(done):
        watch(Note(f"Member {done.task.name} failed, the others go on. {first_line(done.error)}", "warning"))


def _was_stopped(done: Done) -> bool:
    """It saved what it had when it was told to stop: no failure of the member."""
    return bool(done.error) and str(done.error).startswith(f"{Interrupted.__name__}:")


def _so_far(found: Mapping[str, Done], tasks: Sequence[Task]) -> str:
    whole = sum(not done.error for done in found.values())
    return (
        f"Stopped by request: {whole} of {len(tasks)} members are finished, all others are saved as far as they came."
    )
