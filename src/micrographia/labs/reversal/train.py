"""Train all networks of a program at once, in a Run of its own within the lab's, with checkpoints to go on from.

The batch of a step is a function of seed and step. On the way forward and reverse questions are asked of every network,
and written down with the checkpoints. Axes: member batch pos.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from micrographia.core.config import flat
from micrographia.core.errors import Interrupted
from micrographia.core.events import Note, Progress, Watch
from micrographia.core.interrupt import interruptible
from micrographia.core.lab import Findings, run_lab
from micrographia.core.runtime import batch_generator, generator
from micrographia.core.small.ensemble import init_ensemble
from micrographia.core.small.next_token import IGNORED
from micrographia.core.small.stacked import Stacked, StackedRows
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import RunFolder, read_metrics, read_tensors, snapshots
from micrographia.core.tokens import Vocabulary
from micrographia.core.training import AdamW, Flat, Layout, Objective, State, fresh_state, train
from micrographia.labs.reversal.arms import ARMS, BILINEAR, Learner, architecture, learners
from micrographia.labs.reversal.behaviour import Asker, ask, asker_of
from micrographia.labs.reversal.bilinear import BilinearObjective, bilinear_asker, fresh_bilinear
from micrographia.labs.reversal.config import Config

BATCHES = 1 << 20
"""Added to the seed: batches are drawn apart from facts and weights."""
WEIGHTS = "weights"


class Program(NamedTuple):
    """What trains together."""

    name: str
    learners: list[Learner]
    objective: Objective
    fresh: Callable[[], Flat]
    asker: Callable[[Flat, int], Asker]
    """(weights, which) -> how a network answers."""
    model: Callable[[Flat, int], Transformer] | None = None
    """The same as a Model; a bilinear form is none."""
    flops: int = 0
    """Of a step and a network, forward and backward."""


class Trained(NamedTuple):
    program: Program
    weights: Flat
    curve: Mapping[str, Sequence[float]]
    seconds: float
    """Of training, a network's share of its program."""

    def askers(self) -> list[Asker]:
        return [self.program.asker(self.weights, k) for k in range(len(self.program.learners))]


def make_program(config: Config, name: str) -> Program:
    """The networks of the arms of this shape, their batches, and how to ask them."""
    if name.startswith("bilinear"):
        some = learners(config, BILINEAR, name)
        objective = BilinearObjective(config, some, symmetric=name.endswith("symmetric"))
        flops = 6 * len(some[0].rows.tokens) * config.network.d_model * (config.network.d_model + config.entities)
        fresh = partial(fresh_bilinear, objective)
        return Program(name, some, objective, fresh, partial(bilinear_asker, objective), None, flops)
    some = learners(config, ARMS, name)
    arch = architecture(config, some)
    columns, batches = _batches(config, some)
    fresh = partial(init_ensemble, arch, [generator(each.seed) for each in some])
    layout = Layout(arch.weight_shapes())
    vocabulary = Vocabulary(tuple(some[0].spelt.words()))

    def model(weights: Flat, k: int) -> Transformer:
        return Transformer(arch, layout.member(weights, k), vocabulary)

    def asker(weights: Flat, k: int) -> Asker:
        return asker_of(model(weights, k))

    per_token = sum(layout.sizes) - 2 * arch.d_vocab * arch.d_model
    width = some[0].rows.tokens.shape[1]
    flops = 6 * config.batch * (width * per_token + len(columns) * arch.d_vocab * arch.d_model)
    objective = Stacked(arch, batches, columns)
    return Program(name, some, objective, fresh, asker, model, flops)


def _batches(config: Config, some: Sequence[Learner]) -> tuple[list[int], Callable[[int], StackedRows]]:
    """The columns at which anything is scored, and the rows of a step, each drawn as often as its weight says."""
    most = max(len(each.rows.tokens) for each in some)
    length = max(each.rows.tokens.shape[1] for each in some)

    def filled(x: Tensor, value: int) -> Tensor:
        return F.pad(x, (0, length - x.shape[1], 0, most - len(x)), value=value)

    tokens = torch.stack([filled(each.rows.tokens, 0) for each in some])
    targets = torch.stack([filled(each.rows.targets, IGNORED) for each in some])
    columns = (targets != IGNORED).any(0).any(0).nonzero()[:, 0].tolist()
    targets = targets[..., columns]
    rising = torch.stack([F.pad(each.rows.weights.double().cumsum(0), (0, most - len(each.rows.weights)), value=torch.inf)
                          for each in some])  # fmt: skip
    total = torch.tensor([each.rows.weights.double().sum() for each in some])[:, None]
    which = torch.arange(len(some))[:, None]

    def batch(step: int) -> StackedRows:
        draw = torch.rand(
            len(some), config.batch, dtype=torch.float64, generator=batch_generator(config.seed + BATCHES, step)
        )
        row = torch.searchsorted(rising, draw * total, right=True).clamp(max=most - 1)
        return StackedRows(tokens[which, row], targets[which, row])

    return columns, batch


def trained(config: Config, name: str, out: Path, *, lab: str, preset: str, watch: Watch) -> Trained:
    """The networks of a program trained to the end in the Run `out`, or as that was left.

    Raises NonFiniteLoss, Interrupted (what was done is saved), CannotWrite.
    """
    program = make_program(config, name)
    work = partial(_train, program)
    done = run_lab(config, work, lab=f"{lab}, {name}", preset=preset, out=out, resume=True, watch=watch)
    kept = snapshots(done.path)
    curve = {key: [float(x) for x in column] for key, column in read_metrics(done.path).items()}
    weights = read_tensors(kept[max(kept)])[WEIGHTS]
    return Trained(program, weights, curve, sum(curve["seconds"]) / len(program.learners))


def _train(program: Program, config: Config, folder: RunFolder, watch: Watch) -> Findings:
    checkpoint = folder.load_checkpoint()
    rows: dict[str, list[float]] = {}
    state = fresh_state(program.fresh())
    if checkpoint is not None:
        watch(Note(f"{program.name}: goes on from step {checkpoint.step}."))
        state = State(checkpoint.step, **checkpoint.tensors)
        rows = {name: [float(x) for x in column] for name, column in checkpoint.rows.items()}
    optim = AdamW(**flat(config.optim), end=config.steps)
    written = len(rows.get("step", []))
    since = time.monotonic()
    losses = torch.zeros(len(program.learners))

    def look(now: State) -> None:
        nonlocal since, written
        seconds = time.monotonic() - since
        row = {"step": float(now.step), "seconds": seconds, **_measured(program, now.weights, losses)}
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
        if now.step % config.schedule.checkpoint_every == 0 or now.step == config.steps:
            if now.step == config.steps:
                folder.save_snapshot(now.step, {WEIGHTS: now.weights})
            folder.save_checkpoint(
                now.step, now.tensors(), {}, {name: column[written:] for name, column in rows.items()}
            )
            written = len(rows["step"])
        since = time.monotonic()

    with interruptible() as request:
        if state.step == 0:
            look(state)
        for now, losses in train(state, program.objective, optim, steps=config.steps):
            due = now.step % config.schedule.eval_every == 0
            saved = now.step % config.schedule.checkpoint_every == 0
            if due or saved or now.step == config.steps:
                look(now)
            watch(Progress(f"train {program.name}", now.step, config.steps, values={"loss": losses.mean().item()}))
            if request.asked and saved and now.step < config.steps:
                raise Interrupted(f"{program.name} stopped at step {now.step} of {config.steps}; resume to go on.")
    return Findings({"program": program.name}, [], metrics=rows)


def _measured(program: Program, weights: Flat, losses: Tensor) -> dict[str, float]:
    """Of every network: loss, and exact matches and log-probability, forward and reverse."""
    found: dict[str, float] = {}
    for k, each in enumerate(program.learners):
        asker = program.asker(weights, k)
        found[f"{each.label}: loss"] = float(losses[k])
        for name in ("forward", "reverse"):
            answered = ask(asker, each.asked[name], each.spelt)
            found[f"{each.label}: {name}"] = float(answered.exact.double().mean())
            found[f"{each.label}: {name} nats"] = float(answered.right.mean())
    return found
