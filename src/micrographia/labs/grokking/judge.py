"""Each claim beside what was measured: which number of the results answers which claim, and its null.

The published values are in `claims.toml`; here stands only where the measurement is found. A figure that could not be
taken is None, and its claim then fails at its preset: what was not measured was not reproduced.
"""

import math
from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

from micrographia.core import claims as core
from micrographia.core.claims import Judged, Measured, Value
from micrographia.methods.fourier.ablations import NULL_SPACE, RANDOM_SPACE
from micrographia.methods.fourier.replacements import OTHER_POLYNOMIALS, POLYNOMIALS

CLAIMS = Path(__file__).with_name("claims.toml")
Results = Mapping[str, Any]


def judge_all(results: Results, start: Results | None, *, preset: str, config: Mapping[str, Any]) -> list[Judged]:
    """Every claim of the lab. `start`: the measures of the network before training, the null of most claims."""
    return core.judge_all(CLAIMS, measures_of(results, start), preset=preset, config=config)


def measures_of(results: Results, start: Results | None) -> dict[str, Measured]:
    """The figure of every claim, and its null."""
    found = {}
    for name, measure in MEASURED.items():
        null = NULLS.get(name, lambda results, start: None)
        null_value = null(results, start) if start is not None or name in OWN_NULL else None
        found[name] = Measured(_plain(measure(results)), _plain(null_value))
    return found


def _m(*path: str) -> Callable[[Results], Any]:
    """The measure at this path; None where it was not taken, as for an operation without characters."""

    def get(results: Results) -> Any:
        value: Any = results["measures"]
        for name in path:
            value = value.get(name) if value is not None else None
        return value

    return get


def _ratio(part: Callable[[Results], Any]) -> Callable[[Results], Any]:
    """A loss over the network's own on all pairs."""

    def get(results: Results) -> float | None:
        value, loss = part(results), results["measures"]["loss"]
        return value / loss if value is not None and loss else None

    return get


def _row(table: str, name: str, column: str = "loss") -> Callable[[Results], Any]:
    """A figure of the replacement or ablation table."""

    def get(results: Results) -> Any:
        return next((row[column] for row in results[table] if row["name"] == name), None)

    return get


def _least(table: str, columns: tuple[str, ...]) -> Callable[[Results], Any]:
    def get(results: Results) -> float | None:
        values = [row[name] for row in results["measures"].get(table, []) for name in columns]
        known = [x for x in values if x is not None and not math.isnan(x)]
        return min(known, default=None)

    return get


def _phase(name: str) -> Callable[[Results], Any]:
    return lambda results: (results["phases"] or {}).get(name)


def _phases_in_order(results: Results) -> list[str]:
    """The phases that were found, by their epochs."""
    found = {name: results["phases"].get(name) for name in PHASES} if results["phases"] else {}
    known = {name: epoch for name, epoch in found.items() if epoch is not None}
    return sorted(known, key=lambda name: known[name])


PHASES = ("memorised", "circuit", "cleanup", "settled")


def _key_frequencies(results: Results) -> list[int]:
    return list(results["key_frequencies"])


def _least_rise(results: Results) -> float | None:
    rises = [row["loss_change"] for row in results["frequencies"] if row["k"] in results["key_frequencies"]]
    return min(rises, default=None)


def _null_space(results: Results) -> float | None:
    loss = _row("ablations", NULL_SPACE)(results)
    return None if loss is None else loss / math.log(results["measures"]["n"])


MEASURED: dict[str, Callable[[Results], Any]] = {
    "phases-in-order": _phases_in_order,
    "generalises": _m("test_accuracy"),
    **{f"key-frequencies-seed-{seed}": _key_frequencies for seed in range(4)},
    "final-loss": _m("loss"),
    "logit-variance": _m("logit_variance_explained"),
    "algorithm-beats-network": _ratio(_m("trig_loss")),
    "neuron-logit-rank": _m("neuron_logit_residual"),
    "neuron-directions": _least("neuron_directions", ("cosine", "sine")),
    "neurons-one-frequency": _m("neurons_clustered"),
    "attention-periodic": _least("attention", ("fve",)),
    "attention-to-equals": _m("attention_to_equals"),
    "neurons-as-polynomials": _ratio(_row("replacements", POLYNOMIALS)),
    "only-sum-waves": _ratio(_m("restricted_loss", "projection")),
    "null-space": _null_space,
    "every-key-frequency-counts": _least_rise,
    "memorisation-ends": _phase("memorised"),
    "circuit-ends": _phase("circuit_formed"),
    "cleanup-ends": _phase("settled"),
    "gini-embedding": _m("gini_embedding"),
    "gini-neuron-logit": _m("gini_neuron_logit"),
}


def _at_start(claim: str) -> Callable[[Results, Results | None], Any]:
    return lambda results, start: MEASURED[claim](start) if start is not None else None


def _random_overlap(results: Results, start: Results | None) -> float:
    """Expected number of the published five in a random set of as many frequencies: hypergeometric mean."""
    return len(results["key_frequencies"]) * 5 / (results["measures"]["n"] // 2)


def _chance_of_order(results: Results, start: Results | None) -> float:
    """One over the orders that the definitions of the phases leave possible.

    Memorisation is looked for before the circuit is half-way formed, and settling after memorisation: 8 of 24.
    """
    orders = list(permutations(PHASES))
    possible = [
        order for order in orders if order.index("memorised") < min(order.index("circuit"), order.index("settled"))
    ]
    return 1 / len(possible)


NULLS: dict[str, Callable[[Results, Results | None], Any]] = {
    **{
        name: _at_start(name)
        for name in (
            "generalises", "final-loss", "logit-variance", "neuron-logit-rank", "neuron-directions",
            "neurons-one-frequency", "attention-periodic", "attention-to-equals", "gini-embedding",
            "gini-neuron-logit",
        )
    },
    **{f"key-frequencies-seed-{seed}": _random_overlap for seed in range(4)},
    "phases-in-order": _chance_of_order,
    "algorithm-beats-network": lambda results, start: _ratio(_m("null", "trig_loss"))(results),
    "only-sum-waves": lambda results, start: _ratio(_m("null", "restricted_projection"))(results),
    "neurons-as-polynomials": lambda results, start: _ratio(_row("replacements", OTHER_POLYNOMIALS))(results),
    "null-space": lambda results, start: _random_space(results),
    "every-key-frequency-counts": lambda results, start: _m("null", "largest_other_rise")(results),
}  # fmt: skip
OWN_NULL = frozenset(
    {f"key-frequencies-seed-{seed}" for seed in range(4)}
    | {
        "phases-in-order",
        "algorithm-beats-network",
        "only-sum-waves",
        "neurons-as-polynomials",
        "null-space",
        "every-key-frequency-counts",
    }
)


def _random_space(results: Results) -> float | None:
    loss = _row("ablations", RANDOM_SPACE)(results)
    return None if loss is None else loss / math.log(results["measures"]["n"])


def _plain(value: Any) -> Value:
    return None if isinstance(value, float) and math.isnan(value) else value
