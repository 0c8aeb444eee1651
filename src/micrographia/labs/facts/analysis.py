"""One network analysed: the measures of its arm, as plain numbers and arrays, in a process of its own."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from micrographia.core.model import Model
from micrographia.core.runtime import generator, settings
from micrographia.core.small.trained import load_trained
from micrographia.core.untrained import untrained
from micrographia.labs.facts.config import Config
from micrographia.labs.facts.localise import boards
from micrographia.labs.facts.networks import CAPACITY, EFFECTIVE, FIXED, FROZEN, RULE, SINGLE, TRANSFORMER, arm_of
from micrographia.labs.facts.readable import read_values
from micrographia.labs.facts.task import FactWorld, world_of
from micrographia.labs.facts.train import recalled, told
from micrographia.methods.lookup.facts import Facts

Found = dict[str, Any]


def analyse(config: Config, out: str) -> Found:
    """The network trained in this folder. The longest is the effective model, whose every neuron is ablated."""
    with settings(1, config.machine.device):
        model, world = load_trained(Path(out)), world_of(config)
        known = told(config, world, world.entities)
        arm = arm_of(Path(out).name)
        found: Found = {"seed": config.seed, "arm": arm, **recalled(model, known)._asdict()}
        return found | ANALYSES[arm](config, model, world, known)


def _transformer(config: Config, model: Model, world: FactWorld, known: Facts) -> Found:
    return _told(config, model, world, known)


def _told(config: Config, model: Model, world: FactWorld, known: Facts) -> Found:
    """Where the value goes, and where it can be read before the relation is seen."""
    draw = generator(config.seed)
    return {
        "boards": boards(model, known, config.pairs, draw),
        "readable": read_values(model, known, config.splits, draw),
        "readable_untrained": read_values(untrained(model, config.seed), known, config.splits, draw),
    }


def _effective(config: Config, model: Model, world: FactWorld, known: Facts) -> Found:
    return {}


def _rule(config: Config, model: Model, world: FactWorld, known: Facts) -> Found:
    """What the rule says of names that were never met, read off the model by a probe of those that were."""
    strangers = told(config, world, world.strangers)
    follows = world.ruled[:, world.entities[:, 0], world.entities[:, 1]]
    right = [logits.argmax(-1) == own.answer for own, logits in zip(known.relations, answered(model, known))]
    exceptions = torch.cat([own[~ruled] for own, ruled in zip(right, follows)])
    return {
        "rule_p": config.world.rule_p,
        "unknown": rule_read(model, known, strangers),
        "unknown_answers": recalled(model, strangers).accuracy,
        "exceptions": float(exceptions.double().mean()),
        "chance": float(torch.tensor([1 / n for n in world.sizes]).mean()),
    }


def _nothing(config: Config, model: Model, world: FactWorld, known: Facts) -> Found:
    return {}


def _capacity(config: Config, model: Model, world: FactWorld, known: Facts) -> Found:
    """Bits of all facts that the answers hold; per trained parameter, with and without embeddings."""
    bits = stored_bits(known, answered(model, known))
    weights = {name: shape for name, shape in load_arch(model).items()}
    return {"bits": bits}


Analysis = Callable[[Config, Model, FactWorld, Facts], Found]
ANALYSES: dict[str, Analysis] = {
    TRANSFORMER: _transformer,
    FIXED: _told,
    SINGLE: _told,
    EFFECTIVE: _effective,
    FROZEN: _nothing,
    RULE: _rule,
    CAPACITY: _capacity,
}
