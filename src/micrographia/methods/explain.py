"""Verbal interpretation of patching results: sufficient or necessary, AND or OR gates, backup.

Denoising finds components that are *sufficient* to restore a behaviour, noising those that are *necessary* for it. Two
components that are both needed (AND) have an effect under noising, but not under denoising one at a time; two of which
either suffices (OR) have an effect under denoising, but not under noising one at a time. A component that takes over
when another is ablated (a backup) hides the other from single ablations. Pure functions of numbers: no model is run
here.
Source: Heimersheim and Nanda, "How to use and interpret activation patching" (2024, 2404.15255), sections 2 and 3.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import BadShape

SHOWS = 0.03
"""The fraction of the gap between the runs below which an effect counts as none. Our choice; pass another if needed."""
GATE = 0.1
"""The fraction that a part of a gate has at least."""
ALIKE, CLEAR = 1.5, 3.0
"""Ratios of two effects: below the one they are alike, from the other on one is clearly larger. In between it is too
close to call, unless a spread over prompts tells them apart. Our choice."""
SLIGHT = 0.1
"""Of the effect of the other sign: what is less does not count against it."""
SPREADS = 2.0
"""Standard errors by which a difference is beyond chance."""

Sufficiency = Literal[
    "sufficient and necessary", "sufficient", "necessary", "too close to call", "works against", "both ways",
    "not seen alone",
]  # fmt: skip
Gate = Literal["AND", "OR", "backup", "redundant"]


class PairEffects(NamedTuple):
    """Effects as fractions of the gap between clean and corrupt run, by component.

    `denoise`: the fraction restored by patching the component from the clean run into the corrupt one. `noise`: the
    fraction lost by patching it from the corrupt run into the clean one. `joint_*`: the same for two components at
    once, NaN where not measured. `estimate`: the attribution score for `noise`. `error`: the standard error of
    `denoise` less `noise` over the prompts; NaN or None with one pair.
    """

    names: Sequence[str]
    denoise: Float[Tensor, "part"]
    noise: Float[Tensor, "part"]
    joint_denoise: Float[Tensor, "part part"] | None = None
    joint_noise: Float[Tensor, "part part"] | None = None
    estimate: Float[Tensor, "part"] | None = None
    error: Float[Tensor, "part"] | None = None


class Word(NamedTuple):
    """The interpretation of one component, or of two."""

    parts: tuple[str, ...]
    reading: Sufficiency | Gate
    sentence: str


def percent(share: float, places: int = 0) -> str:
    """A fraction as a percentage, without a minus sign before zero.

    >>> percent(-0.45), percent(-0.0004, 1)
    ('-45%', '0.0%')
    """
    told = f"{share:.{places}%}"
    return told if told.strip("-0.%") else told.lstrip("-")


def explain(effects: PairEffects, *, shows: float = SHOWS, dependent: Collection[tuple[int, int]] = ()) -> list[Word]:
    """A sentence for each component, then one for each pair that looks like a gate or a backup.

    `shows`: the fraction of the gap from which an effect counts. `dependent`: pairs (i < j) that are no gates whatever
    their effects, as entries of one softmax, which must sum to 1. Raises BadShape where the numbers do not fit the
    names.
    """
    _check(effects)
    singles = [_single(effects, i, shows) for i in range(len(effects.names))]
    twos = [two for two in combinations(range(len(effects.names)), 2) if two not in dependent]
    pairs = [_pair(effects, i, j, max(shows, GATE)) for i, j in twos]
    return [*singles, *(word for word in pairs if word is not None)]


def _single(effects: PairEffects, i: int, shows: float) -> Word:
    d, n = effects.denoise[i].item(), effects.noise[i].item()
    reading = _reading(d, n, shows, None if effects.error is None else effects.error[i].item())
    name = effects.names[i]
    numbers = f"Denoising {name} restores {percent(d)} of the gap, noising it loses {percent(n)}"
    return Word((name,), reading, f"{numbers}: {SENTENCES[reading]}{_doubt(effects, i, n, shows)}")


def _reading(d: float, n: float, shows: float, error: float | None) -> Sufficiency:
    """Neighbouring numbers never give opposite readings: between any two of these lies one that decides nothing."""
    low, high = sorted((d, n))
    if max(high, -low) < shows:
        return "not seen alone"
    if -low >= max(shows, SLIGHT * high):
        return "both ways" if high >= max(shows, -SLIGHT * low) else "works against"
    ratio = high / low if low > 0 else math.inf
    if ratio < ALIKE:
        return "sufficient and necessary"
    told = error is not None and error == error and high - low > SPREADS * error
    if high < GATE or not (told or (ratio >= CLEAR and (error is None or error != error))):
        return "too close to call"
    return "sufficient" if d > n else "necessary"


SENTENCES: Mapping[str, str] = {
    "sufficient and necessary": "that much of the difference between the prompts is carried here, and the answer "
    "depends on it to that extent.",
    "sufficient": "it is sufficient to that extent, but the answer survives without it, so something else "
    "carries it too (as in an OR).",
    "necessary": "the answer needs it, but it is not sufficient, so something else is needed too (as in an AND).",
    "works against": "it pushes the answer away from the clean one.",
    "too close to call": "whether something else carries it too (as in an OR) or is needed too (as in an AND) is too "
    "close to call.",
    "both ways": "it supports the answer in one direction and works against it in the other, so its effect "
    "depends on the other components.",
    "not seen alone": "alone it has hardly any effect. That does not show that it plays no part: another component may "
    "replace it (OR, backup) or be missing (AND).",
}


def _doubt(effects: PairEffects, i: int, n: float, shows: float) -> str:
    """A remark where the estimate exceeds the exact ablation: something compensates for the loss."""
    if effects.estimate is None or effects.estimate[i].item() - n < shows:
        return ""
    return (
        f" The linear estimate of the loss is {percent(effects.estimate[i].item())}: more than is lost, as when a "
        "later component compensates (self-repair) or an effect saturates."
    )


def _pair(effects: PairEffects, i: int, j: int, shows: float) -> Word | None:
    d, n = ([x[i].item(), x[j].item()] for x in (effects.denoise, effects.noise))
    both_d, both_n = _measured(effects.joint_denoise, i, j), _measured(effects.joint_noise, i, j)
    gate = _gate(d, n, both_d, both_n, shows)
    if gate is None:
        return None
    names = (effects.names[i], effects.names[j])
    if gate == "backup" and d[1] > d[0]:
        names = (names[1], names[0])
    numbers: dict[str, Any] = {"d": list(map(percent, d)), "n": list(map(percent, n))}
    numbers |= {"min_d": percent(min(d)), "max_n": percent(max(n))}
    numbers["both_d"] = "" if both_d is None else f", both together {percent(both_d)}"
    numbers["both_n"] = percent(math.nan if both_n is None else both_n)
    return Word(names, gate, PAIR_SENTENCES[gate].format(*names, **numbers))


def _gate(
    d: Sequence[float], n: Sequence[float], both_d: float | None, both_n: float | None, shows: float
) -> Gate | None:
    """The gate that two components look like: each under denoising, each under noising, both (None: not measured)."""
    if _far(min(n), max(d), shows) and (both_d is None or _far(both_d, max(d), shows)):
        return "AND"  # each is necessary, neither is sufficient; together they are, if that was measured
    if both_n is None or both_n - sum(max(x, 0.0) for x in n) < shows:
        return None
    if _far(min(d), max(n), shows):
        return "OR"
    # a backup: one carries the answer, and the other has little or no effect unless the first is ablated
    return "backup" if _far(max(d), max(min(d), *n), shows) else "redundant"


def _far(more: float, less: float, shows: float) -> bool:
    """Whether one effect counts and is clearly larger than the other."""
    return more >= shows and more >= CLEAR * max(less, 0.0)


PAIR_SENTENCES: Mapping[Gate, str] = {
    "AND": "{0} and {1} look like an AND: noising either loses {n[0]} and {n[1]}, while denoising them one at a time "
    "restores {d[0]} and {d[1]}{both_d}.",
    "OR": "{0} and {1} look like an OR: denoising either restores {d[0]} and {d[1]}, noising one at a time loses "
    "{n[0]} and {n[1]}, both together {both_n}.",
    "backup": "{1} looks like a backup of {0}: noising one at a time loses at most {max_n}, both together {both_n}, "
    "and denoising {1} alone restores only {min_d}. Ablating one part at a time understates both (self-repair).",
    "redundant": "{0} and {1} are partly redundant: noising both loses {both_n}, more than the {n[0]} and {n[1]} that "
    "are lost one at a time.",
}


def _measured(joint: Tensor | None, i: int, j: int) -> float | None:
    value = None if joint is None else joint[i, j].item()
    return None if value is None or value != value else value


def _check(effects: PairEffects) -> None:
    n = len(effects.names)
    shapes = [tuple(x.shape) for x in effects[1:] if x is not None]
    if any(shape not in ((n,), (n, n)) for shape in shapes):
        raise BadShape(f"{n} parts were named, but their effects have shapes {shapes}. Give one number per name.")
