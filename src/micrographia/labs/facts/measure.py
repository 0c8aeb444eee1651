"""The figure of each claim beside its null, in each network of a seed, in the order in which the studies ask.

Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), posts 2 to 4; Zucchet et al. 2025 and Nichani, Lee and
Bietti 2025 on training; Allen-Zhu and Li, "Physics of language models", 3.1 and 3.3, on order and capacity.
Figures of several relations are their mean; over seeds, the median. Axes: relation stage pos.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from micrographia.core.claims import Measured, over_networks
from micrographia.labs.facts.localise import ASKED, FIRST, LAST
from micrographia.labs.facts.networks import CAPACITY, EFFECTIVE, FIXED, FROZEN, RULE, SINGLE, TRANSFORMER
from micrographia.labs.facts.quantities import Curve, above_floor, best, halfway, plateau, shuffled

CLAIMS = Path(__file__).with_name("claims.toml")
Found = Mapping[str, Any]


class SeedFound(NamedTuple):
    """What was found of one seed: a network an arm, but for rules and capacity; curves of the two whose training is
    followed."""

    arms: Mapping[str, Sequence[Found]]
    curves: Mapping[str, Curve]

    def one(self, arm: str) -> Found:
        return self.arms[arm][0]


def measures_of(seeds: Sequence[SeedFound]) -> dict[str, Measured]:
    """The median over seeds, with the least and the greatest."""
    return over_networks([measures(each) for each in seeds])


def measures(found: SeedFound) -> dict[str, Measured]:
    """Each claim's figure with its null, of one seed."""
    of_transformer = {**_recalled(found), **_localised(found), **_read(found), **_replaced(found)}
    return {**of_transformer, **_stack(found), **_controls(found), **_capacity(found), **_trained(found)}


def _recalled(found: SeedFound) -> dict[str, Measured]:
    own = found.one(TRANSFORMER)
    return {
        "facts-learned": Measured(own["accuracy"], own["unknown"]["accuracy"]),
        "unknown-answered-for-sure": Measured(own["unknown"]["sure"], own["unknown_untrained"]["sure"]),
    }


def _localised(found: SeedFound) -> dict[str, Measured]:
    """Shares of the answer that noising a place destroys, after the first layer and before the last."""
    own = found.one(TRANSFORMER)["boards"]
    stream, same = own["stream"].mean(0), own["same value"].mean(0)
    early, late = 1, len(stream) - 2
    return {
        "last-name-in-the-middle": Measured(
            float(stream[early, LAST] - stream[early, FIRST]), float(stream[0, LAST] - stream[0, FIRST])
        ),
        "name-before-relation": Measured(
            float(stream[early, LAST] - stream[early, ASKED]), float(same[early, LAST] - same[early, ASKED])
        ),
        "relation-late": Measured(float(stream[late, ASKED] - stream[late, LAST]), float(same[late, ASKED])),
    }


def _read(found: SeedFound) -> dict[str, Measured]:
    own, fixed, single = (found.one(arm)["probes"] for arm in (TRANSFORMER, FIXED, SINGLE))
    return {
        "value-before-relation": Measured(above_floor(own), best(own) - above_floor(own), raw=best(own)),
        "shuffled-values-unread": Measured(best(own) - shuffled(own), shuffled(own), raw=best(own)),
        "any-order-at-the-name": Measured(above_floor(own) - above_floor(fixed), above_floor(fixed)),
        "together-at-the-name": Measured(above_floor(own) - above_floor(single), above_floor(single)),
    }


def _replaced(found: SeedFound) -> dict[str, Measured]:
    """Accuracy when the stream at the last name, after the first layer, is what a table says of the name."""
    own = found.one(TRANSFORMER)
    rows = {name: accuracy for name, (_, accuracy) in own["tables"][0]["rows"].items()}
    return {
        "table-for-the-name": Measured(rows["table"] / rows["clean"], rows["shuffled"] / rows["clean"]),
        "attributes-are-enough": Measured(rows["projected"] - rows["random"], rows["random"] - rows["mean"]),
        "context-matters-little": Measured(own["accuracy"] - min(own["in_context"]), rows["clean"] - rows["shuffled"]),
    }


def _stack(found: SeedFound) -> dict[str, Measured]:
    """Fact Finding, post 3, on the effective model."""
    own = found.one(EFFECTIVE)
    lost = own["clean_accuracy"] - own["paths_accuracy"]
    fraction, null = (float(np.mean(own[name]["mlp_out"])) for name in ("interaction", "interaction_null"))
    half = own["kept_accuracy"][own["kept"].index(0.5)]
    return {
        "paths-between-mlps": Measured(float(np.nanmax(lost)), float(np.nanmin(lost))),
        "single-neurons-make-little": Measured(own["by_single_neurons"], own["by_single_neurons_null"]),
        "facts-share-no-neurons": Measured(own["shared"] - own["shared_null"], own["shared_null"]),
        "readable-halfway": Measured(halfway(own["probes"]), 0.0),
        "known-names-write-more": Measured(own["norm_area"][1], own["norm_area_null"][1]),
        "pairs-beyond-parts": Measured(fraction - null, null, raw=fraction),
        "best-neuron": Measured(own["best_neuron"], own["best_neuron_null"]),
        "neurons-before-rotations": Measured(own["participation"] / own["participation_null"], 1.0),
        "entity-cells": Measured(own["cells"], own["cells_null"]),
        "half-the-neurons-suffice": Measured(half, own["kept_accuracy"][0]),
        "votes-err-apart": Measured(own["votes_correlation"], 0.0),
    }


def _controls(found: SeedFound) -> dict[str, Measured]:
    """Frozen embeddings; and what rules make of unknown names."""
    rules = sorted(found.arms[RULE], key=lambda each: each["rule_p"])
    none, most = found.one(EFFECTIVE), rules[-1]
    return {
        "frozen-embeddings-suffice": Measured(found.one(FROZEN)["accuracy"], none["accuracy"]),
        "memory-says-nothing-of-others": Measured(none["unknown_read"] - none["chance"], none["chance"]),
        "rule-says-it-of-others": Measured(most["unknown_read"] - none["unknown_read"], none["unknown_read"]),
        "exceptions-remembered": Measured(most["exceptions"], most["chance"]),
    }


def _capacity(found: SeedFound) -> dict[str, Measured]:
    """Bits a parameter of the model that holds most; null: a parameter's share of all facts there, which bounds it."""
    each = found.arms[CAPACITY]
    exposures = sorted({row["exposures"] for row in each})
    most = {
        n: max((bits_each(row), row["of"] / row["parameters"]) for row in each if row["exposures"] == n)
        for n in exposures
    }
    return {
        "two-bits-a-parameter": Measured(*most[exposures[-1]]),
        "one-bit-at-100-exposures": Measured(*most[exposures[0]]),
    }


def bits_each(row: Found) -> float:
    return row["bits"] / row["parameters"]


def _trained(found: SeedFound) -> dict[str, Measured]:
    own, null = (found.curves[arm] for arm in (TRANSFORMER, EFFECTIVE))
    base = found.one(TRANSFORMER)["base_nats"]
    return {"relation-only-plateau": Measured(plateau(own, base), plateau(null, base))}
