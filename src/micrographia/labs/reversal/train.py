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
from micrographia.core.lab import Findings, run_in_folder
from micrographia.core.runtime import allowed_cores, batch_generator, generator, provenance
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


CONVEX = {"lr": 0.05, "weight_decay": 0.0}
"""Of the bilinear forms, whose loss is convex in the matrices: a large rate, all rows, a quarter of the steps."""


class NetworkProgram(NamedTuple):
    """What trains together."""

    name: str
    learners: list[Learner]
    objective: Objective
    fresh: Callable[[], Flat]
    asker: Callable[[Flat, int], Asker]
    """(weights, which) -> how a network answers."""
    steps: int
    optimiser: AdamW
    flops: int
    """Of a step and a network, forward and backward."""
    model: Callable[[Flat, int], Transformer] | None = None
    """The same as a Model; a bilinear form is none."""


class TrainedProgram(NamedTuple):
    program: NetworkProgram
    weights: Flat
    curve: Mapping[str, Sequence[float]]
    seconds: float
    """Of training, a network's share of its program."""

    def askers(self) -> list[Asker]:
        return [self.program.asker(self.weights, k) for k in range(len(self.program.learners))]


def make_program(config: Config, name: str) -> NetworkProgram:
    """The networks of the arms of this shape, their batches, and how to ask them."""
    if name.startswith("bilinear"):
        some = learners(config, BILINEAR, name)
        objective = BilinearObjective(config, some, symmetric=name.endswith("symmetric"))
        flops = 6 * len(some[0].rows.tokens) * config.network.d_model * (config.network.d_model + config.entities)
        fresh = partial(fresh_bilinear, objective)
        steps = max(1, config.steps // 4)
        optimiser = AdamW(**{**flat(config.optim), **CONVEX}, end=steps)
        return NetworkProgram(name, some, objective, fresh, partial(bilinear_asker, objective), steps, optimiser, flops)
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
    steps = config.steps * some[0].arm.longer
    optimiser = AdamW(**flat(config.optim), end=steps)
    return NetworkProgram(name, some, objective, fresh, asker, steps, optimiser, flops, model)


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
    sums = [each.rows.weights.double().cumsum(0) for each in some]
    rising = torch.stack([F.pad(each, (0, most - len(each)), value=torch.inf) for each in sums])
    total = torch.stack([each[-1:] for each in sums])
    which = torch.arange(len(some))[:, None]

    def batch(step: int) -> StackedRows:
        draw = torch.rand(
            len(some), config.batch, dtype=torch.float64, generator=batch_generator(config.seed + BATCHES, step)
        )
        row = torch.searchsorted(rising, draw * total, right=True).clamp(max=most - 1)
        return StackedRows(tokens[which, row], targets[which, row])

    return columns, batch


def trained(config: Config, name: str, out: Path, *, lab: str, preset: str, watch: Watch) -> TrainedProgram:
    """The networks of a program trained to the end in the Run `out`, or as that was left; device and threads are set.

    Raises NonFiniteLoss, Interrupted (what was done is saved), CannotWrite.
    """
    program = make_program(config, name)
    about = provenance(config.seed, config.machine.device, "float32", config.machine.threads or allowed_cores())
    done = run_in_folder(
        flat(config), partial(_train, program, config), lab=f"{lab}, {name}", preset=preset, about=about, out=out,
        resume=True, watch=watch,
    )  # fmt: skip
    kept = snapshots(done.path)
    curve = {key: [float(x) for x in column] for key, column in read_metrics(done.path).items()}
    weights = read_tensors(kept[max(kept)])[WEIGHTS]
    return TrainedProgram(program, weights, curve, sum(curve["seconds"]) / len(program.learners))


def _train(program: NetworkProgram, config: Config, folder: RunFolder, watch: Watch) -> Findings:
    checkpoint = folder.load_checkpoint()
    steps, schedule = program.steps, config.schedule
    rows: dict[str, list[float]] = {}
    state = fresh_state(program.fresh())
    if checkpoint is not None:
        watch(Note(f"{program.name}: goes on from step {checkpoint.step}."))
        state = State(checkpoint.step, **checkpoint.tensors)
        rows = {name: [float(x) for x in column] for name, column in checkpoint.rows.items()}
    saved = len(rows.get("step", []))
    since, losses = time.monotonic(), torch.zeros(len(program.learners))

    def look(now: State) -> None:
        nonlocal since
        row = {"step": float(now.step), "seconds": time.monotonic() - since, **_measured(program, now.weights, losses)}
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
        since = time.monotonic()

    def save(now: State) -> None:
        nonlocal saved
        if now.step == steps:
            folder.save_snapshot(steps, {WEIGHTS: now.weights})
        folder.save_checkpoint(now.step, now.tensors(), {}, {name: column[saved:] for name, column in rows.items()})
        saved = len(rows["step"])

    with interruptible() as request:
        if state.step == 0:
            look(state)
        for now, losses in train(state, program.objective, program.optimiser, steps=steps):
            if now.step % schedule.eval_every == 0 or now.step == steps:
                look(now)
            stop = request.asked and now.step < steps
            if now.step % schedule.checkpoint_every == 0 or now.step == steps or stop:
                save(now)
            watch(Progress(f"train {program.name}", now.step, steps, values={"loss": losses.mean().item()}))
            if stop:
                raise Interrupted(f"{program.name} stopped at step {now.step} of {steps}; resume to go on.")
    return Findings({"program": program.name}, [], metrics=rows)


def _measured(program: NetworkProgram, weights: Flat, losses: Tensor) -> dict[str, float]:
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
