"""The figure of each published claim beside its null: Nanda et al. (2023), in the paper's order.

A figure of None was not taken, as where the operation has no characters: its claim then fails at its preset, because
what was not measured was not reproduced. Published values are read from `claims.toml` alone.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from torch import Generator

from micrographia.core.claims import Claim, Measured, load_claims
from micrographia.labs.grokking.network import NetworkTensors
from micrographia.labs.grokking.quantities import Rows, quantities, used_frequencies, weights_to_attention
from micrographia.methods.fourier.ablations import NULL_SPACE, RANDOM_SPACE
from micrographia.methods.fourier.replacements import OTHER_POLYNOMIALS, POLYNOMIALS

CLAIMS = Path(__file__).with_name("claims.toml")


def measure(
    r: NetworkTensors,
    frequencies: Rows,
    *,
    phases: Mapping[str, Any],
    start: NetworkTensors | None = None,
    generator: Generator,
) -> tuple[dict[str, Any], dict[str, Measured]]:
    """The results of a network, and by claim its figure beside the null. About two seconds, under 1 GB at p = 113.

    `frequencies` as `present_frequencies` gives them; `start` is the network before training, the null of most claims.
    Draws as `quantities` does.
    """
    ks = used_frequencies(r, frequencies)
    results = {
        "phases": dict(phases),
        "key_frequencies": sorted(row["k"] for row in frequencies if row["kind"] == "key"),
        "overtones": [row["k"] for row in frequencies if row["kind"] == "overtone"],
        "present": [row["k"] for row in frequencies],
        "frequencies": list(frequencies),
        **quantities(r, ks, generator),
    }
    before = {} if start is None else same_before_training(weights_to_attention(start, ks))
    return results, {
        **phases_in_order(phases),
        **{name: Measured(x, before.get(name)) for name, x in same_before_training(results["measures"]).items()},
        **published_sets(results["key_frequencies"], len(r.logits)),
        **against_controls(results),
    }


def phases_in_order(phases: Mapping[str, Any]) -> dict[str, Measured]:
    """Section 5.2. The null is one over the orders that the definitions of the phases leave possible.

    Memorisation is looked for before the circuit is half-way formed, and settling after memorisation: 8 of 24.
    """
    published: Any = _claims()["phases-in-order"].published
    found = {name: phases[name] for name in published if phases.get(name) is not None}
    orders = [order.index for order in permutations(published)]
    possible = [at for at in orders if at("memorised") < min(at("circuit"), at("settled"))]
    ends = {"memorisation-ends": "memorised", "circuit-ends": "circuit_formed", "cleanup-ends": "settled"}
    return {
        "phases-in-order": Measured(sorted(found, key=lambda name: found[name]), 1 / len(possible)),
        **{claim: Measured(phases.get(name)) for claim, name in ends.items()},
    }


def same_before_training(m: Mapping[str, Any]) -> dict[str, Any]:
    """Sections 3 to 4.3 and appendix C.2: claims whose null is the same figure before training."""
    return {
        "generalises": m.get("test_accuracy"),
        "final-loss": m.get("loss"),
        "logit-variance": m.get("logit_variance_explained"),
        "neuron-logit-rank": m.get("neuron_logit_residual"),
        "neuron-directions": _least(m.get("neuron_directions", ()), "cosine", "sine"),
        "neurons-one-frequency": m.get("neurons_clustered"),
        "attention-periodic": _least(m.get("attention", ()), "fve"),
        "attention-to-equals": m.get("attention_to_equals"),
        "gini-embedding": m.get("gini_embedding"),
        "gini-neuron-logit": m.get("gini_neuron_logit"),
    }


def published_sets(keys: Sequence[int], n: int) -> dict[str, Measured]:
    """Section 4.1. The null is the mean overlap of the published set with a random one as large as that found."""
    sets: dict[str, Any] = {name: each.published for name, each in _claims().items() if name.startswith("key-")}
    return {name: Measured(list(keys), len(keys) * len(published) / (n // 2)) for name, published in sets.items()}


def against_controls(results: Mapping[str, Any]) -> dict[str, Measured]:
    """Section 4.4: losses over the network's own, or over a uniform guess's, each beside a control of equal size."""
    m, null = results["measures"], results["measures"].get("null", {})
    loss = {row["name"]: row["loss"] for row in (*results["replacements"], *results["ablations"])}
    own, uniform = m["loss"], math.log(m["n"])
    rises = [row["loss_change"] for row in results["frequencies"] if row["kind"] == "key"]
    restricted_loss = m.get("restricted_loss", {}).get("projection")
    return {
        "algorithm-beats-network": Measured(_over(m.get("trig_loss"), own), _over(null.get("trig_loss"), own)),
        "only-sum-waves": Measured(_over(restricted_loss, own), _over(null.get("restricted_projection"), own)),
        "neurons-as-polynomials": Measured(_over(loss.get(POLYNOMIALS), own), _over(loss.get(OTHER_POLYNOMIALS), own)),
        "excluded-loss": Measured(_over(m.get("excluded_loss"), uniform), _over(m.get("train_loss"), uniform)),
        "null-space": Measured(_over(loss.get(NULL_SPACE), uniform), _over(loss.get(RANDOM_SPACE), uniform)),
        "every-key-frequency-counts": Measured(min(rises, default=None), null.get("largest_other_rise")),
    }


def _claims() -> dict[str, Claim]:
    return {claim.id: claim for claim in load_claims(CLAIMS)}


def _over(loss: float | None, other: float) -> float | None:
    return loss / other if loss is not None and other else None


def _least(rows: Rows, *columns: str) -> float | None:
    values = [row[name] for row in rows for name in columns]
    return min((x for x in values if not math.isnan(x)), default=None)
