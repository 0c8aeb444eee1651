"""What the weights and activations of trained networks say: maps in both directions, neurons, and edits read backwards.

All of `methods.asymmetry` and `methods.rank_one`, on the taught facts of each arm, in blocks of one relation. Axes:
pair, input, output, neuron.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from micrographia.core.model import Model
from micrographia.core.runtime import batch_generator
from micrographia.core.small.transformer import Transformer
from micrographia.labs.reversal.arms import Learner
from micrographia.labs.reversal.config import Config
from micrographia.labs.reversal.lessons import questions
from micrographia.labs.reversal.task import DirectedFacts
from micrographia.methods.asymmetry import (
    Asymmetry,
    Matched,
    ablation_effects,
    asymmetry,
    cosines,
    gradient_map,
    logit_map,
    matched,
    ov_map,
    recognisers,
    writers,
)
from micrographia.methods.rank_one import Keys, keys_of, rewritten

SAMPLE = 5
"""The sample of a seed that nulls and edits are drawn from."""
Map = Callable[[Model, DirectedFacts, Learner], Tensor]
"""(network, facts, its learner) -> (fact, fact): how much each source speaks for each target."""


def _prompts(facts: DirectedFacts, one: Learner) -> Tensor:
    return questions(facts, one.spelt).tokens


def by_ov(model: Model, facts: DirectedFacts, one: Learner) -> Tensor:
    return ov_map(model, facts.source, facts.target)


def by_logits(model: Model, facts: DirectedFacts, one: Learner) -> Tensor:
    return logit_map(model, _prompts(facts, one), facts.target)


def by_gradient(model: Model, facts: DirectedFacts, one: Learner) -> Tensor:
    return gradient_map(model, _prompts(facts, one), facts.target)


MAPS: Mapping[str, Map] = {"W_OV": by_ov, "logits": by_logits, "gradient": by_gradient}


def blocks(facts: DirectedFacts) -> list[DirectedFacts]:
    """The facts of each relation, where there are two of them at least."""
    each = [facts.some(facts.relation == relation) for relation in facts.relation.unique().tolist()]
    return [some for some in each if len(some.source) > 1]


def index_of(name: str, model: Model, one: Learner, generator: Generator, draws: int) -> Asymmetry:
    """The asymmetry of the taught facts by one of the maps."""
    some = blocks(one.world.taught)
    ahead = [MAPS[name](model, facts, one) for facts in some]
    back = [MAPS[name](model, facts.inverse, one) for facts in some]
    return asymmetry(ahead, back, generator, draws=draws)


def recogniser_and_writer(model: Model, one: Learner, generator: Generator, draws: int) -> Matched:
    """Cosine between how an entity is recognised and how it is written, in the neurons of the last layer."""
    layer = model.shape.n_layers - 1
    tables = [
        cosines(
            recognisers(model, _prompts(facts, one), layer=layer),
            writers(model, facts.source, layer=layer),
        )
        for facts in blocks(one.world.taught)
    ]
    return matched(tables, generator, draws=draws)


def embedding_and_unembedding(model: Model, one: Learner, generator: Generator, draws: int) -> Matched:
    """Cosine between an entity's embedding and its unembedding: 1 where they are tied."""
    w, names = model.weights, one.spelt.names[:, 0]
    return matched([cosines(w.W_E[names], w.W_U[:, names].T)], generator, draws=draws)


def neuron_overlap(
    model: Model, one: Learner, ahead: DirectedFacts, back: DirectedFacts, generator: Generator, draws: int
) -> Matched:
    """Cosine of the effects of ablating each neuron of the last layer on a fact, and on its partner in `back`."""
    layer = model.shape.n_layers - 1

    def effects(facts: DirectedFacts) -> Tensor:
        return ablation_effects(model, _prompts(facts, one), facts.target, layer=layer)

    first, second = effects(ahead), effects(back)
    groups = [ahead.relation == relation for relation in ahead.relation.unique().tolist()]
    tables = [cosines(first[group], second[group]) for group in groups if int(group.sum()) > 1]
    return matched(tables, generator, draws=draws)


class Rewritten(NamedTuple):
    """Shares over edited facts A -> B', each edited alone."""

    forward: float
    """A gives B'."""
    backward: float
    """B' gives A."""
    untouched_backward: float
    """Before the edit."""
    old_backward: float
    """B, which A gave before, still gives A; the facts were taught in both directions."""
    nats: float
    """Mean change of the log-probability of A after B'."""
    nats_random: float
    """The same of a random other entity after B'."""
    others: float
    """Other facts, of those taught, that are answered as before."""


def rewrite(config: Config, model: Transformer, one: Learner) -> Rewritten:
    """Rewrite facts that were taught in both directions, one at a time, in the last layer's MLP, and ask both ways."""
    draw = batch_generator(one.seed, SAMPLE)
    shared, lessons = one.world.shared, one.world.lessons
    chosen = torch.randperm(len(shared.source), generator=draw)[: config.edits]
    layer = model.shape.n_layers - 1
    keys = keys_of(model, _prompts(lessons, one), layer=layer)
    before = _first(model, _prompts(lessons, one))
    rows = [_one_edit(model, one, int(i), keys, before, draw) for i in chosen]
    return Rewritten(*torch.tensor(rows, dtype=torch.float64).mean(0).tolist())


def _one_edit(model: Transformer, one: Learner, i: int, keys: Keys, before: Tensor, draw: Generator) -> list[float]:
    shared, lessons = one.world.shared, one.world.lessons
    fact = shared.some(torch.tensor([i]))
    alike = (shared.relation == fact.relation) & (shared.target != fact.target)
    new = shared.target[alike][torch.randint(int(alike.sum()), (1,), generator=draw)]
    other = torch.randint(one.world.entities, (1,), generator=draw)
    after = rewritten(model, _prompts(fact, one), int(new), keys)
    back, old = (_prompts(DirectedFacts(of, fact.relation ^ 1, of), one) for of in (new, fact.target))
    was, now = (each.run(back, logits="last").logits[0, -1].log_softmax(-1) for each in (model, after))
    kept = (_first(after, _prompts(lessons, one)) == before)[lessons.source != fact.source]
    source = int(fact.source)
    return [
        float(_first(after, _prompts(fact, one)) == new),
        float(now.argmax() == source),
        float(was.argmax() == source),
        float(_first(after, old) == source),
        float(now[source] - was[source]),
        float(now[int(other)] - was[int(other)]),
        float(kept.double().mean()),
    ]


def _first(model: Model, prompts: Tensor) -> Tensor:
    return model.run(prompts, logits="last").logits[:, -1].argmax(-1)
