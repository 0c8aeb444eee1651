"""TrainingLog: what is written down of a training between its steps: rows of what was measured, and checkpoints.

It is all in the folder of a Run, or nowhere. The first process writes; the others take its state.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from micrographia.core.distributed import Ranks
from micrographia.core.errors import Interrupted
from micrographia.core.events import Note, Watch
from micrographia.core.runtime import provenance
from micrographia.core.store import Checkpoint, RunFolder, checkpoints
from micrographia.methods.dictionaries.training.stack import StackState
from micrographia.methods.dictionaries.training.trainer import Trainer

MEASURED = ("loss", "reconstruction", "l0", "dead")
"""What a row holds of each dictionary, as `loss[0]`."""


@contextmanager
def home_of(
    folder: RunFolder | Path | str | None, config: Mapping[str, Any], like: Tensor, group: Ranks
) -> Iterator[RunFolder | None]:
    """The folder to write to: as given, opened at a path, or none; none in any process but the first."""
    if folder is None or group.rank > 0:
        yield None
    elif isinstance(folder, RunFolder):
        yield folder  # whose owner finishes it
    else:
        found = provenance(config["seed"], like.device, like.dtype, torch.get_num_threads())
        with RunFolder.open(
            folder, lab="dictionary", preset="custom", config=config, provenance=found, resume=True
        ) as home:
            try:
                yield home
            except Interrupted:
                home.set_status("interrupted")
                raise
            if home.status != "finished":
                last = home.load_checkpoint()
                home.finish({}, [], [], {} if last is None else last.rows)


def newest(home: RunFolder | None, watch: Watch) -> Checkpoint | None:
    """The newest good checkpoint of the folder, if there is one; damage is told."""
    if home is None:
        return None
    if home.status == "finished":
        found, notes = checkpoints.newest_good(home.path)
    else:
        found, notes = home.load_checkpoint(), home.notes
    for note in notes:
        watch(Note(note, "warning"))
    return found


class TrainingLog:
    """Rows and checkpoints of some Trainers, which step together."""

    def __init__(
        self,
        trainers: Sequence[Trainer],
        home: RunFolder | None,
        group: Ranks,
        *,
        record_every: int,
        checkpoint_every: int,
    ) -> None:
        self.trainers, self.home, self.group = trainers, home, group
        self.record_every, self.checkpoint_every = record_every, checkpoint_every
        self.step, self._saved = 0, 0
        self._newest: dict[str, Tensor] = {}
        count = sum(len(each.stack.recipes) for each in trainers)
        columns = [f"{name}[{place}]" for place in range(count) for name in MEASURED]
        self._rows: dict[str, list[float]] = {name: [] for name in ["step", *columns]}

    @property
    def where(self) -> str:
        """A sentence: where the state is."""
        if self.home is None:
            return "Nothing was saved, as no folder was given."
        return f"The state after step {self._saved} is saved in {self.home.path}; resume from there."

    def resume(self, checkpoint: Checkpoint | None, watch: Watch) -> None:
        """Take the state of a checkpoint, if there is one, in all processes."""
        if checkpoint is not None:
            watch(Note(f"Goes on from the checkpoint of step {checkpoint.step}."))
            for index, trainer in enumerate(self.trainers):
                state, prefix = trainer.state, f"{index}."
                found = {name: checkpoint.tensors[prefix + name].to(old) for name, old in state.tensors().items()}
                trainer.take(StackState(checkpoint.numbers["steps"][index], **found))
        reached = torch.tensor(
            [0 if checkpoint is None else checkpoint.step, *(each.state.step for each in self.trainers)]
        )
        self.step, *steps = self.group.from_first(reached).tolist()
        self._saved = self.step
        for trainer, step in zip(self.trainers, steps):
            for value in trainer.state.tensors().values():
                self.group.from_first(value)
            trainer.take(trainer.state._replace(step=step))

    def note(self, trainer: Trainer, measured: Mapping[str, Tensor]) -> None:
        """What a step of this Trainer gave."""
        for name in measured.keys() & set(MEASURED):
            for member, place in enumerate(trainer.stack.places):
                self._newest[f"{name}[{place}]"] = measured[name][member]

    def after(self, step: int, *, last: bool) -> None:
        """Write a row and a checkpoint where they are due."""
        self.step = step
        if step % self.record_every == 0 or last:
            for name, column in self._rows.items():
                column.append(step if name == "step" else float(self._newest.get(name, torch.nan)))
        if step % self.checkpoint_every == 0 or last:
            self.save()

    def save(self) -> None:
        """A checkpoint of the present step, with the rows since the last."""
        if self.home is None or self.step == self._saved:
            return
        states = [each.state for each in self.trainers]
        tensors = {f"{index}.{name}": x for index, state in enumerate(states) for name, x in state.tensors().items()}
        self.home.save_checkpoint(self.step, tensors, {"steps": [state.step for state in states]}, self._rows)
        self._rows = {name: [] for name in self._rows}
        self._saved = self.step

    def shown(self) -> dict[str, float]:
        """The means over all dictionaries of what was measured last."""
        found: dict[str, list[Tensor]] = {}
        for key, value in self._newest.items():
            found.setdefault(key.partition("[")[0], []).append(value)
        return {name: float(torch.stack(values).double().mean()) for name, values in found.items()}
