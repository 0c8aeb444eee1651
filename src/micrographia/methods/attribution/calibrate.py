"""calibrate: some estimates checked by exact patching, and a plain sentence on how far to trust the others.

The largest estimates and a random sample of the rest are patched exactly. That gives, per kind of Site, the correlation
of estimate and effect, a bound on how many large effects are left unseen, and flags where estimate and effect part ways
for a reason: a place that was missed (saturation, or a gate that the gradient does not see), one that was overstated
(something else takes over: a backup), places that do more together than alone (an OR, or a backup) or less.
Sources: Kramar et al., "AtP*" (2024), sections 3.2 and 4.2; Heimersheim and Nanda (2024), section 3, for the gates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.answers import Metric
from micrographia.core.edits import Edit
from micrographia.core.events import Watch, silent
from micrographia.core.model import Model
from micrographia.core.pairs import Pairs
from micrographia.core.sweep import Patch, sweep
from micrographia.methods.attribution.agreement import Estimate, Missed, agreement, missed
from micrographia.methods.attribution.estimate import Attribution, Mode, sides_of
from micrographia.methods.attribution.passes import prompts_of
from micrographia.methods.attribution.spots import Spots, spots

LARGE = 0.1
"""An effect counts as large from this share of the largest that was measured. Our choice."""
APART = 0.4
"""Estimate and effect part ways where they differ by more than this share of the larger. Our choice: below a half, by
which the two inputs of a perfect gate, alone and together, differ."""
STREAM = frozenset({"embed", "pos_embed", "resid_pre", "resid_mid", "resid_post"})
CLOSE, ROUGH = 0.9, 0.6
"""Pearson's correlation from which estimates are called close, and rough. Our choice."""


Kind = Literal["missed", "overstated", "more together", "less together"]

ALONE: Mapping[Kind, str] = {
    "missed": "the gradient does not see it: saturation, a gate, or paths that cancel",
    "overstated": "its gradient says more than is there: saturation, or something else takes over",
}
TOGETHER: Mapping[Mode, Mapping[Kind, str]] = {
    "denoise": {
        "more together": "each needs the other (an AND)",
        "less together": "each is enough alone (an OR), or one acts through the other",
    },
    "noise": {
        "more together": "each covers for the other (an OR, a backup), so that alone they look idle",
        "less together": "each is needed alone (an AND), or one acts through the other",
    },
}
"""What a flag says of the mechanism, after Heimersheim and Nanda (2024), section 3."""


class Flag(NamedTuple):
    """Where estimate and effect part ways: means over prompts, in the metric's unit.

    "together" flags compare what places do at once with the sum of what they do alone, which stands as `estimate`.
    """

    kind: Kind
    patch: Patch
    estimate: float
    exact: float
    meaning: str

    def __str__(self) -> str:
        where = ", ".join(map(str, self.patch[:3])) + (", ..." if len(self.patch) > 3 else "")
        told = "alone they sum to" if len(self.patch) > 1 else "estimated"
        return f"{self.kind}: {where}: exact {self.exact:+.3g}, {told} {self.estimate:+.3g}; {self.meaning}"


class Checked(NamedTuple):
    """One kind of Site: what was estimated and what was measured, and how they agree."""

    kind: str
    patches: list[Patch]
    estimate: Float[Tensor, "place prompt"]
    exact: Float[Tensor, "place prompt"]
    n_top: int
    pearson: Estimate
    spearman: Estimate
    missed: Missed
    together: float
    """The mean effect of patching all these places at once."""


@dataclass(frozen=True, eq=False, slots=True)
class Calibration:
    """What the check found. `n_patches` is how many patched runs it took."""

    kinds: dict[str, Checked]
    flags: tuple[Flag, ...]
    unit: str
    n_prompts: int
    n_patches: int

    def __str__(self) -> str:
        return " ".join([*(sentence(each, self.unit) for each in self.kinds.values()), *self._warning()])

    def _warning(self) -> list[str]:
        if not self.flags:
            return []
        several = len(self.flags) > 1
        return [f"{len(self.flags)} flag{'s' * several}; the first: {self.flags[0]}."]


def calibrate(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    attribution: Attribution,
    *,
    budget: int,
    top: int,
    generator: Generator,
    draws: int = 1000,
    threshold: float | None = None,
    edits: Sequence[Edit] = (),
    watch: Watch = silent,
) -> Calibration:
    """Patches `budget` places exactly, the `top` largest estimates and the others by lot, evenly over kinds of Site.

    `threshold`: the effect, in the metric's unit, that must not be missed; by default a tenth of the largest measured
    of its kind. Cost: `budget` patched runs and one more per kind, restarted where they differ (`core.sweep`), and one
    run that keeps the Sites in question. `generator` draws places and the bootstrap's prompts. Errors: BadConfig for a
    budget below the number of kinds.
    """
    chosen = spots(attribution, budget=budget, top=top, generator=generator)
    patches = [patch for each in chosen for patch in [*each.patches, joint(each.patches)]]
    sides, prompt = sides_of(pairs, attribution.mode), prompts_of(pairs.clean)
    sites = list(dict.fromkeys(place.site for patch in patches for place in patch))
    donor = model.run(sides.donor, keep=sites, edits=edits, logits=metric.readout(prompt)).cache
    values = sweep(model, sides.base, patches, donor, [metric], edits=edits, watch=watch)[..., 0]
    effects = (values - attribution.base.to(values)).cpu().double()
    kinds: dict[str, Checked] = {}
    for each, effect in zip(chosen, effects.split([len(each.patches) + 1 for each in chosen])):
        kinds[each.kind] = _checked(each, effect, attribution.gives, threshold, generator, draws)
    flags = [flag for each in kinds.values() for flag in flags_of(each, attribution.mode, attribution.gives)]
    return Calibration(kinds, tuple(flags), metric.unit, len(pairs), len(patches))


def joint(patches: Sequence[Patch]) -> Patch:
    """All of them in one run."""
    return tuple(place for patch in patches for place in patch)


def _checked(
    each: Spots, effect: Tensor, gives: str, threshold: float | None, generator: Generator, draws: int
) -> Checked:
    exact, together = effect[:-1], float(effect[-1].mean())
    pair = [x.abs() if gives == "size" else x for x in (each.estimate, exact)]
    estimate, measured = (x.numpy() for x in pair)
    pearson, spearman = agreement(estimate, measured, each.weight.numpy(), generator=generator, draws=draws)
    sizes = exact.mean(1).abs()
    limit = LARGE * float(sizes.max()) if threshold is None else threshold
    drawn = sizes[each.n_top :]
    bound = missed(int((drawn > limit).sum()), len(drawn), each.n_rest, limit)
    return Checked(each.kind, each.patches, each.estimate, exact, each.n_top, pearson, spearman, bound, together)


def flags_of(each: Checked, mode: Mode, gives: str = "effect") -> list[Flag]:
    """Where estimate and effect part ways, the largest gap first; then whether the places do otherwise together.

    Places of the residual stream lie behind each other, so that what they do together says nothing.
    """
    estimate, exact = each.estimate.mean(1), each.exact.mean(1)
    found = []
    for patch, told, real in zip(each.patches, estimate.tolist(), exact.tolist()):
        if gives == "effect" and _apart(told, real, each.missed.threshold):
            kind: Kind = "missed" if abs(real) > abs(told) or told * real < 0 else "overstated"
            found.append(Flag(kind, patch, told, real, ALONE[kind]))
    found.sort(key=lambda flag: -abs(flag.exact - flag.estimate))
    alone, in_series = float(exact.sum()), each.kind.partition("[")[0] in STREAM
    if len(each.patches) > 1 and not in_series and _apart(alone, each.together, each.missed.threshold):
        kind = "more together" if abs(each.together) > abs(alone) else "less together"
        found.append(Flag(kind, joint(each.patches), alone, each.together, TOGETHER[mode][kind]))
    return found


def _apart(told: float, real: float, threshold: float) -> bool:
    larger = max(abs(told), abs(real))
    return larger > threshold and abs(told - real) > APART * larger


def sentence(each: Checked, unit: str) -> str:
    """How far to trust the estimates of this kind, in plain words."""
    n_drawn = len(each.patches) - each.n_top
    words = (
        f"{each.kind}: the estimates {trust(each.pearson.value)} (Pearson {each.pearson}; {len(each.patches)} places "
        "patched)."
    )
    if not each.missed.of:
        return f"{words} Every place was patched."
    if not n_drawn:
        return f"{words} None of the other {each.missed.of} places was patched, so nothing is known about them."
    return (
        f"{words} Of the other {each.missed.of} places {n_drawn} were drawn and {each.missed.hits} had an effect above "
        f"{each.missed.threshold:.3g} {unit}; with 95 % confidence at most {each.missed.most} have."
    )


def trust(pearson: float) -> str:
    if math.isnan(pearson):
        return "cannot be judged, for nothing varied"
    if pearson >= CLOSE:
        return "follow the exact effects closely"
    return "say roughly what to patch, no more" if pearson >= ROUGH else "are not to be trusted"
