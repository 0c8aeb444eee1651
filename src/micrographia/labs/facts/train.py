"""Train one network on the facts of its world, in a Run of its own that every command takes as a model.

A row a step (`core.train_loop`): the loss before the step, in nats a fact; every `eval_every` steps how known and
unknown names are answered. The transformer sees batches of sequences, a pure function of seed and step; the effective
model sees every fact at each step, so that its steps count exposures.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
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
from micrographia.core.tokens import ids_of
from micrographia.core.train_loop import Record, train_recorded
from micrographia.core.training import AdamW, Flat, Layout, LossAndGradient, Objective, State
from micrographia.labs.facts.config import Config, preset_of
from micrographia.labs.facts.task import FactWorld, batch, world_of
from micrographia.methods.lookup.facts import Facts, Relation, facts_of, outcome

LAB = "facts"
LAST_NAME = 2
"""Where a subject ends in `<bos> first last relation`."""
LOOKED_AT = 512
"""Known and unknown pairs of the measures along training."""
SURE = 0.5
"""The probability from which an answer is given for sure: the threshold of the study's known athletes."""


class Recalled(NamedTuple):
    """How a model answers, the mean over relations."""

    nats: float
    """Cross-entropy among the relation's values."""
    accuracy: float
    sure: float
    """How often a value has more than half of the probability."""


def architecture(config: Config, world: FactWorld) -> Architecture:
    """The transformer over the words of the world, or the effective model over its names."""
    if config.kind == "transformer":
        n = world.starts["end"]
        return Architecture(d_vocab=n, d_vocab_out=n, n_ctx=config.n_ctx, **flat(config.network))
    blocks = flat(with_fields(config.network, n_layers=config.mlps)) | {"attention": False, "joined": "summed"}
    return Architecture(d_vocab=sum(world.known.shape) + 1, d_vocab_out=sum(world.sizes), n_ctx=3, **blocks)


def told(
    config: Config, world: FactWorld, who: Int[Tensor, "entity part"], filler: Int[Tensor, "word"] | None = None
) -> Facts:
    """The questions about these pairs, as this kind of network reads them; of a transformer behind words of filler."""
    values = world.true_values(who)
    if config.kind == "transformer":
        before = torch.zeros(0, dtype=torch.long) if filler is None else filler
        at = torch.full((len(who),), LAST_NAME + len(before))
        relations = [
            Relation(f"relation{k}", world.questions(who, k, before), at, world.options(k), values[k])
            for k in range(config.n_relations)
        ]
        return facts_of(who, relations)
    first, last = world.known.shape
    names = torch.cat([who + torch.tensor([0, first]), torch.full((len(who), 1), first + last)], 1)
    blocks = torch.arange(sum(world.sizes)).split(world.sizes)
    at = torch.zeros(len(who), dtype=torch.long)
    return facts_of(who, [Relation(f"relation{k}", names, at, own, values[k]) for k, own in enumerate(blocks)])


def recalled(model: Model, facts: Facts) -> Recalled:
    """How a model answers; a forward pass of every question."""
    found = outcome(model, facts)
    sure = torch.stack([(each.double().softmax(-1).amax(-1) > SURE).double().mean() for each in found.logits])
    return Recalled(float(found.loss.mean()), float(found.accuracy.mean()), float(sure.mean()))


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
    world, device, steps = world_of(config), config.machine.device, n_steps(config)
    arch = architecture(config, world)
    layout = Layout(arch.weight_shapes())
    describe_model(folder, arch, world.vocabulary if config.kind == "transformer" else None)
    draw = generator(config.seed)
    groups = {"known": world.entities, "unknown": world.strangers}
    groups = {name: who[torch.randperm(len(who), generator=draw)[:LOOKED_AT]] for name, who in groups.items()}
    looked = {name: told(config, world, who) for name, who in groups.items()}

    def fresh() -> Flat:
        weights = init_weights(arch, generator(config.seed))
        return layout.pack([{name: w.to(device) for name, w in weights.items()}])

    def measure(state: State) -> dict[str, float]:
        model = Transformer(arch, {name: w.cpu() for name, w in layout.member(state.weights, 0).items()})
        found = {name: recalled(model, facts)._asdict() for name, facts in looked.items()}
        return {f"{name}_{what}": x for name, each in found.items() for what, x in each.items()}

    record = Record(
        steps=steps,
        loss="loss_nats",
        measured=tuple(f"{name}_{what}" for name in looked for what in Recalled._fields),
        measure=measure,
        measure_every=config.schedule.eval_every,
        checkpoint_every=config.schedule.checkpoint_every,
        snapshots=snapshot_steps(config),
        shown={"loss": "loss_nats", "known": "known_accuracy"},
    )
    rows = train_recorded(
        record, folder, arch=arch, fresh=fresh, objective=objective(config, world, arch, device),
        optimiser=AdamW(**flat(config.optim), end=steps), device=device, watch=watch,
    )  # fmt: skip
    return Findings({name: column[-1] for name, column in rows.items()}, [], metrics=rows)


def objective(config: Config, world: FactWorld, arch: Architecture, device: str) -> Objective:
    """Loss and gradient of the network; with `frozen`, none of its embedding."""
    if config.kind == "transformer":
        own: Objective = NextToken(arch, [lambda step: batch(config, world, step)])
    else:
        facts = told(config, world, world.entities)
        labels = torch.stack([each.answer for each in facts.relations], 1)
        own = SeveralAnswers(arch, ids_of(facts.first.inputs)[None].to(device), labels[None].to(device), world.sizes)
    if not config.frozen:
        return own
    layout = Layout(arch.weight_shapes())

    def without_embedding(weights: Flat, step: int) -> LossAndGradient:
        loss, gradient = own(weights, step)
        layout.views(gradient)["embed.W_E"].zero_()
        return LossAndGradient(loss, gradient)

    return without_embedding
