"""Where estimate and effect part ways for a reason, and what a flag there says of the mechanism.

A place alone: missed (saturation, or a gate that the gradient does not see, or sees in part) or overstated. Places
together: they do more than the sum of what they do alone, or less. Those that were drawn are compared, and each Site
patched whole, and all of a kind: a gate shows in these whether or not its inputs were drawn.
Source: Heimersheim and Nanda, "How to use and interpret activation patching" (2024), section 3, for the gates.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from micrographia.core.sweep import Patch
from micrographia.methods.attribution.agreement import Estimate, Missed
from micrographia.methods.attribution.estimate import Mode

APART = 0.4
"""Estimate and effect part ways where they differ by more than this share of the larger. Our choice, and made after the
fact: it stood at 0.5 until a test of two perfect gates failed, for what two inputs do of which each is enough (or each
needed) is together exactly half of what they do alone, and rounding decided. On the planted circuits every number from
0.25 to 0.49 gives the same flags, which a test holds; from 0.5 on only what those gates do less together is lost."""
STREAM = frozenset({"embed", "pos_embed", "resid_pre", "resid_mid", "resid_post"})
"""One stream at several layers: patched whole it is the other run, and its places lie behind each other."""

Kind = Literal["missed", "overstated", "more together", "less together"]

PART = 0.1
"""An estimate of the effect's sign and of more than this share of it sees part of it. Our choice."""
UNSEEN = "the gradient does not see it: saturation, a gate, or paths that cancel"
SEEN_IN_PART = "the gradient sees part of it: saturation, a gate, or paths that cancel"
TURNED = "the gradient points the other way: a gate, or paths that cancel"
OVERSTATED = "its gradient says more than is there: saturation, or something else takes over"
TOGETHER: Mapping[Mode, Mapping[Kind, str]] = {
    "denoise": {
        "more together": "each needs the other (an AND)",
        "less together": "each is enough alone (an OR)",
    },
    "noise": {
        "more together": "each covers for the other (an OR, a backup), so that alone they look idle",
        "less together": "each is needed alone (an AND)",
    },
}
"""What a flag says of the mechanism, after Heimersheim and Nanda (2024), section 3."""
OR_ELSE: Mapping[Kind, str] = {
    "more together": "or estimates are too small where nothing was patched alone",
    "less together": "or estimates are too large where nothing was patched alone",
}


class Flag(NamedTuple):
    """Where estimate and effect part ways: means over prompts, in the metric's unit.

    "together" flags compare what places do at once with the sum of what they do alone, which stands as `estimate`:
    measured where that was done, else estimated. A place without `where` is a whole Site.
    """

    kind: Kind
    patch: Patch
    estimate: float
    exact: float
    meaning: str

    def __str__(self) -> str:
        where = ", ".join(map(str, self.patch[:3])) + (", ..." if len(self.patch) > 3 else "")
        told = "alone they sum to" if self.kind in OR_ELSE else "estimated"
        return f"{self.kind}: {where}: exact {self.exact:+.3g}, {told} {self.estimate:+.3g}; {self.meaning}"


class Whole(NamedTuple):
    """Places patched at once: the mean effect, and the sum of what they do alone as far as that is known."""

    patch: Patch
    alone: float
    exact: float
    all_measured: bool


class Checked(NamedTuple):
    """One kind of Site: what was estimated and what was measured, and how they agree."""

    kind: str
    patches: list[Patch]
    estimate: Float[Tensor, "place prompt"]
    exact: Float[Tensor, "place prompt"]
    n_top: int
    pearson: Estimate
    spearman: Estimate
    slope: float
    """Effect per estimate, which a correlation does not see; NaN where scores are sizes."""
    missed: Missed
    together: float
    """The mean effect of patching all these places at once."""
    wholes: tuple[Whole, ...] = ()
    """Each Site patched whole, and all of the kind; none for the residual stream, and where scores are sizes."""


def flags_of(each: Checked, mode: Mode, gives: str = "effect") -> list[Flag]:
    """Whether places do otherwise together; then where estimate and effect part ways, the largest gap first."""
    return [*_together(each, mode), *(_alone(each) if gives == "effect" else [])]


def _alone(each: Checked) -> list[Flag]:
    estimate, exact = each.estimate.mean(1), each.exact.mean(1)
    found = []
    for patch, told, real in zip(each.patches, estimate.tolist(), exact.tolist()):
        if _apart(told, real, each.missed.threshold):
            kind, meaning = _parted(told, real)
            found.append(Flag(kind, patch, told, real, meaning))
    return sorted(found, key=lambda flag: -abs(flag.exact - flag.estimate))


def _parted(told: float, real: float) -> tuple[Kind, str]:
    """Which way an estimate fails, and what that says; an estimate of about 0 has no sign to speak of."""
    if abs(told) <= PART * abs(real):
        return "missed", UNSEEN
    if told * real < 0:
        return "missed", TURNED
    return ("missed", SEEN_IN_PART) if abs(real) > abs(told) else ("overstated", OVERSTATED)


def _together(each: Checked, mode: Mode) -> list[Flag]:
    """Site by Site; then what was drawn, and the whole kind, if no narrower flag says the same."""
    if in_series(each.kind):
        return []
    limit = each.missed.threshold
    drawn = Whole(joint(each.patches), float(each.exact.mean(1).sum()), each.together, True)
    found = [flag for whole in each.wholes if len(whole.patch) == 1 for flag in _at_once(whole, mode, limit)]
    for whole in [drawn, *(whole for whole in each.wholes if len(whole.patch) > 1)]:
        told = {flag.kind for flag in found}
        found += [flag for flag in _at_once(whole, mode, limit) if flag.kind not in told]
    return found


def _at_once(whole: Whole, mode: Mode, threshold: float) -> list[Flag]:
    """Places of several Sites may lie behind each other, and then do less together as a matter of course."""
    kind: Kind = "more together" if abs(whole.exact) > abs(whole.alone) else "less together"
    several_sites = len({place.site for place in whole.patch}) > 1
    if whole.alone * whole.exact < 0:  # the other way round is no gate that theory knows
        return []
    if (several_sites and kind == "less together") or not _apart(whole.alone, whole.exact, threshold):
        return []
    meaning = TOGETHER[mode][kind] + ("" if whole.all_measured else f", {OR_ELSE[kind]}")
    return [Flag(kind, whole.patch, whole.alone, whole.exact, meaning)]


def _apart(told: float, real: float, threshold: float) -> bool:
    larger = max(abs(told), abs(real))
    return larger > threshold and abs(told - real) > APART * larger


def in_series(kind: str) -> bool:
    return kind.partition("[")[0] in STREAM


def joint(patches: Sequence[Patch]) -> Patch:
    """All of them in one run."""
    return tuple(place for patch in patches for place in patch)
