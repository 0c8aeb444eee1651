"""Train one network on the facts of its world, in a Run of its own that every command takes as a model.

A row a step (`core.train_loop`): the loss before the step, in nats a fact; every `eval_every` steps how known and
unknown names are answered. The transformer sees batches of sequences, a pure function of seed and step; the effective
model sees every fact at each step, so that its steps count exposures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.config import flat, with_fields
from micrographia.core.events import Watch
from micrographia.core.lab import Findings, run_lab
from micrographia.core.model import Model
from micrographia.core.runtime import generator
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.next_token import NextToken
from micrographia.core.small.several_answers import SeveralAnswers
from micrographia.core.small.trained import describe_model
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import RunFolder
from micrographia.core.train_loop import Record, train_recorded
from micrographia.core.training import AdamW, Flat, Layout, LossAndGradient, Objective, State
from micrographia.labs.facts.config import Config, preset_of
from micrographia.labs.facts.task import Facts, batch, facts_of

LAB = "facts"
LOOKED_AT = 512
"""Known and unknown pairs of the measures along training."""
SURE = 0.5
"""The probability from which an answer is given for sure: the threshold of the study's known athletes."""


class Asked(NamedTuple):
    """What a model is asked of some pairs: the same tokens for every relation, or others."""

    tokens: tuple[Int[Tensor, "entity pos"], ...]
    options: tuple[Int[Tensor, "value"], ...]
    """The outputs that are a relation's values."""
    values: Int[Tensor, "relation entity"]
    """Counted among them."""

    def logits(self, model: Model) -> list[Float[Tensor, "entity value"]]:
        """Of each relation's values, at the last position."""
        runs = (model.run(tokens, logits="last").logits[:, -1] for tokens in self.tokens)
        return [logits[:, own] for logits, own in zip(runs, self.options)]


class Answered(NamedTuple):
    """How a model answers, the mean over relations."""

    nats: float
    """Cross-entropy among the relation's values."""
    accuracy: float
    sure: float
    """How often a value has more than half of the probability."""


def architecture(config: Config, facts: Facts) -> Architecture:
    """The transformer over the words of the world, or the effective model over its names."""
    if config.kind == "transformer":
        n = facts.starts["end"]
        return Architecture(d_vocab=n, d_vocab_out=n, n_ctx=config.n_ctx, **flat(config.network))
    blocks = flat(with_fields(config.network, n_layers=config.mlps)) | {"attention": False, "joined": "summed"}
    return Architecture(d_vocab=sum(facts.known.shape) + 1, d_vocab_out=sum(facts.sizes), n_ctx=3, **blocks)


def asked(config: Config, facts: Facts, who: Int[Tensor, "entity part"]) -> Asked:
    """The questions about these pairs as this kind of network reads them."""
    values, n = facts.true_values(who), len(facts.sizes)
    if config.kind == "transformer":
        tokens = tuple(facts.questions(who, k) for k in range(n))
        return Asked(tokens, tuple(facts.options(k) for k in range(n)), values)
    first, last = facts.known.shape
    names = torch.cat([who + torch.tensor([0, first]), torch.full((len(who), 1), first + last)], 1)
    return Asked((names,) * n, torch.arange(sum(facts.sizes)).split(facts.sizes), values)


def answered(model: Model, questions: Asked) -> Answered:
    """A forward pass of every question."""
    found = [each.double().log_softmax(-1) for each in questions.logits(model)]
    own = [each.gather(-1, of[:, None])[:, 0] for each, of in zip(found, questions.values)]
    right = [each.argmax(-1) == of for each, of in zip(found, questions.values)]
    sure = [each.amax(-1).exp() > SURE for each in found]
    return Answered(-_mean(own), _mean(right), _mean(sure))


def _mean(each: Sequence[Tensor]) -> float:
    return float(torch.stack([x.double().mean() for x in each]).mean())


def train(config: Config, out: str) -> str:
    """Train the network of this config to the end in the Run `out`, or go on with it; the path of that Run.

    Raises Interrupted (saved, resumable), NonFiniteLoss, CannotWrite.
    """
    run_lab(config, _train, lab=LAB, preset=preset_of(config), out=Path(out), resume=True)
    return out


def n_steps(config: Config) -> int:
    return config.steps if config.kind == "transformer" else config.epochs


def snapshot_steps(config: Config) -> list[int]:
    """The start, the end, and evenly between."""
    n, steps = config.schedule.snapshots, n_steps(config)
    return sorted({round(i * steps / n) for i in range(n + 1)})


def _train(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    facts, device, steps = facts_of(config), config.machine.device, n_steps(config)
    arch = architecture(config, facts)
    layout = Layout(arch.weight_shapes())
    describe_model(folder, arch, facts.vocabulary if config.kind == "transformer" else None)
    draw = generator(config.seed)
    groups = {"known": facts.entities, "unknown": facts.strangers}
    groups = {name: who[torch.randperm(len(who), generator=draw)[:LOOKED_AT]] for name, who in groups.items()}
    looked = {name: asked(config, facts, who) for name, who in groups.items()}

    def fresh() -> Flat:
        weights = init_weights(arch, generator(config.seed))
        return layout.pack([{name: w.to(device) for name, w in weights.items()}])

    def measure(state: State) -> dict[str, float]:
        model = Transformer(arch, {name: w.cpu() for name, w in layout.member(state.weights, 0).items()})
        found = {name: answered(model, questions)._asdict() for name, questions in looked.items()}
        return {f"{name}_{what}": x for name, each in found.items() for what, x in each.items()}

    record = Record(
        steps=steps,
        loss="loss_nats",
        measured=tuple(f"{name}_{what}" for name in looked for what in Answered._fields),
        measure=measure,
        measure_every=config.schedule.eval_every,
        checkpoint_every=config.schedule.checkpoint_every,
        snapshots=snapshot_steps(config),
        shown={"loss": "loss_nats", "known": "known_accuracy"},
    )
    rows = train_recorded(
        record, folder, arch=arch, fresh=fresh, objective=objective(config, facts, arch, device),
        optimiser=AdamW(**flat(config.optim), end=steps), device=device, watch=watch,
    )  # fmt: skip
    return Findings({name: column[-1] for name, column in rows.items()}, [], metrics=rows)


def objective(config: Config, facts: Facts, arch: Architecture, device: str) -> Objective:
    """Loss and gradient of the network; with `frozen`, none of its embedding."""
    if config.kind == "transformer":
        own: Objective = NextToken(arch, [lambda step: batch(config, facts, step)])
    else:
        questions = asked(config, facts, facts.entities)
        tokens, labels = questions.tokens[0][None].to(device), questions.values.T[None].to(device)
        own = SeveralAnswers(arch, tokens, labels, facts.sizes)
    if not config.frozen:
        return own
    layout = Layout(arch.weight_shapes())

    def without_embedding(weights: Flat, step: int) -> LossAndGradient:
        loss, gradient = own(weights, step)
        layout.views(gradient)["embed.W_E"].zero_()
        return LossAndGradient(loss, gradient)

    return without_embedding
