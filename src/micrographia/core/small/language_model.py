"""A small language model of a lab: trained on the rows of its text, in a Run that every command takes as a model.

A row a step (`core.train_loop`): the loss on the batch of that step, in nats a token; every `eval_every` steps that on
held-out rows.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from micrographia.core import figures
from micrographia.core.config import Blocks, Machine, Optimiser, Schedule, flat
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings, run_lab
from micrographia.core.runtime import batch_generator, generator
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.fused import fused_forward
from micrographia.core.small.next_token import NextToken
from micrographia.core.small.next_token import Text as Contexts
from micrographia.core.small.split_text import ReadsText, SplitText
from micrographia.core.small.trained import describe_model, load_trained
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import RunFolder
from micrographia.core.train_loop import Record, Rows, train_recorded
from micrographia.core.training import AdamW, Flat, Layout, State

LOOKED_AT = 128
"""Held-out rows of a loss along training."""


@runtime_checkable
class TrainsLanguageModel(ReadsText, Protocol):
    """The choices of a config that say what language model is trained on the text, and how."""

    @property
    def network(self) -> Blocks: ...

    @property
    def optim(self) -> Optimiser: ...

    @property
    def rows(self) -> int:
        """Contexts in a batch."""
        ...

    @property
    def steps(self) -> int: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def machine(self) -> Machine: ...


def architecture(config: TrainsLanguageModel, text: SplitText) -> Architecture:
    """The transformer that the config asks for, over the tokens of the text."""
    n = text.byte_pairs.size
    return Architecture(d_vocab=n, d_vocab_out=n, n_ctx=config.n_ctx, **flat(config.network))


def snapshot_steps(config: TrainsLanguageModel) -> list[int]:
    """The last step, and `snapshots` - 1 before it, evenly."""
    n = config.schedule.snapshots
    return sorted({max(1, round((i + 1) * config.steps / n)) for i in range(n)})


def trained(
    config: TrainsLanguageModel, text: SplitText, out: Path, *, lab: str, preset: str, watch: Watch = silent
) -> Transformer:
    """The language model of this config, trained to the end in the Run `out`, or as that was left.

    Raises NonFiniteLoss, Interrupted (its checkpoints stay), CannotWrite.
    """

    def work(config: TrainsLanguageModel, folder: RunFolder, watch: Watch) -> Findings:
        return _train(config, text, folder, renamed(watch, "train the language model"))

    done = run_lab(config, work, lab=lab, preset=preset, out=out, resume=True, watch=watch)
    return load_trained(done.path, device=config.machine.device)


def _train(config: TrainsLanguageModel, text: SplitText, folder: RunFolder, watch: Watch) -> Findings:
    arch, device = architecture(config, text), config.machine.device
    layout = Layout(arch.weight_shapes())
    describe_model(folder, arch, text.byte_pairs)

    def fresh() -> Flat:
        return layout.pack([{name: w.to(device) for name, w in init_weights(arch, generator(config.seed)).items()}])

    def contexts(step: int) -> Contexts:
        chosen = torch.randint(len(text.train), (config.rows,), generator=batch_generator(config.seed, step))
        return Contexts(text.train[chosen])

    def measure(state: State) -> dict[str, float]:
        return {"held_out_nats": loss(arch, layout.member(state.weights, 0), text.held_out[:LOOKED_AT].to(device))}

    record = Record(
        steps=config.steps,
        loss="loss_nats",
        measured=("held_out_nats",),
        measure=measure,
        measure_every=config.schedule.eval_every,
        checkpoint_every=config.schedule.checkpoint_every,
        snapshots=snapshot_steps(config),
        shown={"loss": "loss_nats", "held out": "held_out_nats"},
    )
    objective, optimiser = NextToken(arch, [contexts]), AdamW(**flat(config.optim))
    found = train_recorded(
        record, folder, arch=arch, fresh=fresh, objective=objective, optimiser=optimiser, device=device, watch=watch
    )
    return Findings({name: column[-1] for name, column in found.items()}, [], metrics=found)


@torch.no_grad()
def loss(arch: Architecture, weights: dict[str, Tensor], rows: Tensor, n: int = 32) -> float:
    """Mean cross-entropy of the next token in nats, `n` rows at a time."""
    each = [
        F.cross_entropy(
            fused_forward(arch, weights, part[:, :-1]).flatten(0, 1), part[:, 1:].flatten(), reduction="sum"
        )
        for part in rows.split(n)
    ]
    return float(torch.stack(each).double().sum()) / rows[:, 1:].numel()


def loss_curve(columns: Rows, group: str) -> Figure:
    """The rows of the training as a picture."""
    step, batch, held = (np.array(columns[key], float) for key in ("step", "loss_nats", "held_out_nats"))
    looked = np.where(np.isfinite(held), step, np.nan)  # seldom; sorted to the front, a line joins them
    order = np.argsort(looked)
    return figures.lines(
        "language-model", "The language model", np.stack([step, looked[order]]), np.stack([batch, held[order]]),
        names=["batch", "held out"], x_label="step", y_label="nats a token", group=group,
        caption="Cross-entropy of the next token.",
    )  # fmt: skip
