"""The figure of each published claim beside its null: Lieberum et al. 2024 (arXiv 2408.05147), section 4 in its order.

Most are shares of comparisons: of two dictionaries that are alike but for what the claim is about, how often the one is
better. A share of one half is what chance gives. What a Run has no two of is not taken, and its claim is not run.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from micrographia.core.claims import Measured, Measures
from micrographia.labs.gemma_scope.evaluate import FREQUENT, Measurement

CLAIMS = Path(__file__).with_name("claims.toml")
RESIDUAL = "resid_post"
NOT_TAKEN = Measured(None, taken=False)
Key = Callable[[Measurement], Any]
Pair = tuple[Measurement, Measurement]


def measures(
    trained: Sequence[Measurement], untrained: Sequence[Measurement], transcoders: Sequence[Measurement] = ()
) -> Measures:
    """Each claim's figure. `untrained`: the same recipes on the model without its training, as far as there are."""
    wider = pairs(trained, lambda a: (a.member.site, a.member.l0), lambda a: a.member.width)
    return {
        "denser-is-truer": share(
            pairs(trained, lambda a: (a.member.site, a.member.width), lambda a: a.l0),
            lambda fewer, more: more.fidelity.delta_loss < fewer.fidelity.delta_loss,
        ),
        "residual-costs-most": residual_most(trained, lambda a: a.fidelity.delta_loss),
        "fvu-alike": alike(trained),
        "residual-mean-costs-most": residual_most(trained, lambda a: a.mean.delta_loss),
        "wider-is-truer": share(wider, lambda narrow, wide: wide.fidelity.fvu < narrow.fidelity.fvu),
        "wider-fires-less": share(wider, lambda narrow, wide: float(wide.live.median()) < float(narrow.live.median())),
        "ultra-frequent": ultra_frequent(trained),
        "beats-linear": beats(trained, lambda a: a.linear and a.linear.fvu),
        "beats-random": beats(trained, lambda a: a.random.fvu),
        "untrained-is-worse": against_untrained(trained, untrained),
        "transcoders-cost-more": share(
            beside(trained, transcoders), lambda own, other: other.fidelity.delta_loss > own.fidelity.delta_loss
        ),
    }


def pairs(found: Sequence[Measurement], alike: Key, order: Key) -> list[Pair]:
    """Every two neighbours in `order` among those that are alike."""
    groups: dict[Any, list[Measurement]] = {}
    for each in sorted(found, key=order):
        groups.setdefault(alike(each), []).append(each)
    return [(one, other) for group in groups.values() for one, other in pairwise(group)]


def share(of: Sequence[Pair], holds: Callable[[Measurement, Measurement], bool], null: float = 0.5) -> Measured:
    """In how many of the pairs it holds."""
    return Measured(sum(holds(*pair) for pair in of) / len(of), null) if of else NOT_TAKEN


def residual_most(found: Sequence[Measurement], value: Callable[[Measurement], float]) -> Measured:
    """Section 4.1: of the sites of a layer at one width and L0, how often the residual stream has the largest value."""
    full = [group for group in _same_layer(found) if len(group) > 1 and RESIDUAL in group]
    if not full:
        return NOT_TAKEN
    first = [max(group, key=lambda kind: value(group[kind])) == RESIDUAL for group in full]
    return Measured(sum(first) / len(full), sum(1 / len(group) for group in full) / len(full))


def _same_layer(found: Sequence[Measurement]) -> Iterator[dict[str, Measurement]]:
    """Site -> its dictionary, for each layer, width and L0."""

    def key(each: Measurement) -> tuple[int, int, float]:
        return each.member.site.layer or 0, each.member.width, each.member.l0

    for _, group in groupby(sorted(found, key=key), key):
        yield {each.member.site.kind: each for each in group}


def alike(found: Sequence[Measurement]) -> Measured:
    """Section 4.1: the median FVU of the worst site over that of the best, beside the same of the delta loss."""
    kinds = dict.fromkeys(each.member.site.kind for each in found)
    if len(kinds) < 2:
        return NOT_TAKEN

    def ratio(value: Callable[[Measurement], float]) -> float:
        middle = [median(value(each) for each in found if each.member.site.kind == kind) for kind in kinds]
        return max(middle) / min(middle) if min(middle) > 0 else math.nan

    return Measured(ratio(lambda a: a.fidelity.fvu), ratio(lambda a: a.fidelity.delta_loss))


def ultra_frequent(found: Sequence[Measurement]) -> Measured:
    """Section 4.3: the share of latents above one firing in ten tokens, in the widest of the residual stream.

    Beside it the share that a log-normal distribution of the same quartiles has there: a cluster has more.
    """
    own = [each for each in found if each.member.site.kind == RESIDUAL]
    wide = [each for each in own if each.member.width == max(a.member.width for a in own) and len(each.live) > 1]
    if not wide:
        return NOT_TAKEN
    expected = [log_normal_above(each) for each in wide]
    there, null = median(each.frequent for each in wide), median(expected)
    return Measured(there - null, null, raw=there)


def log_normal_above(each: Measurement, bound: float = FREQUENT) -> float:
    """The share of all latents above `bound` if the live ones were log-normal with their quartiles."""
    low, middle, high = each.live.log10().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    deviation = (high - low) / 1.349  # of a normal distribution
    z = (math.log10(bound) - middle) / deviation if deviation > 0 else math.inf
    return len(each.live) / len(each.frequencies) * 0.5 * math.erfc(z / math.sqrt(2))


def beats(found: Sequence[Measurement], baseline: Callable[[Measurement], float | None]) -> Measured:
    """How many dictionaries have a lower FVU than a baseline at their L0; beside it the baseline's median FVU."""
    known = [(each.fidelity.fvu, other) for each in found if (other := baseline(each)) is not None]
    if not known:
        return NOT_TAKEN
    return Measured(sum(own < other for own, other in known) / len(known), median(other for _, other in known))


def against_untrained(trained: Sequence[Measurement], untrained: Sequence[Measurement]) -> Measured:
    """How many dictionaries of the model have a lower FVU than that of the same recipe without its training."""
    matched = [(each.fidelity.fvu, other.fidelity.fvu) for each, other in matching(trained, untrained)]
    if not matched:
        return NOT_TAKEN
    return Measured(sum(own < other for own, other in matched) / len(matched), 0.5)


def beside(trained: Sequence[Measurement], transcoders: Sequence[Measurement]) -> list[Pair]:
    """Each transcoder behind the autoencoder of what it writes, of the same width and L0."""
    own = {each.member: each for each in trained}
    both = [(each.member._replace(site=each.member.place.write, target=None), each) for each in transcoders]
    return [(own[member], each) for member, each in both if member in own]


def matching(trained: Sequence[Measurement], untrained: Sequence[Measurement]) -> list[Pair]:
    """Those of one site, width and L0, with training and without."""
    others = {each.member: each for each in untrained}
    return [(each, others[each.member]) for each in trained if each.member in others]
