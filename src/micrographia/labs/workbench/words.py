"""What was found, in plain sentences: nothing that the numbers beside them do not show."""

from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.labs.workbench.config import Attribute, Circuit, Patch
from micrographia.labs.workbench.effects import VERBS
from micrographia.labs.workbench.figures import WRITTEN
from micrographia.labs.workbench.prompts import Ends
from micrographia.methods.attribution.calibrate import Calibration, trust
from micrographia.methods.explain import percent

NOTABLE = 0.1  # a share of the gap that is worth a sentence


def over(n: int) -> str:
    """How many prompts stand behind a figure."""
    return "one prompt pair, so there is no spread" if n == 1 else f"{n} prompt pairs, ± their standard deviation"


def baselines(ends: Ends, n: int) -> str:
    clean, corrupt = float(ends.clean.mean()), float(ends.corrupt.mean())
    return (
        f"The {ends.metric.name} is {clean:.4g} {ends.metric.unit} on the clean prompts and {corrupt:.4g} on the "
        f"corrupt ones; effects are shares of that gap, over {over(n)}."
    )


LEAST = {"logits": 0.1, "nats": 0.1, "probability": 0.01}
"""By the unit of a metric: a gap below it is hardly one. Our choice."""
FALLING = ("KL divergence", "rank")
"""Metrics that are the smaller, the better the answer."""
NOT_EXPLAINED = (
    "What the strongest places are to the answer, sufficient or necessary, is not said: the gap between these prompts "
    "means too little for that (see the warning in the summary)."
)


def doubts(ends: Ends) -> list[str]:
    """Why shares of this gap mean little; empty where nothing speaks against them."""
    clean, corrupt = float(ends.clean.mean()), float(ends.corrupt.mean())
    name, unit = ends.metric.name, ends.metric.unit
    better, sign = ("below", -1) if name in FALLING else ("above", 1)
    found = {
        f"the clean prompts do not stand {better} the corrupt ones": sign * (clean - corrupt) <= 0,
        "on the clean prompts the model prefers the wrong answer": name == "logit difference" and clean <= 0,
        f"the gap is tiny, below {LEAST.get(unit)} {unit}": abs(clean - corrupt) < LEAST.get(unit, 0.0),
    }
    return [text for text, so in found.items() if so]


def opening(ends: Ends, n: int) -> list[str]:
    """The gap, and a warning where it means little."""
    said, found = [baselines(ends, n)], doubts(ends)
    if found:
        said.append(
            f"Warning: {'; '.join(found)}. Shares of such a gap do not say how the model comes to its answer; take "
            "prompts that it answers rightly."
        )
    return said


def of_patch(
    question: Patch, ends: Ends, top: Sequence[Mapping[str, Any]], reference: str, n_places: int, n: int
) -> list[str]:
    """The gap, the strongest place of each mode, and what was put in its stead."""
    said = opening(ends, n)
    for mode, verb in VERBS.items():
        shares = [row for row in top if row.get(verb) is not None]
        if shares:
            said.append(_strongest(max(shares, key=lambda row: abs(row[verb])), mode, n_places, question.replace))
    if question.replace != "other":
        said.append(f"What was written is {reference}, not the other run's value: that choice defines what was asked.")
    return said


def of_attribution(
    question: Attribute,
    method: str,
    ends: Ends,
    top: Sequence[Mapping[str, Any]],
    n_places: int,
    n: int,
    checks: Mapping[str, Calibration],
) -> list[str]:
    """The gap, the strongest estimates, and how far to trust them."""
    said = [*opening(ends, n), f"By {method}, {n_places:,} places are estimated at once:"]
    for verb in VERBS.values():
        shares = [row for row in top if row.get(verb) is not None]
        if shares:
            said.append(_would(max(shares, key=lambda row: abs(row[verb])), verb))
    if not checks:
        return [*said, "Nothing was checked: with `verify` some places are patched exactly."]
    return [*said, *(_trusted(mode, check) for mode, check in checks.items())]


def of_strongest(method: str, ends: Ends, rows: Sequence[Mapping[str, Any]], held: Sequence[Any], n: int) -> list[str]:
    """The gap, how much was scored and how little held, the strongest, and what exact patches say of them."""
    said = [
        *opening(ends, n),
        f"By {method}, {held[0].n_scored:,} places were estimated as the backward pass went by, and only the "
        f"{len(held[0].places)} largest were held.",
    ]
    for each in held:
        verb = VERBS[each.mode]
        said.append(_would(max((row for row in rows if row[verb] is not None), key=lambda row: abs(row[verb])), verb))
    said += [_borne_out(each) for each in held if each.exact]
    beyond = "What a gradient does not see is not among the largest, and was not looked for."
    return [*said, beyond if held[0].exact else f"Nothing was checked: with `verify` the largest are patched. {beyond}"]


def _borne_out(held: Any) -> str:
    """How much of what was estimated the exact patches did."""
    tried = list(zip(held.estimate, held.exact))
    kept = sum(exact * (1 if estimate > 0 else -1) for estimate, exact in tried)
    half = sum(2 * exact * estimate >= estimate * estimate for estimate, exact in tried)
    return (
        f"The {len(tried)} largest were patched exactly ({held.mode}): {half} of them do at least half of what was "
        f"estimated, and their sum is {percent(kept / (sum(abs(x) for x, _ in tried) or 1.0))} of it."
    )


def _trusted(mode: str, check: Calibration) -> str:
    """Which kinds of Site are estimated how well, in one sentence."""
    kinds: dict[str, list[str]] = {}
    for each in check.kinds.values():
        kinds.setdefault(trust(each.pearson.value, each.slope), []).append(each.kind)
    said = "; ".join(f"those of {', '.join(names)} {told}" for told, names in kinds.items())
    return f"Checked by {check.n_patches} exact patches ({mode}), the estimates are to be read so: {said}."


def of_edges(
    ends: Ends, rows: Sequence[Mapping[str, Any]], method: str, n_edges: int, n: int, checks: Mapping[str, Any]
) -> list[str]:
    """The gap, the strongest edge, and how the estimates stood up."""
    said = [*opening(ends, n), f"By {method}, all {n_edges:,} edges between parts are estimated at once."]
    for verb in VERBS.values():
        if rows and rows[0].get(verb) is not None:
            said.append(_would(max(rows, key=lambda row: abs(row[verb])), verb))
    if not checks:
        return [*said, "Nothing was checked: with `verify` some edges are patched exactly."]
    return said + [
        f"Checked ({mode}) on {len(each.edges)} edges, {each.n_top} of them the largest, by exact path patching: the "
        f"estimates {trust(each.pearson.value, each.slope)} (Pearson {each.pearson}, Spearman {each.spearman})."
        for mode, each in checks.items()
    ]


def of_circuit(question: Circuit, ends: Ends, judged: Any, ablation: str, n_members: int, n: int) -> list[str]:
    """The size of the circuit, what it carries alone, and what circuits of its size drawn at random carry."""
    carried, null = float(judged.found.values[0]), judged.null
    if len(judged.chosen) == n_members:
        return [*opening(ends, n), _everything(question, ablation, n_members)]
    return [
        *opening(ends, n),
        f"{len(judged.chosen):,} of {n_members:,} {question.units} carry {percent(carried, 1)} of the behaviour alone, "
        f"with everything else replaced by {ablation}, on the prompts that chose them.",
        f"Circuits of that size drawn at random carry {percent(float(null.values.median()), 1)} "
        f"({percent(null.low, 1)} to {percent(null.high, 1)}; p = {null.at_least:.2g} that one comes as near to the "
        f"whole, over {len(null.values)} draws).",
        f"With the same members taken out of both, circuit and model differ by {judged.gap_of_random:.3g} "
        f"{ends.metric.unit} over random sets, and by {judged.gap_of_worst:.3g} for the worst set that was found.",
    ]


def _everything(question: Circuit, ablation: str, n_members: int) -> str:
    """That nothing was left out, and what to do about it."""
    kept = f"All {n_members:,} {question.units} were kept: this circuit is the whole model, and nothing was found."
    if question.n is not None or question.threshold is not None:
        return f"{kept} Choose a {'smaller n' if question.n is not None else 'higher threshold'}."
    return (
        f"{kept} No smaller number of those tried comes to within {1 - question.faithful:.0%} of the behaviour alone, "
        f"with everything else replaced by {ablation}. Ask for a lower share (faithful), a number (n), or another "
        "ablation."
    )


AGAINST, TURNED = "works against the answer: it ", "works the other way: it "


def _strongest(row: Mapping[str, Any], mode: str, n_places: int, replace: str) -> str:
    verb, place = VERBS[mode], _at(row)
    share, sd = row[verb], row.get(f"{mode}_sd")
    if abs(share) < NOTABLE:
        most = f"the most was {percent(share, 1)}, {place}"
        return f"Alone, none of the {n_places:,} places {verb} a tenth of the gap; {most}."
    spread = "" if sd is None else f", a change of {row[f'{mode}_change']:.3g} ± {sd:.2g}"
    against = (AGAINST if replace == "other" else TURNED) if share < 0 else ""
    told = f"{place} {against}{verb} {percent(share, 1)} of the gap{spread}"
    return f"{told}; the most of {n_places:,} places."


def _would(row: Mapping[str, Any], verb: str) -> str:
    """What an estimate says of the strongest place; of a negative share, that it works against the answer."""
    share = percent(row[verb], 1)
    against = AGAINST if share.startswith("-") else ""
    return f"{_at(row)} {against}would have {verb} {share} of the gap, the most of all."


def _at(row: Mapping[str, Any]) -> str:
    """A place with its token."""
    return row["place"] + (f" (at {row['token']!r})" if row.get("token") else "")


def explanation(modes: Sequence[str], replace: str = "other") -> list[str]:
    """What the modes show, and what they do not."""
    if replace == "other":
        return [EXPLAINED[mode] for mode in modes] + ([BOTH] if len(modes) > 1 else [])
    return [*(REPLACED[mode].format(written=WRITTEN[replace]) for mode in modes), NO_GATES]


EXPLAINED = {
    "denoise": "Denoising puts a clean value into the corrupt run: what restores the answer is sufficient for it.",
    "noise": "Noising puts a corrupt value into the clean run: what destroys the answer is necessary for it.",
}
BOTH = (
    "The two are no mirror images: of parts that do the same work, each is sufficient and none is necessary; of parts "
    "that are all needed, each is necessary and none is sufficient."
)
REPLACED = {
    "denoise": "In the corrupt run {written} stood in for the value at each place: where that restores part of the "
    "gap, what the corrupt run has there holds the clean answer back.",
    "noise": "In the clean run {written} stood in for the value at each place: where that destroys part of the gap, "
    "the answer leans on what is there, be it something that both prompts share.",
}
"""Where something else than the other run's value is written."""
NO_GATES = (
    "No value of the other run was written, so this says neither what is sufficient nor what is an AND, an OR or a "
    "backup; for that leave replace out."
)
