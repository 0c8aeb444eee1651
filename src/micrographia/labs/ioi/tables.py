"""From networks to the tables of results: medians over networks with their intervals, as lists of records.

A figure of a network is the mean over the behaviours that it learned, unless a row names one. Networks in which a
behaviour was not learned have no part in its rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from micrographia.core.claims import median_interval
from micrographia.core.spoken import head_name, node_name
from micrographia.labs.ioi.analysis import NetworkAnalysis
from micrographia.labs.ioi.circuits import Circuits
from micrographia.labs.ioi.heads import KINDS, NEGLIGIBLE, Head, HeadKind
from micrographia.labs.ioi.measure import Analysed, known_means
from micrographia.labs.ioi.task import BEHAVIOURS

Row = dict[str, Any]


def tables(networks: Sequence[NetworkAnalysis]) -> dict[str, Any]:
    """Every table of trained networks."""
    analysed = [one.analysed for one in networks]
    kinds = {name: {one.seed: one.kinds[name] for one in networks if name in one.kinds} for name in KINDS}
    cut = [
        (one.seed, name, found) for one in networks for name, each in one.analysed.items() if (found := each.circuits)
    ]
    return {
        "behaviours": [_behaviour(name, networks) for name in BEHAVIOURS],
        "greater_by_probabilities": _years([one.years for one in networks if "greater" in one.analysed]),
        **estimate_tables(analysed),
        "head_kinds": [_head_kind(name, found) for name, found in kinds.items()],
        "circuits": [
            row
            for name in _named(analysed)
            for row in _circuits(name, [found for _, each, found in cut if each == name])
        ],
        "smallest_circuits": [
            {"network": f"seed {seed}", "behaviour": name, "chosen_by": found.method, **_smallest(found)}
            for seed, name, found in cut
        ],
    }


def estimate_tables(each: Sequence[Analysed]) -> dict[str, Any]:
    """What is known of any model, trained here or not."""
    ioi = next((analysed["ioi"].direct for analysed in each if "ioi" in analysed), [])
    return {
        "denoising_beside_noising": [
            {
                "behaviour": name,
                **_over(
                    [analysed[name] for analysed in each if name in analysed],
                    differ_by="asymmetry",
                    halves_of_the_prompts="split_half",
                ),
            }
            for name in _named(each)
        ],
        "estimates_beside_exact_effects": _estimates(each),
        "how_far_to_trust": next((one.calibration for analysed in each for one in analysed.values()), {}),
        "direct_parts": [{"part": node_name(label), "logits": value} for label, value in ioi],
    }


def _over(found: Iterable[Any], **fields: str) -> dict[str, dict[str, float] | None]:
    """Column -> the median of a field over networks."""
    rows = list(found)
    return {column: median_interval(getattr(each, field) for each in rows) for column, field in fields.items()}


def _named(each: Sequence[Analysed]) -> list[str]:
    return [name for name in BEHAVIOURS if any(name in analysed for analysed in each)]


def _behaviour(name: str, networks: Sequence[NetworkAnalysis]) -> Row:
    columns = {"accuracy": "accuracy", "by_chance": "null_accuracy"}
    columns |= {"logit_difference": "logit_difference", "corrupt": "corrupt_logit_difference"}
    found = _over([network.behaviours[name] for network in networks], **columns)
    learned = sum(name in network.analysed for network in networks)
    return {"behaviour": name, "learned": learned, "networks": len(networks), **found}


def _years(found: Sequence[Any]) -> list[Row]:
    """Greater-than as Hanna et al. (2023) measure it: by the probabilities of years."""
    fields = ("probability_difference", "cutoff_sharpness") if found else ()
    return [{"measure": f.replace("_", " "), **_over(found, measured=f, by_chance=f"null_{f}")} for f in fields]


def _estimates(each: Sequence[Analysed]) -> list[Row]:
    """Correlation of estimate and exact effect by kind of Site and method; `places` are those of all."""
    every = [one.correlations for analysed in each for one in analysed.values()]
    rows = []
    for kind, method in dict.fromkeys((kind, method) for one in every for kind, own in one.items() for method in own):
        found = [{name: one.correlations[kind][method] for name, one in own.items()} for own in each if own]
        means = {
            name: median_interval(known_means([[getattr(one, name)] for one in own.values()])[0] for own in found)
            for name in ("pearson", "spearman")
        }
        ioi = median_interval(own["ioi"].pearson for own in found if "ioi" in own)
        places = sum(one.places for own in found for one in own.values())
        rows.append({"site": kind, "method": method, **means, "pearson_on_ioi": ioi, "places": places})
    return rows


def _head_kind(kind: str, seeds: Mapping[int, HeadKind]) -> Row:
    """By either criterion; `of`: the heads that either finds. Lists name the seed of each network."""
    found = seeds.values()
    return {
        "kind": kind,
        "networks": len(found),
        "by_looks": [f"{seed}: {_heads(own.by_attention)}" for seed, own in seeds.items()],
        "by_patching": [f"{seed}: {_heads(own.by_path)}" for seed, own in seeds.items()],
        "agreement_by_seed": [f"{seed}: {own.both} of {own.either}" for seed, own in seeds.items()],
        "found_both_ways": sum(own.both for own in found),
        "of": sum(own.either for own in found),
        "by_chance": sum(own.both_by_chance for own in found),
        **_over(found, agreement="agreement", agreement_by_chance="agreement_by_chance", area="area"),
    }


def _heads(found: Iterable[Head]) -> str:
    return " ".join(head_name(layer, head) for layer, head in sorted(found)) or "none"


def _circuits(behaviour: str, found: Sequence[Circuits]) -> list[Row]:
    """CPR, CMD and the share of members needed, by kind of member and method."""
    rows = []
    for members in ("nodes", "edges"):
        for method in getattr(found[0], members) if found else ():
            ladders = [getattr(each, members)[method] for each in found]
            needed = median_interval(each.min_share() for each in ladders)
            head = {"behaviour": behaviour, "members": members, "method": method}
            rows.append({**head, **_over(ladders, cmd="cmd", cpr="cpr"), "needed": needed})
    return rows


def _smallest(circuits: Circuits) -> Row:
    """The smallest faithful circuit, and what was done to the rest."""
    found, (low, high) = circuits.smallest, circuits.smallest.interval
    return {
        "parts": len(found.members),
        "of": found.of,
        "parts_by_chance": found.random_size,
        "faithfulness": {"value": found.faithfulness, "low": low, "high": high},
        "nearest_random": found.nearest_random,
        "incomplete_by": found.incomplete_max / found.gap,
        "idle": found.n_non_minimal(NEGLIGIBLE),
        "outside": found.ablation,
    }
