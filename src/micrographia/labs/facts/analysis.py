"""One network analysed: the measures of its arm, as plain numbers and arrays, in a process of its own."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from micrographia.core.runtime import generator, settings
from micrographia.core.small.trained import load_trained
from micrographia.core.small.transformer import Transformer
from micrographia.core.untrained import untrained
from micrographia.labs.facts.config import Config
from micrographia.labs.facts.localise import boards
from micrographia.labs.facts.networks import CAPACITY, EFFECTIVE, FIXED, FROZEN, RULE, SINGLE, TRANSFORMER, arm_of
from micrographia.labs.facts.readable import read_others, read_values
from micrographia.labs.facts.task import FactWorld, world_of
from micrographia.labs.facts.train import recalled, told, train
from micrographia.methods.lookup.facts import Facts, answered

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
    strangers = told(config, world, world.strangers)
    fresh = untrained(model, config.seed)
    return {
        **_told(config, model, world, known),
        "unknown": recalled(model, strangers)._asdict(),
        "unknown_untrained": recalled(fresh, strangers)._asdict(),
        "readable_untrained": read_values(fresh, known, config.splits, generator(config.seed)),
        "base_nats": float(torch.tensor([float(n) for n in world.sizes]).log().mean()),
    }


def _told(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    """Where the value goes, and where it can be read before the relation is seen."""
    draw = generator(config.seed)
    return {
        "boards": boards(model, known, config.pairs, draw),
        "readable": read_values(model, known, config.splits, draw),
    }


def _effective(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    return {
        "unknown_read": read_others(model, known, told(config, world, world.strangers)),
        "chance": _chance(world),
        "readable": read_values(model, known, config.splits, generator(config.seed)),
    }


def _rule(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    """What the rule says of names that were never met, read off the model by a probe of those that were."""
    strangers = told(config, world, world.strangers)
    follows = world.ruled[:, world.entities[:, 0], world.entities[:, 1]]
    right = [logits.argmax(-1) == own.answer for own, logits in zip(known.relations, answered(model, known))]
    exceptions = torch.cat([own[~ruled] for own, ruled in zip(right, follows)])
    return {
        "rule_p": config.world.rule_p,
        "unknown_read": read_others(model, known, strangers),
        "unknown_answers": recalled(model, strangers).accuracy,
        "exceptions": float(exceptions.double().mean()),
        "chance": _chance(world),
    }


def _chance(world: FactWorld) -> float:
    return float(torch.tensor([1 / n for n in world.sizes]).mean())


def _nothing(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    return {}


def _capacity(config: Config, model: Transformer, world: FactWorld, known: Facts) -> Found:
    """Bits of all facts that the answers hold; per trained parameter, with and without embeddings."""
    options = torch.tensor([float(n) for n in world.sizes]).log()
    learned = [
        nats + own.nats(each.double()) for nats, own, each in zip(options, known.relations, answered(model, known))
    ]
    bits = float(sum(each.sum() for each in learned)) / math.log(2)
    sizes = {name: weight.numel() for name, weight in model.state.items()}
    inner = sum(n for name, n in sizes.items() if not name.startswith("embed"))
    about = {"bits": bits, "of": world.bits, "parameters": sum(sizes.values()), "inner": inner}
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
