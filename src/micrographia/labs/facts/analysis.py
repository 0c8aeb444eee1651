"""One network analysed: the measures of its arm, as plain numbers and arrays, in a process of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from micrographia.core.runtime import generator, settings
from micrographia.core.sites import Site
from micrographia.core.small.trained import load_trained
from micrographia.core.small.transformer import Transformer
from micrographia.core.untrained import untrained
from micrographia.labs.facts.battery import at_the_name, by_table, of_stack
from micrographia.labs.facts.config import Config
from micrographia.labs.facts.localise import boards
from micrographia.labs.facts.networks import CAPACITY, EFFECTIVE, FIXED, FROZEN, RULE, SINGLE, TRANSFORMER, arm_of
from micrographia.labs.facts.task import FactWorld, world_of
from micrographia.labs.facts.train import recalled, told, train
from micrographia.methods.lookup.capacity import bits_stored
from micrographia.methods.lookup.facts import Facts, at_subjects, outcome
from micrographia.methods.lookup.ridge import fit_ridge

Found = dict[str, Any]


def study(config: Config, out: str) -> Found:
    """Train the network of this config in the folder `out`, or go on with it, then analyse it."""
    return analyse(config, train(config, out))


def analyse(config: Config, out: str) -> Found:
    """The network trained in this folder. The longest is the effective model, whose every neuron is ablated."""
    with settings(1, config.machine.device):
        model, world = load_trained(Path(out)), world_of(config)
        known = told(config, world, world.entities)
        arm = arm_of(Path(out).name)
        found: Found = {"seed": config.seed, "arm": arm, **recalled(model, known)._asdict()}
        return found | ANALYSES[arm](config, model, world, known)


def _transformer(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    strangers, draw = told(config, world, world.strangers), generator(config.seed)
    contexts = [known, *(told(config, world, world.entities, filler) for filler in _fillers(config, world))]
    return {
        **_told(config, model, world, known),
        "unknown": recalled(model, strangers)._asdict(),
        "unknown_untrained": recalled(untrained(model, config.seed), strangers)._asdict(),
        "base_nats": float(torch.tensor([float(n) for n in world.sizes]).log().mean()),
        "tables": [by_table(model, contexts, layer, draw) for layer in range(model.shape.n_layers)],
        "in_context": [recalled(model, each).accuracy for each in contexts],
    }


def _fillers(config: Config, world: FactWorld) -> list[Tensor]:
    """Two words of filler, as far as the model has met any before a name."""
    return [torch.full((1,), world.starts["filler"] + word) for word in range(2)] if config.filler else []


def _told(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    """Where the value goes, and where it can be read before the relation is seen."""
    draw = generator(config.seed)
    fresh = untrained(model, config.seed)
    assert isinstance(fresh, Transformer)
    probes = at_the_name(model, fresh, known, config.splits, draw)
    return {"boards": boards(model, known, config.pairs, draw), "probes": probes}


def _effective(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    every = told(config, world, torch.ones_like(world.known).nonzero())
    draw = generator(config.seed)
    return {
        **_told_at_once(config, model, known),
        **of_stack(model, known, every, world.known.flatten(), draw),
        **_others(config, model, world, known),
    }


def _told_at_once(config: Config, model: Transformer, known: Facts) -> Found:
    fresh = untrained(model, config.seed)
    assert isinstance(fresh, Transformer)
    return {"probes": at_the_name(model, fresh, known, config.splits, generator(config.seed))}


def _others(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    """What a probe of known names after the last layer reads of names that were never met; there the rule is right."""
    others, site = told(config, world, world.strangers), Site("resid_post", model.shape.n_layers - 1)
    x, new = (at_subjects(model, facts, [site])[site] for facts in (known, others))
    labels = torch.stack([each.answer for each in known.relations], 1)
    fitted = fit_ridge(x, labels, list(world.sizes))
    right = [
        ((new.double() @ own.weight + own.bias).argmax(-1) == each.answer).double().mean()
        for own, each in zip(fitted, others.relations)
    ]
    chance = float(torch.tensor([1 / n for n in world.sizes]).mean())
    return {"rule_p": config.world.rule_p, "unknown_read": float(torch.stack(right).mean()), "chance": chance}


def _rule(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    """The same with a rule, and how the facts are answered that do not follow it."""
    follows = world.ruled[:, world.entities[:, 0], world.entities[:, 1]]
    right = outcome(model, known).right
    return {**_others(config, model, world, known), "exceptions": float(right[~follows].double().mean())}


def _nothing(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    """How it answers is all that is asked."""
    return {}


def _capacity(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    """Bits of all facts that the answers hold."""
    found = bits_stored(model, known)
    about = {"bits": float(found.bits.sum()), "of": world.bits, "parameters": found.parameters, "inner": found.inner}
    return {**about, "width": config.network.d_model, "exposures": config.epochs}


Analysis = Callable[[Config, Transformer, FactWorld, Facts], Found]
ANALYSES: dict[str, Analysis] = {
    TRANSFORMER: _transformer,
    FIXED: _told,
    SINGLE: _told,
    EFFECTIVE: _effective,
    FROZEN: _nothing,
    RULE: _rule,
    CAPACITY: _capacity,
}
