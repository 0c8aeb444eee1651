"""Train one network, keeping what the analysis needs: a row every epoch, snapshots, checkpoints.

Everything falls on steps: a run killed at any instant and resumed writes the same snapshots and rows as one left
alone. The loss in row e is that of the weights before step e.
"""

import math
from typing import Protocol

import numpy as np
from torch import Tensor

from micrographia.core.ensemble import PlainObjective, init_ensemble
from micrographia.core.errors import BadConfig, Interrupted, NonFiniteLoss
from micrographia.core.events import Note, Progress, Watch
from micrographia.core.interrupt import interruptible
from micrographia.core.last_position import LastPosition, supports
from micrographia.core.runtime import generator, torch_dtype
from micrographia.core.store import RunFolder
from micrographia.core.training import AdamW, Flat, Layout, LossAndGradient, State, fresh_state, train
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.task import Pairs, architecture, make_pairs

COLUMNS = ("epoch", "train_loss", "test_loss", "test_accuracy", "squared_weights")
Rows = dict[str, list[float]]


class Plan(Protocol):
    """A forward and backward pass over fixed rows."""

    def __call__(self, weights: Flat, step: int = 0) -> LossAndGradient: ...

    def evaluate(self, weights: Flat) -> tuple[Tensor, list[float]]: ...


def make_plan(config: Config, pairs: Pairs, rows: Tensor) -> Plan:
    """The plan that `config.plan` asks for, over the rows marked."""
    arch = architecture(config)
    tokens, labels = pairs.tokens[rows][None].to(config.device), pairs.labels[rows][None].to(config.device)
    if config.plan == "plain" or (config.plan == "auto" and not supports(arch)):
        return PlainObjective(arch, tokens, labels)
    if not supports(arch):
        raise BadConfig("The fast plan was asked for, but it covers one block without norm only. Choose plan auto.")
    return LastPosition(arch, tokens, labels, dtype=torch_dtype(config.dtype))


def make_optimiser(config: Config) -> AdamW:
    """AdamW with the config's choices."""
    return AdamW(
        lr=config.lr,
        weight_decay=config.weight_decay,
        beta1=config.beta1,
        beta2=config.beta2,
        eps=config.eps,
        warmup=config.warmup,
    )


def snapshot_steps(config: Config) -> list[int]:
    """0, the last epoch, and about `config.snapshots` between: half evenly on a log scale, half evenly in epochs."""
    half = max(config.snapshots // 2, 1)
    spaced = [np.geomspace(1, config.epochs, half), np.linspace(0, config.epochs, half + 1)]
    return sorted({0, config.epochs, *np.concatenate(spaced).round().astype(int).tolist()})


def fresh_weights(config: Config) -> Flat:
    """The published initialisation at this seed."""
    weights = init_ensemble(architecture(config), [generator(config.seed)], dtype=torch_dtype(config.dtype))
    return weights.to(config.device)


def train_network(config: Config, folder: RunFolder, watch: Watch) -> Rows:
    """Train to the end, from the newest good checkpoint if there is one; give the rows of all epochs.

    Raises Interrupted (saved, resumable) and NonFiniteLoss (naming the last good checkpoint).
    """
    pairs = make_pairs(config)
    plan, test_plan = make_plan(config, pairs, pairs.train), make_plan(config, pairs, ~pairs.train)
    state, rows, saved = _begin(config, folder, watch)
    recorder = Recorder(config, folder, plan, test_plan, rows, saved)
    optimiser = make_optimiser(config)
    try:
        with interruptible() as request:
            if state.step < config.epochs:
                recorder.look(state)
            for now, loss in train(state, plan, optimiser, steps=config.epochs):
                recorder.rows["train_loss"][-1] = loss.item()
                recorder.look(now)
                watch(recorder.progress(now))
                if request.asked and now.step < config.epochs:
                    recorder.save(now)
                    raise Interrupted(f"Stopped by request at epoch {now.step} of {config.epochs}; all is saved.")
    except NonFiniteLoss as error:
        good = (
            f"The last good checkpoint is that of step {recorder.saved}" if recorder.saved else "No checkpoint is yet"
        )
        raise NonFiniteLoss(
            f"{error} {good} in {folder.path}. Lower lr or weight_decay, or train in float64."
        ) from error
    return recorder.rows


def _begin(config: Config, folder: RunFolder, watch: Watch) -> tuple[State, Rows, int]:
    checkpoint = folder.load_checkpoint()
    for note in folder.notes:
        watch(Note(note, "warning"))
    if checkpoint is None:
        return fresh_state(fresh_weights(config)), {name: [] for name in COLUMNS}, 0
    watch(Note(f"Goes on from the checkpoint of epoch {checkpoint.step}."))
    tensors = {name: tensor.to(config.device) for name, tensor in checkpoint.tensors.items()}
    rows = {name: [math.nan if x is None else float(x) for x in checkpoint.rows[name]] for name in COLUMNS}
    rows["epoch"] = [int(epoch) for epoch in rows["epoch"]]
    return State(checkpoint.step, **tensors), rows, checkpoint.step


class Recorder:
    """What is written down between steps."""

    def __init__(self, config: Config, folder: RunFolder, plan: Plan, test_plan: Plan, rows: Rows, saved: int) -> None:
        self.config, self.folder, self.plan, self.test_plan = config, folder, plan, test_plan
        self.rows, self.saved = rows, saved
        self._committed = len(rows["epoch"])
        self._snapshots = frozenset(snapshot_steps(config))
        self._layout = Layout(architecture(config).weight_shapes())

    def look(self, state: State) -> None:
        """Open the row of this step; evaluate, snapshot and checkpoint where they fall due."""
        step, end = state.step, state.step == self.config.epochs
        row = dict.fromkeys(COLUMNS, math.nan) | {"epoch": step}
        if step % self.config.eval_every == 0 or end:
            loss, accuracy = self.test_plan.evaluate(state.weights)
            squared = state.weights.double().pow(2).sum().item()
            row |= {"test_loss": loss.item(), "test_accuracy": accuracy[0], "squared_weights": squared}
        if end:
            row["train_loss"] = self.plan.evaluate(state.weights)[0].item()
        for name in COLUMNS:
            self.rows[name].append(row[name])
        if step in self._snapshots:
            self.folder.save_snapshot(step, self._layout.member(state.weights, 0))
        if step % self.config.checkpoint_every == 0 or end:
            self.save(state)

    def save(self, state: State) -> None:
        """Commit the state and the rows since the last commit; the newest row, unless the last, waits for its loss."""
        if state.step == self.saved:
            return
        stop = len(self.rows["epoch"]) - (state.step < self.config.epochs)
        since = {name: self.rows[name][self._committed : stop] for name in COLUMNS}
        self.folder.save_checkpoint(state.step, state.tensors(), {}, since)
        self._committed, self.saved = stop, state.step

    def progress(self, state: State) -> Progress:
        known = {name: _newest(self.rows[name]) for name in ("train_loss", "test_loss")}
        return Progress("train", state.step, self.config.epochs, "epoch", known)


def _newest(column: list[float]) -> float:
    """The last figure that was measured."""
    return next((x for x in reversed(column) if not math.isnan(x)), math.nan)
