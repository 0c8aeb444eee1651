"""Train one network on the grammar, keeping what the analysis needs: a row a step, snapshots, checkpoints.

Everything falls on steps: a run killed at any instant and resumed writes the same snapshots and rows as one left alone.
The loss in row s is that of the weights before step s, on the batch of step s; the last row has no loss.
"""

import math
from collections.abc import Mapping

from torch import Tensor

from micrographia.core.architecture import Architecture
from micrographia.core.errors import Interrupted, NonFiniteLoss
from micrographia.core.events import Note, Progress, Watch
from micrographia.core.interrupt import interruptible
from micrographia.core.next_token import NextToken, Text
from micrographia.core.runtime import generator
from micrographia.core.store import RunFolder, read_tensors
from micrographia.core.trained import describe_model
from micrographia.core.training import AdamW, Layout, State, fresh_state, train
from micrographia.core.transformer import Transformer
from micrographia.core.transformer_weights import init_weights
from micrographia.labs.ioi.behaviour import perform
from micrographia.labs.ioi.config import Config
from micrographia.labs.ioi.grammar import WORDS, batch, tokenizer
from micrographia.labs.ioi.templates import BEHAVIOURS

MEASURED = ("accuracy", "preferred", "logit_difference")
COLUMNS = ("step", "loss_nats", *(f"{behaviour}_{name}" for behaviour in BEHAVIOURS for name in MEASURED))
Rows = dict[str, list[float]]


def architecture(config: Config) -> Architecture:
    """The transformer that the config asks for, over the words of the grammar."""
    names = ("n_ctx", "n_layers", "d_model", "n_heads", "d_head", "d_mlp", "act", "norm", "positions")
    return Architecture(d_vocab=len(WORDS), d_vocab_out=len(WORDS), **{name: getattr(config, name) for name in names})


def make_objective(config: Config) -> NextToken:
    """Next-word loss over the contexts of each step."""

    def contexts(step: int) -> Text:
        return batch(config.seed, step, rows=config.rows, n_ctx=config.n_ctx)

    return NextToken(architecture(config), [contexts], plan=config.plan)


def make_optimiser(config: Config) -> AdamW:
    """AdamW with the config's choices."""
    names = ("lr", "weight_decay", "beta1", "beta2", "eps", "warmup")
    return AdamW(**{name: getattr(config, name) for name in names})


def fresh_weights(config: Config) -> dict[str, Tensor]:
    """The network at this seed before training."""
    return {name: w.to(config.device) for name, w in init_weights(architecture(config), generator(config.seed)).items()}


def as_model(config: Config, weights: Mapping[str, Tensor]) -> Transformer:
    """The network with its vocabulary, as a Model."""
    return Transformer(architecture(config), weights, tokenizer())


def network_at(config: Config, folder: RunFolder, step: int | None = None) -> Transformer:
    """The network of this folder at one of its snapshots, by default the last."""
    kept = folder.snapshots()
    return as_model(
        config, {k: w.to(config.device) for k, w in read_tensors(kept[step if step is not None else max(kept)]).items()}
    )


def snapshot_steps(config: Config) -> list[int]:
    """0, the last step, and `config.snapshots` - 1 between, evenly."""
    return sorted({round(i * config.steps / config.snapshots) for i in range(config.snapshots + 1)})


def train_network(config: Config, folder: RunFolder, watch: Watch) -> Rows:
    """Train to the end, from the newest good checkpoint if there is one; give the rows of all steps.

    Raises Interrupted (saved, resumable) and NonFiniteLoss (naming the last good checkpoint).
    """
    state, rows, saved = _begin(config, folder, watch)
    describe_model(folder, architecture(config), tokenizer())
    recorder = Recorder(config, folder, rows, saved)
    try:
        with interruptible() as request:
            if state.step < config.steps:
                recorder.look(state)
            for now, loss in train(state, make_objective(config), make_optimiser(config), steps=config.steps):
                recorder.rows["loss_nats"][-1] = loss.item()
                recorder.look(now)
                watch(recorder.progress(now))
                if request.asked and now.step < config.steps:
                    recorder.save(now)
                    raise Interrupted(f"Stopped by request at step {now.step} of {config.steps}; all is saved.")
    except NonFiniteLoss as error:
        good = (
            f"The last good checkpoint is that of step {recorder.saved}" if recorder.saved else "No checkpoint is yet"
        )
        raise NonFiniteLoss(f"{error} {good} in {folder.path}. Lower lr.") from error
    return recorder.rows


def _begin(config: Config, folder: RunFolder, watch: Watch) -> tuple[State, Rows, int]:
    checkpoint = folder.load_checkpoint()
    for note in folder.notes:
        watch(Note(note, "warning"))
    if checkpoint is None:
        layout = Layout(architecture(config).weight_shapes())
        return fresh_state(layout.pack([fresh_weights(config)])), {name: [] for name in COLUMNS}, 0
    watch(Note(f"Goes on from the checkpoint of step {checkpoint.step}."))
    tensors = {name: tensor.to(config.device) for name, tensor in checkpoint.tensors.items()}
    rows = {name: [math.nan if x is None else float(x) for x in checkpoint.rows[name]] for name in COLUMNS}
    rows["step"] = [int(step) for step in rows["step"]]
    return State(checkpoint.step, **tensors), rows, checkpoint.step


class Recorder:
    """What is written down between steps."""

    def __init__(self, config: Config, folder: RunFolder, rows: Rows, saved: int) -> None:
        self.config, self.folder, self.rows, self.saved = config, folder, rows, saved
        self._committed = len(rows["step"])
        self._snapshots = frozenset(snapshot_steps(config))
        self._layout = Layout(architecture(config).weight_shapes())
        self._measured: dict[str, float] = {}

    def look(self, state: State) -> None:
        """Open the row of this step; measure, snapshot and checkpoint where they fall due."""
        step, end = state.step, state.step == self.config.steps
        row = dict.fromkeys(COLUMNS, math.nan) | {"step": step}
        if step % self.config.eval_every == 0 or end:
            row |= self._measure(state)
        for name in COLUMNS:
            self.rows[name].append(row[name])
        if step in self._snapshots:
            self.folder.save_snapshot(step, self._layout.member(state.weights, 0))
        if step % self.config.checkpoint_every == 0 or end:
            self.save(state)

    def _measure(self, state: State) -> dict[str, float]:
        model = as_model(self.config, self._layout.member(state.weights, 0))
        found = perform(model, n=self.config.prompts, generator=generator(self.config.seed))
        self._measured = {behaviour: each.accuracy for behaviour, each in found.items()}
        return {f"{behaviour}_{name}": getattr(each, name) for behaviour, each in found.items() for name in MEASURED}

    def save(self, state: State) -> None:
        """Commit the state and the rows since the last commit; the newest row, unless the last, waits for its loss."""
        if state.step == self.saved:
            return
        stop = len(self.rows["step"]) - (state.step < self.config.steps)
        since = {name: self.rows[name][self._committed : stop] for name in COLUMNS}
        self.folder.save_checkpoint(state.step, state.tensors(), {}, since)
        self._committed, self.saved = stop, state.step

    def progress(self, state: State) -> Progress:
        known = {"loss": self.rows["loss_nats"][-2], **self._measured}
        return Progress("train", state.step, self.config.steps, "step", known)
