"""From the networks' measures to the tables of results: medians over networks, with their intervals.

A figure of a network is the mean over the behaviours that it learned, unless a row names one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.intervals import median
from micrographia.labs.ioi.by_network import Behaviours, Roles, by_network
from micrographia.labs.ioi.network import Network, Studied
from micrographia.labs.ioi.planted.findings import Finding
from micrographia.labs.ioi.roles import TRACED
from micrographia.labs.ioi.templates import BEHAVIOURS

Row = dict[str, Any]


def results_of(networks: Sequence[Network], planted: Iterable[Finding]) -> dict[str, Any]:
    """Every table. Networks in which a behaviour was not learned have no part in its rows."""
    return {
        "behaviours": behaviours(networks),
        "greater_by_probabilities": later_years(networks),
        **estimate_tables([network.studied for network in networks], [network.roles for network in networks]),
        "head_kinds": head_kinds(networks),
        "circuits": circuits(networks),
        "smallest_circuits": smallest(networks),
        "planted_circuits": planted_table(list(planted)),
    }


def estimate_tables(studied: Sequence[Behaviours], roles: Sequence[Roles] | None = None) -> dict[str, Any]:
    """What is told of any model, and what the claims stand on."""
    return {
        "judged_by_network": judged(studied, [{} for _ in studied] if roles is None else roles),
        "denoising_beside_noising": mirrors(studied),
        "estimates_beside_exact_effects": estimates(studied),
        "how_far_to_trust": said(studied),
        "direct_parts": direct(studied),
    }


def over(values: Iterable[float]) -> dict[str, float] | None:
    """The median with its interval of 95 %, NaN left out; None of nothing.

    Of fewer than six networks no interval is narrower than from the least to the greatest, so that is given.
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    found = median(known)
    return {"median": found.estimate, "low": found.low, "high": found.high}


def _over(found: Sequence[Any], field: str) -> dict[str, float] | None:
    return over(getattr(each, field) for each in found)


def behaviours(networks: Sequence[Network]) -> list[Row]:
    rows = []
    for name in BEHAVIOURS:
        found = [network.behaviours[name] for network in networks]
        rows.append(
            {
                "behaviour": name,
                "learned": sum(name in network.studied for network in networks),
                "networks": len(networks),
                "accuracy": _over(found, "accuracy"),
                "by_chance": _over(found, "null_accuracy"),
                "logit_difference": _over(found, "logit_difference"),
                "corrupt": _over(found, "corrupt_logit_difference"),
            }
        )
    return rows


def later_years(networks: Sequence[Network]) -> list[Row]:
    """Greater-than as Hanna et al. (2023) measure it, where it was learned: by the probabilities of years."""
    found = [network.years for network in networks if "greater" in network.studied]
    fields = ("probability_difference", "cutoff_sharpness") if found else ()
    return [
        {
            "measure": field.replace("_", " "),
            "measured": _over(found, field),
            "by_chance": _over(found, f"null_{field}"),
        }
        for field in fields
    ]


def judged(studied: Sequence[Behaviours], roles: Sequence[Roles]) -> list[Row]:
    """The figures that claims are judged by, each taken within a network; see `by_network`."""
    taken = by_network(studied, roles)
    fields = ("judged", "plain", "null")
    rows = [{"claim": claim, **{field: _over(found, field) for field in fields}} for claim, found in taken.items()]
    return [row for row in rows if row["judged"]]


def mirrors(studied: Sequence[Mapping[str, Studied]]) -> list[Row]:
    """How far the two directions of patching differ."""
    return [
        {
            "behaviour": name,
            "differ_by": over(each[name].mirror for each in studied if name in each),
            "halves_of_the_prompts": over(each[name].mirror_null for each in studied if name in each),
        }
        for name in _named(studied)
    ]


def estimates(studied: Sequence[Mapping[str, Studied]]) -> list[Row]:
    """Correlation of estimate and exact effect by kind of Site and method; `places` stand behind it in all."""
    kinds = {
        (kind, way): None for each in studied for one in each.values() for kind, own in one.trust.items() for way in own
    }
    rows = []
    for kind, way in kinds:
        found = [[one.trust[kind][way] for one in each.values()] for each in studied if each]
        ioi = [each["ioi"].trust[kind][way].pearson for each in studied if "ioi" in each]
        rows.append(
            {
                "site": kind,
                "method": way,
                "pearson": over(_mean(one.pearson for one in network) for network in found),
                "spearman": over(_mean(one.spearman for one in network) for network in found),
                "pearson_on_ioi": over(ioi),
                "places": sum(one.places for network in found for one in network),
            }
        )
    return rows


def said(studied: Sequence[Mapping[str, Studied]]) -> dict[str, str]:
    """The sentences of the calibration, of the first network and its first behaviour."""
    first = next((one for each in studied for one in each.values()), None)
    return {} if first is None else first.calibration


def direct(studied: Sequence[Mapping[str, Studied]]) -> list[Row]:
    """What parts write straight to the answer of ioi, in the first network that learned it."""
    first = next((each["ioi"] for each in studied if "ioi" in each), None)
    return [] if first is None else [{"part": label, "logits": value} for label, value in first.direct]


def head_kinds(networks: Sequence[Network]) -> list[Row]:
    """By looks and by patching; `of`: the heads found either way, by the seed of their network."""
    rows = []
    for kind in TRACED:
        found = [network.roles[kind] for network in networks if kind in network.roles]
        rows.append(
            {
                "kind": kind,
                "networks": len(found),
                "by_looks": [f"{seed}: {heads(role.looks)}" for seed, role in _by_seed(networks, kind)],
                "by_patching": [f"{seed}: {heads(role.found)}" for seed, role in _by_seed(networks, kind)],
                "agreement_by_seed": [
                    f"{seed}: {role.both} of {role.either}" for seed, role in _by_seed(networks, kind)
                ],
                "found_both_ways": sum(role.both for role in found),
                "of": sum(role.either for role in found),
                "by_chance": sum(role.both_by_lot for role in found),
                "agreement": _over(found, "agreement"),
                "agreement_by_chance": _over(found, "agreement_by_lot"),
                "area": _over(found, "area"),
            }
        )
    return rows


def heads(found: Iterable[tuple[int, int]]) -> str:
    return " ".join(f"L{layer}.{head}" for layer, head in sorted(found)) or "none"


def _by_seed(networks: Sequence[Network], kind: str) -> list[tuple[int, Any]]:
    return [(network.seed, network.roles[kind]) for network in networks if kind in network.roles]


def circuits(networks: Sequence[Network]) -> list[Row]:
    """CPR, CMD and the share of members needed, by behaviour, kind of member and method."""
    rows = []
    for name in _named([network.studied for network in networks]):
        found = [one.circuits for network in networks if (one := network.studied.get(name)) and one.circuits]
        for members in ("nodes", "edges"):
            for method in getattr(found[0], members) if found else ():
                curves = [getattr(each, members)[method] for each in found]
                fields = {field: over(getattr(curve, field) for curve in curves) for field in ("cmd", "cpr", "needed")}
                rows.append({"behaviour": name, "members": members, "method": method, **fields})
    return rows


def smallest(networks: Sequence[Network]) -> list[Row]:
    """The smallest faithful circuit of each network and behaviour, and what was done to the rest."""
    rows = []
    for network in networks:
        for name, one in network.studied.items():
            if one.circuits is not None:
                chosen = one.circuits.chosen
                rows.append(
                    {
                        "network": f"seed {network.seed}",
                        "behaviour": name,
                        "chosen_by": chosen.method,
                        "parts": len(chosen.members),
                        "of": chosen.of,
                        "parts_by_chance": chosen.by_lot,
                        "faithfulness": {
                            "value": chosen.faithfulness,
                            "low": chosen.interval[0],
                            "high": chosen.interval[1],
                        },
                        "nearest_random": chosen.null,
                        "incomplete_by": chosen.incomplete,
                        "idle": chosen.idle,
                        "outside": one.circuits.ablation,
                    }
                )
    return rows


def planted_table(found: Sequence[Finding]) -> list[Row]:
    """What each method misses of each planted circuit, and whether theory said so."""
    return [
        {
            "circuit": each.circuit,
            "mode": each.mode,
            "method": each.way,
            "misses": ", ".join(sorted(each.missed)) or "nothing",
            "theory_says": ", ".join(sorted(each.expected)) or "nothing",
            "area": each.area,
        }
        for each in found
    ]


def _named(studied: Sequence[Mapping[str, Studied]]) -> list[str]:
    return [name for name in BEHAVIOURS if any(name in each for each in studied)]


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
