"""Train one network on the grammar: the objective, and what is stored of it for the analysis.

A row a step (`core.train_loop`): the loss on the batch of that step, in nats a word, which the last row lacks; and
every `eval_every` steps how the behaviours do on held-out prompts.
"""

from pathlib import Path

from micrographia.core.config import flat
from micrographia.core.events import Watch
from micrographia.core.lab import Findings, run_lab
from micrographia.core.runtime import generator
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.next_token import NextToken, Text
from micrographia.core.small.trained import describe_model
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import RunFolder
from micrographia.core.train_loop import Record, Rows, train_recorded
from micrographia.core.training import AdamW, Flat, Layout, State
from micrographia.labs.ioi.config import Config, preset_of
from micrographia.labs.ioi.grammar import WORDS, batch, tokenizer
from micrographia.labs.ioi.performance import perform
from micrographia.labs.ioi.task import BEHAVIOURS

LAB = "ioi"
MEASURED = ("accuracy", "preferred", "logit_difference")


def train(config: Config, out: str) -> str:
    """Train the one network of this config to the end in a Run of its own, or go on with it; the path of that Run."""
    run_lab(config, _train, lab=LAB, preset=preset_of(config), out=Path(out), resume=True)
    return out


def _train(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    rows = train_network(config, folder, watch)
    return Findings({name: column[-1] for name, column in rows.items()}, [], metrics=rows)


def architecture(config: Config) -> Architecture:
    """The transformer that the config asks for, over the words of the grammar."""
    return Architecture(d_vocab=len(WORDS), d_vocab_out=len(WORDS), n_ctx=config.n_ctx, **flat(config.network))


def snapshot_steps(config: Config) -> list[int]:
    """0, the last step, and `snapshots` - 1 between, evenly."""
    n = config.schedule.snapshots
    return sorted({round(i * config.steps / n) for i in range(n + 1)})


def train_network(config: Config, folder: RunFolder, watch: Watch) -> Rows:
    """Train to the end, from the newest good checkpoint if there is one; give the rows of all steps.

    Raises Interrupted (saved, resumable) and NonFiniteLoss (naming the last good checkpoint).
    """
    arch, device = architecture(config), config.machine.device
    layout = Layout(arch.weight_shapes())
    describe_model(folder, arch, tokenizer())

    def fresh() -> Flat:
        return layout.pack([{name: w.to(device) for name, w in init_weights(arch, generator(config.seed)).items()}])

    def contexts(step: int) -> Text:
        return batch(config.seed, step, rows=config.rows, n_ctx=config.n_ctx)

    def measure(state: State) -> dict[str, float]:
        model = Transformer(arch, layout.member(state.weights, 0), tokenizer())
        found = perform(model, n=config.prompts, generator=generator(config.seed))
        return {f"{behaviour}_{name}": getattr(each, name) for behaviour, each in found.items() for name in MEASURED}

    record = Record(
        steps=config.steps,
        loss="loss_nats",
        measured=tuple(f"{behaviour}_{name}" for behaviour in BEHAVIOURS for name in MEASURED),
        measure=measure,
        measure_every=config.schedule.eval_every,
        checkpoint_every=config.schedule.checkpoint_every,
        snapshots=snapshot_steps(config),
        shown={"loss": "loss_nats", **{behaviour: f"{behaviour}_accuracy" for behaviour in BEHAVIOURS}},
    )
    objective, optimiser = NextToken(arch, [contexts], plan=config.plan), AdamW(**flat(config.optim))
    return train_recorded(
        record, folder, arch=arch, fresh=fresh, objective=objective, optimiser=optimiser, device=device, watch=watch
    )
