"""Train one network: the plan of a step, and what is written down of the training for the analysis.

A row every epoch (`core.train_loop`): the loss on the training pairs of the weights before that epoch; and every
`eval_every` epochs loss and accuracy on the other pairs, and the sum of squares of all weights.
"""

from typing import Protocol

import numpy as np
from torch import Tensor

from micrographia.core.config import flat
from micrographia.core.errors import BadConfig
from micrographia.core.events import Watch
from micrographia.core.runtime import generator, torch_dtype
from micrographia.core.small.ensemble import PlainObjective, init_ensemble
from micrographia.core.small.last_position import LastPosition, supports
from micrographia.core.store import RunFolder
from micrographia.core.train_loop import Record, Rows, train_recorded
from micrographia.core.training import AdamW, Flat, LossAndGradient, State
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.task import AllPairs, architecture, make_pairs


class Plan(Protocol):
    """A forward and backward pass over fixed rows."""

    def __call__(self, weights: Flat, step: int = 0) -> LossAndGradient: ...

    def evaluate(self, weights: Flat) -> tuple[Tensor, list[float]]: ...


def make_plan(config: Config, pairs: AllPairs, rows: Tensor) -> Plan:
    """The plan that `config.plan` asks for, over the rows marked."""
    arch = architecture(config)
    tokens, labels = (part[rows][None].to(config.machine.device) for part in (pairs.tokens, pairs.labels))
    if config.plan == "plain" or (config.plan == "auto" and not supports(arch)):
        return PlainObjective(arch, tokens, labels)
    if not supports(arch):
        raise BadConfig("The fast plan was asked for, but it covers one block without norm only. Choose plan auto.")
    return LastPosition(arch, tokens, labels, dtype=torch_dtype(config.dtype))


def make_optimiser(config: Config) -> AdamW:
    """AdamW with the config's choices."""
    return AdamW(**flat(config.optim))


def snapshot_steps(config: Config) -> list[int]:
    """0, the last epoch, and about `snapshots` between: half evenly on a log scale, half evenly in epochs."""
    half = max(config.schedule.snapshots // 2, 1)
    spaced = [np.geomspace(1, config.epochs, half), np.linspace(0, config.epochs, half + 1)]
    return sorted({0, config.epochs, *np.concatenate(spaced).round().astype(int).tolist()})


def fresh_weights(config: Config) -> Flat:
    """The published initialisation at this seed."""
    weights = init_ensemble(architecture(config), [generator(config.seed)], dtype=torch_dtype(config.dtype))
    return weights.to(config.machine.device)


def train_network(config: Config, folder: RunFolder, watch: Watch) -> Rows:
    """Train to the end, from the newest good checkpoint if there is one; give the rows of all epochs.

    Raises Interrupted (saved, resumable) and NonFiniteLoss (naming the last good checkpoint).
    """
    pairs = make_pairs(config)
    plan, test_plan = make_plan(config, pairs, pairs.train), make_plan(config, pairs, ~pairs.train)

    def measure(state: State) -> dict[str, float]:
        loss, accuracy = test_plan.evaluate(state.weights)
        squared = state.weights.double().pow(2).sum().item()
        row = {"test_loss": loss.item(), "test_accuracy": accuracy[0], "squared_weights": squared}
        last = {"train_loss": plan.evaluate(state.weights)[0].item()} if state.step == config.epochs else {}
        return row | last

    record = Record(
        steps=config.epochs,
        unit="epoch",
        loss="train_loss",
        measured=("test_loss", "test_accuracy", "squared_weights"),
        measure=measure,
        measure_every=config.schedule.eval_every,
        checkpoint_every=config.schedule.checkpoint_every,
        snapshots=snapshot_steps(config),
        shown={"train_loss": "train_loss", "test_loss": "test_loss"},
        advice="Lower lr or weight_decay, or train in float64.",
    )
    return train_recorded(
        record,
        folder,
        arch=architecture(config),
        fresh=lambda: fresh_weights(config),
        objective=plan,
        optimiser=make_optimiser(config),
        device=config.machine.device,
        watch=watch,
    )
