"""The networks of a Run: the transformer, the study's effective model, and the controls of both.

Each differs from the Run's own choices by what its arm says, and is trained in a folder of its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from micrographia.core.config import with_fields
from micrographia.labs.facts.config import Config

TRANSFORMER, FIXED, SINGLE = "transformer", "fixed", "single"
EFFECTIVE, FROZEN, RULE, CAPACITY = "effective", "frozen", "rule", "capacity"
ARMS = (TRANSFORMER, FIXED, SINGLE, EFFECTIVE, FROZEN, RULE, CAPACITY)
SMALL = {"kind": EFFECTIVE, "mlps": 2}
"""A model whose capacity is measured."""


def networks(config: Config) -> dict[str, Config]:
    """The config of every network by its name, such as `fixed-seed1` or `rule-0.3-seed1`; long ones first."""
    seeds = range(config.seed, config.seed + config.seeds)
    return {
        f"{name}-seed{seed}": with_fields(config, seed=seed, seeds=1, threads=1, **changes)
        for name, changes in _arms(config)
        for seed in seeds
    }


def _arms(config: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """By name, what is changed: controls of the order in which facts are told, of embeddings, of rules, of capacity."""
    yield TRANSFORMER, {"together": True, "order": "random"}
    yield FIXED, {"together": True, "order": "fixed"}
    yield SINGLE, {"together": False, "rows": config.rows * config.n_relations}  # as many facts a step
    yield EFFECTIVE, {"kind": EFFECTIVE}
    yield FROZEN, {"kind": EFFECTIVE, "frozen": True}
    for p in config.rules:
        yield f"{RULE}-{p}", {"kind": EFFECTIVE, "rule_p": p}
    for width in config.widths:
        for n in config.exposures:
            sizes = {"d_model": width, "d_mlp": 4 * width, "epochs": n, "eval_every": n}
            yield f"{CAPACITY}-{width}-{n}", {**SMALL, **sizes}


def arm_of(name: str) -> str:
    """The arm of a network of this name.

    >>> arm_of("rule-0.3-seed1")
    'rule'
    """
    return name.partition("-")[0]
