"""The battery of `methods/lookup` on a model of 2,048 entities, beside a loop that ablates one neuron a pass.

The model is E of lab `facts` (names summed, then residual MLPs) with the weights that a short training leaves; its
facts are two relations of 3 and 16 answers. The loop is what one would write first: for every neuron a forward pass of
every fact, each a prompt, with that neuron at its mean. A second loop knows that this model answers both relations of a
subject in one prompt. They do the ablations alone; the battery does them and everything else. Ours are held to the
numbers of a loop before anything is timed. A unit is one neuron.

Usage: uv run python benchmarks/lookup.py
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from paired import Contender, Match
from recording import Record, arguments, parse
from torch import Tensor

from micrographia.core.edits import Edit, mean
from micrographia.core.runtime import generator, settings
from micrographia.core.shuffled import shuffled_mlps
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.ensemble import init_ensemble
from micrographia.core.small.several_answers import SeveralAnswers
from micrographia.core.small.transformer import Transformer
from micrographia.core.training import AdamW, Layout, fresh_state, train
from micrographia.methods.lookup.bagging import bagging, votes
from micrographia.methods.lookup.best_neuron import best_neurons
from micrographia.methods.lookup.capacity import bits_stored
from micrographia.methods.lookup.cells import entity_cells
from micrographia.methods.lookup.embedding import embedding_probes, probe_directions
from micrographia.methods.lookup.facts import Facts, Relation, at_subjects, facts_of, outcome
from micrographia.methods.lookup.grid import and_fraction, interaction_fractions
from micrographia.methods.lookup.mlp_paths import mlp_paths
from micrographia.methods.lookup.neurons import neuron_effects, random_rotations
from micrographia.methods.lookup.norms import norm_gaps
from micrographia.methods.lookup.replace import replaced, table_of
from micrographia.methods.lookup.sharing import shared_neurons
from micrographia.methods.lookup.spread import over_facts, over_neurons

TARGET = 20.0
ANSWERS = [3, 16]
TURNED = 256
"""Subjects on which the rotated hidden layers are ablated: a mean over as many is known well."""
AGREE = 1e-5


class Problem(NamedTuple):
    """A model, the facts that it was trained on, and every pair of names with an answer that only the former know."""

    model: Transformer
    facts: Facts
    grid: Facts
    known: Tensor


def problem(smoke: bool) -> Problem:
    names, entities, steps, layers = (8, 32, 5, 2) if smoke else (64, 2048, 400, 5)
    arch = Architecture(
        d_vocab=2 * names + 1,
        d_vocab_out=sum(ANSWERS),
        n_ctx=3,
        n_layers=layers,
        d_model=64,
        d_mlp=256,
        act="gelu",
        norm="none",
        attention=False,
        joined="summed",
    )
    drawn = generator(0)
    parts = torch.cartesian_prod(torch.arange(names), torch.arange(names))
    tokens = torch.stack([parts[:, 0], names + parts[:, 1], torch.full((len(parts),), 2 * names)], 1)
    answers = [torch.randint(0, size, (len(parts),), generator=drawn) for size in ANSWERS]
    starts = [0, ANSWERS[0]]
    relations = [
        Relation(
            f"relation {k}", tokens, torch.zeros(len(parts), dtype=torch.int64), start + torch.arange(size), answer
        )
        for k, (start, size, answer) in enumerate(zip(starts, ANSWERS, answers))
    ]
    grid = facts_of(parts, relations)
    rows = torch.randperm(len(parts), generator=drawn)[:entities]
    facts = grid.rows(rows)
    known = torch.zeros(len(parts), dtype=torch.bool)
    known[rows] = True
    return Problem(trained(arch, facts, steps), facts, grid, known)


def trained(arch: Architecture, facts: Facts, steps: int) -> Transformer:
    labels = torch.stack([each.answer for each in facts.relations], 1)
    objective = SeveralAnswers(arch, facts.first.inputs[None], labels[None], ANSWERS)
    state = fresh_state(init_ensemble(arch, [generator(1)]))
    for now, _ in train(state, objective, AdamW(lr=2e-3, weight_decay=0.0, end=steps), steps=steps):
        state = now
    return Transformer(arch, Layout(arch.weight_shapes()).member(state.weights, 0))


def loop(given: Problem, *, a_prompt_each: bool) -> Callable[[int], object]:
    """The first n neurons, each by its own forward pass of all facts, or of all subjects."""
    model, facts = given.model, given.facts
    hidden = at_subjects(model, facts, "L*.neurons")
    neurons = [(layer, unit) for layer in range(model.shape.n_layers) for unit in range(model.shape.d_mlp)]
    prompts = [each.inputs for each in facts.relations]
    tokens = torch.cat(prompts) if a_prompt_each else prompts[0]
    rows = [slice(k * facts.n, (k + 1) * facts.n) if a_prompt_each else slice(None) for k in range(len(prompts))]

    def nats(edits: list[Edit]) -> Tensor:
        logits = model.run(tokens, edits=edits).logits[:, -1]
        own = [logits[at][:, each.options].log_softmax(-1) for at, each in zip(rows, facts.relations)]
        return torch.stack([x.gather(-1, each.answer[:, None])[:, 0] for x, each in zip(own, facts.relations)])

    def run(n: int) -> object:
        clean = nats([])
        sites = [(Site("neurons", layer), unit) for layer, unit in neurons[:n]]
        return torch.stack([nats([mean(site, hidden[site][:, None], unit=unit)]) - clean for site, unit in sites], 1)

    return run


def effects(given: Problem) -> Callable[[int], object]:
    return lambda n: neuron_effects(given.model, given.facts)


def battery(given: Problem) -> Callable[[int], object]:
    return lambda n: everything(given)


def everything(given: Problem) -> tuple[object, ...]:
    """Each measure of the room once, with its null, on all layers."""
    model, facts, drawn = given.model, given.facts, generator(2)
    layers, width = range(model.shape.n_layers), model.shape.d_mlp
    null, few = shuffled_mlps(model, drawn), facts.rows(torch.arange(min(TURNED, facts.n)))
    found = neuron_effects(model, facts)
    turned = neuron_effects(model, few, reference=facts, rotations=random_rotations(len(layers), width, drawn))
    directions = model.weights.W_U[:, facts.first.options].T
    last = Site("resid_post", layers[-1])
    return (
        *(f(each) for f in (over_neurons, over_facts, entity_cells) for each in (found, turned)),
        shared_neurons(found, drawn),
        *(interaction_fractions(each, given.grid, "L*.*") for each in (model, null)),
        *(and_fraction(each, given.grid, directions, layers=list(layers)) for each in (model, null)),
        mlp_paths(model, facts),
        best_neurons(model, facts, drawn),
        embedding_probes(model, facts, drawn, untrained=null),
        replaced(model, facts, last, table_of(model, [facts], last), probe_directions(model, facts, last), drawn),
        bagging(model, facts, drawn),
        votes(model, facts, drawn),
        norm_gaps(model, given.grid, given.known, drawn),
        bits_stored(model, facts),
    )


def furthest(given: Problem, per_layer: int) -> float:
    """The largest difference from the loop, of effects above a nat relative, over the first neurons of every layer."""
    model, facts, worst = given.model, given.facts, 0.0
    ours = neuron_effects(model, facts)
    hidden, clean = at_subjects(model, facts, "L*.neurons"), outcome(model, facts).nats
    for layer in range(model.shape.n_layers):
        for unit in range(per_layer):
            edit = mean(f"L{layer}.neurons", hidden[Site("neurons", layer)][:, None], unit=unit)
            plain = outcome(model, facts, lambda relation, edit=edit: [edit]).nats - clean
            apart = (plain - ours.change[:, layer, unit]).abs() / plain.abs().clamp(min=1)
            worst = max(worst, float(apart.max()))
    return worst


def measure(chosen: Any, record: Record) -> None:
    given = problem(chosen.smoke)
    neurons = given.model.shape.n_layers * given.model.shape.d_mlp
    worst = furthest(given, 2 if chosen.smoke else 16)
    if worst > AGREE:
        raise SystemExit(f"The ablations differ from the loop's by {worst}, where {AGREE} is allowed.")
    all_of_it = Contender("the whole battery", battery(given), whole=neurons)
    ablations = Contender("its ablations", effects(given), whole=neurons)
    theirs = Contender("a pass of every fact a neuron", loop(given, a_prompt_each=True))
    sharper = Contender("a pass of every subject a neuron", loop(given, a_prompt_each=False))
    accuracy = outcome(given.model, given.facts).accuracy.tolist()
    record.put(entities=given.facts.n, neurons=neurons, answers=ANSWERS, accuracy=accuracy, furthest=worst)
    matches = [Match(all_of_it, theirs, "neuron", TARGET)]
    matches += [Match(ablations, each, "neuron") for each in (theirs, sharper)]
    record.compare(matches)
    record.finish()


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=7)
    chosen = parse(parser)
    with settings(chosen.threads):
        measure(chosen, Record("lookup", chosen))


if __name__ == "__main__":
    main()
