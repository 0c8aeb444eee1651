"""From networks to the tables of results: medians over networks with their intervals, as lists of records.

A figure of a network is the mean over the behaviours that it learned, unless a row names one. Networks in which a
behaviour was not learned have no part in its rows.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.claims import Measures, median_interval
from micrographia.core.spoken import head_name
from micrographia.labs.ioi.analysis import NetworkAnalysis
from micrographia.labs.ioi.grammar import BEHAVIOURS
from micrographia.labs.ioi.heads import PATHS, Head
from micrographia.labs.ioi.measure import Analysed

Row = dict[str, Any]


def tables(networks: Sequence[NetworkAnalysis]) -> dict[str, Any]:
    """Every table of trained networks."""
    return {
        "behaviours": [_behaviour(name, networks) for name in BEHAVIOURS],
        "greater_by_probabilities": _years([one.years for one in networks if "greater" in one.analysed]),
        **estimate_tables([one.analysed for one in networks]),
        "head_kinds": [_head_kind(kind, networks) for kind in PATHS],
        "circuits": _circuits(networks),
        "smallest_circuits": _smallest(networks),
    }


def estimate_tables(each: Sequence[Analysed]) -> dict[str, Any]:
    """What is known of any model, trained here or not."""
    first = next((one for analysed in each for one in analysed.values()), None)
    ioi = next((analysed["ioi"] for analysed in each if "ioi" in analysed), None)
    return {
        "denoising_beside_noising": _asymmetries(each),
        "estimates_beside_exact_effects": _estimates(each),
        "how_far_to_trust": {} if first is None else first.calibration,
        "direct_parts": [] if ioi is None else [{"part": label, "logits": value} for label, value in ioi.direct],
    }


def judged_table(measures: Measures) -> list[Row]:
    """The figures that claims are judged by: with the null subtracted, without, and the null."""
    return [
        {"claim": name, "judged": one.value, "plain": one.raw, "null": one.null}
        for name, one in measures.items()
        if one.raw is not None and one.value is not None
    ]


def _over(found: Sequence[Any], field: str) -> dict[str, float] | None:
    return median_interval(getattr(each, field) for each in found)


def _behaviour(name: Any, networks: Sequence[NetworkAnalysis]) -> Row:
    found = [network.behaviours[name] for network in networks]
    return {
        "behaviour": name,
        "learned": sum(name in network.analysed for network in networks),
        "networks": len(networks),
        "accuracy": _over(found, "accuracy"),
        "by_chance": _over(found, "null_accuracy"),
        "logit_difference": _over(found, "logit_difference"),
        "corrupt": _over(found, "corrupt_logit_difference"),
    }


def _years(found: Sequence[Any]) -> list[Row]:
    """Greater-than as Hanna et al. (2023) measure it: by the probabilities of years."""
    fields = ("probability_difference", "cutoff_sharpness") if found else ()
    return [
        {"measure": f.replace("_", " "), "measured": _over(found, f), "by_chance": _over(found, f"null_{f}")}
        for f in fields
    ]


def _asymmetries(each: Sequence[Analysed]) -> list[Row]:
    rows = []
    for name in _named(each):
        found = [analysed[name] for analysed in each if name in analysed]
        halves = _over(found, "split_half")
        rows.append({"behaviour": name, "differ_by": _over(found, "asymmetry"), "halves_of_the_prompts": halves})
    return rows


def _estimates(each: Sequence[Analysed]) -> list[Row]:
    """Correlation of estimate and exact effect by kind of Site and method; `places` are those of all."""
    pairs = {
        (kind, method): None
        for analysed in each
        for one in analysed.values()
        for kind, own in one.correlations.items()
        for method in own
    }
    rows = []
    for kind, method in pairs:
        found = [[one.correlations[kind][method] for one in analysed.values()] for analysed in each if analysed]
        ioi = [analysed["ioi"].correlations[kind][method].pearson for analysed in each if "ioi" in analysed]
        means = {
            name: median_interval(_mean(getattr(one, name) for one in network) for network in found)
            for name in ("pearson", "spearman")
        }
        places = sum(one.places for network in found for one in network)
        rows.append({"site": kind, "method": method, **means, "pearson_on_ioi": median_interval(ioi), "places": places})
    return rows


def _head_kind(kind: str, networks: Sequence[NetworkAnalysis]) -> Row:
    """By either criterion; `of`: the heads that either finds. Lists name the seed of each network."""
    seeds = {one.seed: one.kinds[kind] for one in networks if kind in one.kinds}
    found = list(seeds.values())
    return {
        "kind": kind,
        "networks": len(found),
        "by_looks": [f"{seed}: {_heads(own.by_attention)}" for seed, own in seeds.items()],
        "by_patching": [f"{seed}: {_heads(own.by_path)}" for seed, own in seeds.items()],
        "agreement_by_seed": [f"{seed}: {own.both} of {own.either}" for seed, own in seeds.items()],
        "found_both_ways": sum(own.both for own in found),
        "of": sum(own.either for own in found),
        "by_chance": sum(own.both_by_chance for own in found),
        "agreement": _over(found, "agreement"),
        "agreement_by_chance": _over(found, "agreement_by_chance"),
        "area": _over(found, "area"),
    }


def _heads(found: Iterable[Head]) -> str:
    return " ".join(head_name(layer, head) for layer, head in sorted(found)) or "none"


def _circuits(networks: Sequence[NetworkAnalysis]) -> list[Row]:
    """CPR, CMD and the share of members needed, by behaviour, kind of member and method."""
    rows = []
    for name in _named([network.analysed for network in networks]):
        found = [one.circuits for network in networks if (one := network.analysed.get(name)) and one.circuits]
        for members in ("nodes", "edges"):
            for method in getattr(found[0], members) if found else ():
                ladders = [getattr(each, members)[method] for each in found]
                areas = {"cmd": _over(ladders, "cmd"), "cpr": _over(ladders, "cpr")}
                needed = median_interval(each.min_share() for each in ladders)
                rows.append({"behaviour": name, "members": members, "method": method, **areas, "needed": needed})
    return rows


def _smallest(networks: Sequence[NetworkAnalysis]) -> list[Row]:
    """The smallest faithful circuit of each network and behaviour, and what was done to the rest."""
    return [
        {
            "network": f"seed {network.seed}",
            "behaviour": name,
            "chosen_by": one.circuits.method,
            **one.circuits.row(),
        }
        for network in networks
        for name, one in network.analysed.items()
        if one.circuits is not None
    ]


def _named(each: Sequence[Mapping[Any, Any]]) -> list[Any]:
    return [name for name in BEHAVIOURS if any(name in analysed for analysed in each)]


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
