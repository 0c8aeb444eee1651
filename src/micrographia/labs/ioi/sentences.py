"""What a run found, in plain sentences. Nothing is claimed that the numbers beside it do not show."""

from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.labs.ioi.behaviour import is_learned
from micrographia.labs.ioi.seeds import FOLDER

NAMES = {
    "z": "head outputs",
    "neurons": "neurons",
    "resid_pre": "the residual stream",
    "attn_out": "attention outputs",
    "mlp_out": "MLP outputs",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "pattern": "attention patterns",
}
CLOSE, ROUGH = 0.9, 0.6
"""Correlations from which an estimate is said to be close, and rough: those of the calibration."""


ENOUGH = 0.5
"""An accuracy below which a behaviour is not called learned, whatever the config takes apart."""


def summary(results: Mapping[str, Any], undecided: Sequence[str] = ()) -> list[str]:
    """A sentence or two on each question. Of networks that learned nothing, only that.

    `undecided`: claims whose networks lie on both sides of the bound.
    """
    behaviours: Rows = results.get("behaviours") or ()
    config = results["config"]
    if config["least"] < ENOUGH and (poor := [row for row in behaviours if not _is_learned(row)]):
        said = _not_learned(behaviours, poor, config["least"])
    else:
        said = [*_learned(behaviours), *_published(results.get("published_circuit") or {}), *_found(results)]
        said += _no_difference(undecided)
    said += _planted(results.get("planted_circuits") or ())
    return said + (_networks(config["seed"]) if behaviours else [])


Rows = Sequence[Mapping[str, Any]]


def _found(results: Mapping[str, Any]) -> list[str]:
    said = _trust(results.get("estimates_beside_exact_effects") or ())
    said += _years(results.get("greater_by_probabilities") or ())
    said += _mirror(results.get("denoising_beside_noising") or ())
    said += _heads(results.get("head_kinds") or ())
    return said + _circuits(results.get("smallest_circuits") or ())


def _is_learned(row: Mapping[str, Any]) -> bool:
    """Whether the median network is right more often than not, and by more than form alone; see `is_learned`."""
    accuracy, null = (row[key]["median"] if row[key] else 0.0 for key in ("accuracy", "by_chance"))
    return is_learned(accuracy, null, ENOUGH)


def _not_learned(rows: Rows, poor: Rows, least: float) -> list[str]:
    n = rows[0]["networks"]
    best = max((row["accuracy"]["median"] for row in poor if row["accuracy"]), default=0.0)
    which = "any behaviour" if len(poor) == len(rows) else ", ".join(row["behaviour"] for row in poor)
    none = "The one network trained from nothing did not learn" if n == 1 else f"The {n} networks did not learn"
    return [
        f"{none} {which}: the median accuracy is {best:.1%} at best.",
        f"What was taken apart nonetheless, as `least` is {least:g}, only exercises the machinery: its "
        "tables say nothing about how a network does the task, nor how far to trust a method. Take the preset quick "
        "for that.",
    ]


def _networks(seed: int) -> list[str]:
    return [
        f"Each network is a Run of its own: `micrographia patch --model RUN/{FOLDER}/seed-{seed} ...`, with this run's "
        "folder for RUN."
    ]


def _learned(rows: Rows) -> list[str]:
    if not rows:
        return []
    n = rows[0]["networks"]
    if n == 1:
        told = ", ".join(row["behaviour"] for row in rows if row["learned"]) or "nothing"
        return [f"The one network trained from nothing learned {told}. Only what was learned is taken apart."]
    told = ", ".join(f"{row['behaviour']} in {row['learned']}" for row in rows)
    return [
        f"Of {n} networks trained from nothing, so many learned each behaviour: {told}. Only those are taken apart."
    ]


def _published(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    said = [
        f"Over {found['prompts']} prompts it prefers the indirect object by {found['logit_difference']:.2f} logits, "
        f"{found['preferred']:.1%} of the time; with a third name for the second subject by "
        f"{found['abc_logit_difference']:.2f}."
    ]
    if "faithfulness" in found:
        said.append(
            f"The {found['heads']} published heads alone keep {found['faithfulness']:.0%} of that; as many random "
            f"heads {found['random_faithfulness']:.0%}. Outside them stands {found['outside']}."
        )
    return said + ([found["note"]] if "note" in found else [])


def _trust(rows: Rows) -> list[str]:
    atp = {row["site"]: row["pearson"]["median"] for row in rows if row["method"] == "atp" and row["pearson"]}
    if not atp:
        return []
    levels = {
        "follow the exact effects closely": [site for site, r in atp.items() if r >= CLOSE],
        "say roughly what to patch": [site for site, r in atp.items() if ROUGH <= r < CLOSE],
        "are not to be trusted": [site for site, r in atp.items() if r < ROUGH],
    }
    told = "; ".join(
        f"for {', '.join(f'{NAMES[site]} ({atp[site]:.2f})' for site in sites)} they {how}"
        for how, sites in levels.items()
        if sites
    )
    repaired = {
        (row["site"], row["method"]): row["pearson"]["median"]
        for row in rows
        if row["pearson"] and row["method"] in ("atp-qk", "ig", "relp")
    }
    gains = sorted(((r - atp[site], site, way) for (site, way), r in repaired.items() if site in atp), reverse=True)
    said = [f"Estimates of attribution patching, by Pearson's correlation with exact patching: {told}."]
    if gains and gains[0][0] > 0:
        gain, site, way = gains[0]
        said.append(f"The largest repair: {WAYS[way]} for {NAMES[site]}, {atp[site]:.2f} to {atp[site] + gain:.2f}.")
    return said


WAYS = {"atp-qk": "the QK-fix", "ig": "integrated gradients", "relp": "RelP"}


def _mirror(rows: Rows) -> list[str]:
    known = [row for row in rows if row["differ_by"]]
    if not known:
        return []
    told = ", ".join(f"{row['behaviour']} {row['differ_by']['median']:.0%}" for row in known)
    noise = max(row["halves_of_the_prompts"]["median"] for row in known)
    return [
        f"Denoising and noising of heads by position differ by this share of the larger: {told}; denoising on two "
        f"halves of the prompts by {noise:.0%} at most."
    ]


def _years(rows: Rows) -> list[str]:
    known = [row for row in rows if row["measured"]]
    told = ", ".join(
        f"{row['measure']} {row['measured']['median']:.3g} (another prompt's {row['by_chance']['median']:.3g})"
        for row in known
    )
    return [f"Greater-than by the probabilities of years (Hanna et al. 2023): {told}."] if known else []


def _no_difference(undecided: Sequence[str]) -> list[str]:
    if not undecided:
        return []
    told = ", ".join(f"`{claim}`" for claim in undecided)
    return [f"No difference whatever the verdict, since networks lie on both sides of the bound: {told}."]


def _heads(rows: Rows) -> list[str]:
    count = sum(row["of"] for row in rows)
    if not count:
        return []
    both, chance = (sum(row[key] for row in rows) for key in ("found_both_ways", "by_chance"))
    told = ", ".join(
        f"{row['kind']} {row['agreement']['median']:.0%} ({row['agreement_by_chance']['median']:.0%})"
        for row in rows
        if row["agreement"]
    )
    return [
        f"Of {count} heads of the published kinds that looks or path patching find, {both} are found both ways; drawn "
        f"by lot within their layers it would be {chance:.1f}. By kind, in the median network (by lot): {told}."
    ]


def _circuits(rows: Rows) -> list[str]:
    ioi = [row for row in rows if row["behaviour"] == "ioi"]
    if not ioi:
        return []
    told = ", ".join(
        f"{row['parts']} of {row['of']} in {row['network']} ({row['parts_by_chance']:g} in random order)" for row in ioi
    )
    return [
        f"For ioi these many of the heads and MLPs by position that can reach the answer are enough: {told}; outside: "
        f"{ioi[0]['outside']}."
    ]


def _planted(rows: Rows) -> list[str]:
    if not rows:
        return []
    right = sum(row["misses"] == row["theory_says"] for row in rows)
    missed = sum(row["misses"] != "nothing" for row in rows)
    return [
        f"On hand-built circuits, whose every part is known, {right} of {len(rows)} tries found and missed what theory "
        f"says; {missed} of them missed something."
    ]
