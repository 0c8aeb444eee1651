"""Sentences on effects: nothing that the numbers beside them do not show."""

from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.core.effects import EffectMap
from micrographia.core.prompts import Baselines
from micrographia.core.spoken import at_position
from micrographia.core.titles import MODES, WRITTEN, Mode
from micrographia.methods.explain import percent

LEAST = {"logits": 0.1, "nats": 0.1, "probability": 0.01}
"""By the unit of a metric: a smaller gap is hardly one. Our choice."""
FALLING = ("KL divergence", "rank")
"""Metrics that fall as the answer improves."""
DIFFERENCES = ("logit difference", "probability difference")
NOT_EXPLAINED = "Sufficiency and necessity are not reported: see the warning on the gap in the summary."
UNCHECKED = "No estimate was checked: with `verify` some are, by exact patches."
SINK_DIFFERS = (
    "Warning: the prompts differ at position 0, an attention sink: a patch there changes what every head attends to, "
    "and estimates are worst there."
)
SINK_REPLACED = (
    "Warning: {written} at position 0 breaks an attention sink, and with it the model: an effect there does not show "
    "that it holds anything about the answer."
)
SINK_BLURRED = (
    "Warning: the subject begins at position 0, an attention sink: the noise changes it too, and what is restored "
    "there may be the sink and not the fact. Put a word before the subject."
)
CERTAIN = (
    "Every place that was patched restores or destroys everything by construction: it is the whole residual stream. "
    "Patch it by position, or its parts."
)
AGAINST, REVERSED = "works against the answer and ", "works the other way and "

Row = Mapping[str, Any]


def doubts(baselines: Baselines) -> list[str]:
    """Why shares of this gap mean little; empty where there is no reason."""
    clean, corrupt = float(baselines.clean.mean()), float(baselines.corrupt.mean())
    name, unit = baselines.metric.name, baselines.metric.unit
    side, sign = ("below", -1) if name in FALLING else ("above", 1)
    found = {
        f"the clean baseline is not {side} the corrupt one": sign * (clean - corrupt) <= 0,
        "the model prefers the wrong answer on the clean prompts": name in DIFFERENCES and clean <= 0,
        f"the gap is tiny, below {LEAST.get(unit)} {unit}": abs(clean - corrupt) < LEAST.get(unit, 0.0),
    }
    return [text for text, holds in found.items() if holds]


def opening(baselines: Baselines, n: int) -> list[str]:
    """The gap, and a warning where it means little."""
    clean, corrupt = float(baselines.clean.mean()), float(baselines.corrupt.mean())
    over = "one prompt pair, so there is no spread" if n == 1 else f"{n} prompt pairs, ± their standard deviation"
    name, unit = baselines.metric.name, f" {baselines.metric.unit}"
    unit = "" if unit.strip() in name else unit
    sentences = [
        f"The {name} is {clean:.4g}{unit} on the clean prompts and {corrupt:.4g} on the corrupt ones; "
        f"effects are shares of that gap, over {over}."
    ]
    if found := doubts(baselines):
        sentences.append(
            f"Warning: {'; '.join(found)}. Shares of such a gap do not show how the model finds its answer; take "
            "prompts that it answers correctly."
        )
    return sentences


def _largest(rows: Sequence[Row]) -> list[tuple[Mode, Row, float, float | None]]:
    """By direction the row of largest share, of those that have one, with that share and the exact one beside it."""
    found = []
    for mode, (verb, *_) in MODES.items():
        if shares := [row for row in rows if row.get(verb) is not None]:
            row = max(shares, key=lambda row: abs(row[verb]))
            found.append((mode, row, row[verb], row.get(f"{verb}_exactly")))
    return found


def strongest_patches(rows: Sequence[Row], among: str, replace: str = "other", metric: str = "gap") -> list[str]:
    """The largest exact effect of each direction, `among` these places."""
    sentences = []
    for mode, row, share, _ in _largest(rows):
        sd, told = row.get(f"{mode}_sd"), percent(share)
        change = "" if sd is None else f" (a change of {row[f'{mode}_change']:.3g} ± {sd:.2g})"
        against = (AGAINST if replace == "other" else REVERSED) if told.startswith("-") else ""
        done, effect = DONE[mode] if replace == "other" else (f"Writing {WRITTEN[replace]} at", DONE[mode][1])
        sentences.append(f"{done} {_at(row)} {against}{effect} {told} of the {metric}{change}, the most of {among}.")
    return sentences


ESTIMATED: Mapping[Mode, str] = {"denoise": "restores", "noise": "destroys"}
DONE: Mapping[Mode, tuple[str, str]] = {"denoise": ("Denoising", "recovers"), "noise": ("Noising", "removes")}


def among(maps: Sequence[EffectMap]) -> str:
    """Of what a place is the largest: "any head and position", or how many places of how many kinds there are."""
    if len(maps) > 1:
        return f"{sum(each.size for each in maps):,} places"
    words = {"pos": "position", "query": "query", "key": "key", "unit": "unit", "head": "head", "layer": "layer"}
    axes = [axis for axis in reversed(words) if axis in maps[0].axes]
    named = [words[axis] for axis in axes if not (axis == "layer" and {"head", "unit"} & {*axes})]
    return f"any {' and '.join([', '.join(named[:-1]), named[-1]] if len(named) > 1 else named)}" if named else "one"


def are_sizes(rows: Sequence[Row]) -> bool:
    """Whether scores rank places and are no effects, as the rows say."""
    return bool(rows) and rows[0].get("gives") == "size"


def strongest_estimates(rows: Sequence[Row]) -> list[str]:
    """The largest estimated effect of each direction, with the exact one where it was measured; a negative share works
    against the answer. Of scores that are sizes the largest of all.
    """
    if are_sizes(rows):
        return [f"{_at(rows[0])} has the largest score. Scores rank places; they do not estimate effects."]
    sentences = []
    for mode, row, share, exact in _largest(rows):
        told, measured = percent(share, 1), "" if exact is None else f" (exact: {percent(exact, 1)})"
        does = f"{AGAINST if told.startswith('-') else ''}{ESTIMATED[mode]} {told} of the gap"
        sentences.append(f"By the estimate {_at(row)} {does}{measured}, the most.")
    return sentences


def _at(row: Row) -> str:
    """A place as people call it, with its token."""
    name = f"the {row['part']}" if row["part"].startswith("stream") else row["part"]
    return name + (f" at {at_position([row['token']], 0)}" if row.get("token") else "")


def explanation(modes: Sequence[Mode], replace: str = "other") -> list[str]:
    """What each direction shows, and what it does not."""
    if replace == "other":
        return [EXPLAINED[mode] for mode in modes] + ([BOTH] if len(modes) > 1 else [])
    return [*(REPLACED[mode].format(written=WRITTEN[replace]) for mode in modes), NO_GATES]


EXPLAINED: Mapping[Mode, str] = {
    "denoise": "Denoising puts a clean value into the corrupt run: what restores the answer is sufficient for it.",
    "noise": "Noising puts a corrupt value into the clean run: what destroys the answer is necessary for it.",
}
BOTH = (
    "The two are not mirror images: of redundant components each is sufficient and none is necessary; of components "
    "that are all needed, each is necessary and none is sufficient."
)
REPLACED: Mapping[Mode, str] = {
    "denoise": "In the corrupt run {written} replaced the value at each place: where that restores part of the gap, "
    "the value of the corrupt run there suppresses the clean answer.",
    "noise": "In the clean run {written} replaced the value at each place: where that destroys part of the gap, the "
    "answer depends on that value, even if both prompts share it.",
}
"""Where something else than the other run's value is written."""
NO_GATES = (
    "No value of the other run was written, so nothing is shown about sufficiency, AND, OR or backups; for that leave "
    "replace out."
)
