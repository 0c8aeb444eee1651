"""Train one network on the grammar: the objective, and what is written down of it for the analysis.

A row a step (`core.train_loop`): the loss on the batch of that step, in nats a word, which the last row lacks; and
every `eval_every` steps how the behaviours do on held-out prompts.
"""

from collections.abc import Mapping

from torch import Tensor

from micrographia.core.events import Watch
from micrographia.core.runtime import generator
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.next_token import NextToken, Text
from micrographia.core.small.trained import describe_model
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import RunFolder, read_tensors
from micrographia.core.train_loop import Record, Rows, train_recorded
from micrographia.core.training import AdamW, Layout, State
from micrographia.labs.ioi.behaviour import perform
from micrographia.labs.ioi.config import Config
from micrographia.labs.ioi.grammar import WORDS, batch, tokenizer
from micrographia.labs.ioi.templates import BEHAVIOURS

MEASURED = ("accuracy", "preferred", "logit_difference")
COLUMNS = tuple(f"{behaviour}_{name}" for behaviour in BEHAVIOURS for name in MEASURED)


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
    arch = architecture(config)
    layout = Layout(arch.weight_shapes())
    describe_model(folder, arch, tokenizer())

    def measure(state: State) -> dict[str, float]:
        model = as_model(config, layout.member(state.weights, 0))
        found = perform(model, n=config.prompts, generator=generator(config.seed))
        return {f"{behaviour}_{name}": getattr(each, name) for behaviour, each in found.items() for name in MEASURED}

    record = Record(
        steps=config.steps,
        loss="loss_nats",
        measured=COLUMNS,
        measure=measure,
        measure_every=config.eval_every,
        checkpoint_every=config.checkpoint_every,
        snapshots=snapshot_steps(config),
        shown={"loss": "loss_nats", **{behaviour: f"{behaviour}_accuracy" for behaviour in BEHAVIOURS}},
    )
    return train_recorded(
        record,
        folder,
        arch=arch,
        fresh=lambda: layout.pack([fresh_weights(config)]),
        objective=make_objective(config),
        optimiser=make_optimiser(config),
        device=config.device,
        watch=watch,
    )
