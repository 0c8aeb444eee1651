"""The training loop with metrics, snapshots and checkpoints, in the folder of a Run.

All of it happens between steps: a run killed at any instant and resumed writes the same rows and snapshots as an
uninterrupted one. The loss in row s is that of the weights before step s, on the batch of step s; in the last row it
comes from `measure`. One model is trained; the steps themselves are in `training`.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from micrographia.core.errors import Interrupted, NonFiniteLoss
from micrographia.core.events import Note, Progress, Watch
from micrographia.core.interrupt import interruptible
from micrographia.core.store import RunFolder
from micrographia.core.training import Flat, Layout, Objective, State, UpdateRule, fresh_state, train

Rows = dict[str, list[float]]


@runtime_checkable
class Shaped(Protocol):
    """What is trained: it knows the shapes of its weights by name, as an `Architecture` does."""

    def weight_shapes(self) -> dict[str, tuple[int, ...]]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is recorded during training, and when."""

    steps: int
    """The number of steps."""
    loss: str
    """The column of the loss before each step."""
    measured: tuple[str, ...]
    """The columns that `measure` fills."""
    measure: Callable[[State], Mapping[str, float]]
    """Called every `measure_every` steps and at the end; columns that it leaves out are NaN."""
    measure_every: int
    checkpoint_every: int
    snapshots: Collection[int]
    """The steps after which a snapshot of the weights is saved."""
    unit: str = "step"
    """The name of a step, and of the first column, which counts them."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """The columns whose latest values are shown beside the progress bar, by their names there."""
    advice: str = "Lower lr."
    """Advice for when the loss becomes NaN or infinite."""

    @property
    def columns(self) -> tuple[str, ...]:
        return self.unit, self.loss, *self.measured


def train_recorded(
    record: Record,
    folder: RunFolder,
    *,
    arch: Shaped,
    fresh: Callable[[], Flat],
    objective: Objective,
    optimiser: UpdateRule,
    device: str,
    watch: Watch,
) -> Rows:
    """Train to the end, from the newest good checkpoint if there is one, else from `fresh`; return the rows of all
    steps.

    Cost besides the steps: one checkpoint (three times the weights) at a time on disk, and the rows in memory. Raises
    Interrupted (saved, resumable) and NonFiniteLoss (naming the last good checkpoint).
    """
    state, rows, saved = _begin(record, folder, fresh, device, watch)
    recorder = _Recorder(record, Layout(arch.weight_shapes()), folder, rows, saved)
    try:
        with interruptible() as request:
            if state.step < record.steps:
                recorder.look(state)
            for now, loss in train(state, objective, optimiser, steps=record.steps):
                rows[record.loss][-1] = loss.item()
                recorder.look(now)
                watch(recorder.progress(now))
                if request.asked and now.step < record.steps:
                    recorder.save(now)
                    stopped = f"{record.unit} {now.step} of {record.steps}"
                    raise Interrupted(f"Stopped by request at {stopped}; everything is saved. Resume to continue.")
    except NonFiniteLoss as error:
        at = recorder.saved
        good = f"The last good checkpoint is that of {record.unit} {at}" if at else "No checkpoint is yet"
        raise NonFiniteLoss(f"{error} {good} in {folder.path}. {record.advice}") from error
    return rows


def _begin(
    record: Record, folder: RunFolder, fresh: Callable[[], Flat], device: str, watch: Watch
) -> tuple[State, Rows, int]:
    """The State to continue from, the rows before it, and the last saved step."""
    checkpoint = folder.load_checkpoint()
    for note in folder.notes:
        watch(Note(note, "warning"))
    if checkpoint is None:
        return fresh_state(fresh()), {name: [] for name in record.columns}, 0
    watch(Note(f"Goes on from the checkpoint of {record.unit} {checkpoint.step}."))
    tensors = {name: tensor.to(device) for name, tensor in checkpoint.tensors.items()}
    rows = {name: [math.nan if x is None else float(x) for x in checkpoint.rows[name]] for name in record.columns}
    rows[record.unit] = [int(step) for step in rows[record.unit]]
    return State(checkpoint.step, **tensors), rows, checkpoint.step


class _Recorder:
    """Records between two steps: rows, snapshots, checkpoints."""

    def __init__(self, record: Record, layout: Layout, folder: RunFolder, rows: Rows, saved: int) -> None:
        self.record, self.layout, self.folder = record, layout, folder
        self.rows, self.saved = rows, saved
        self._committed = len(rows[record.unit])
        self._snapshots = frozenset(record.snapshots)

    def look(self, state: State) -> None:
        """Open the row of this step; measure, save a snapshot and a checkpoint when due."""
        record, step, end = self.record, state.step, state.step == self.record.steps
        row = dict.fromkeys(record.columns, math.nan) | {record.unit: step}
        if step % record.measure_every == 0 or end:
            row |= record.measure(state)
        for name in record.columns:
            self.rows[name].append(row[name])
        if step in self._snapshots:
            self.folder.save_snapshot(step, self.layout.member(state.weights, 0))
        if step % record.checkpoint_every == 0 or end:
            self.save(state)

    def save(self, state: State) -> None:
        """Commit the state and the rows since the last commit, less the newest one, whose loss is to come."""
        if state.step == self.saved:
            return
        stop = len(self.rows[self.record.unit]) - (state.step < self.record.steps)
        since = {name: self.rows[name][self._committed : stop] for name in self.record.columns}
        self.folder.save_checkpoint(state.step, state.tensors(), {}, since)
        self._committed, self.saved = stop, state.step

    def progress(self, state: State) -> Progress:
        record = self.record
        newest = {name: _newest(self.rows[column]) for name, column in record.shown.items()}
        return Progress("train", state.step, record.steps, record.unit, newest)


def _newest(column: list[float]) -> float:
    """The latest measured value."""
    return next((x for x in reversed(column) if not math.isnan(x)), math.nan)
