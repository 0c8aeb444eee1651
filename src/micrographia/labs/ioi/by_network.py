"""What the claims about networks stand on: each figure taken within one network, and only then over networks.

Both sides of a difference are of the same behaviours of the same network. Where the null is the same figure for a
control, it is taken off as far as it is above zero: what a control gives as well shows nothing, and a control that does
badly lends nothing. Every row has the figure that is judged, the plain one, and what the null gives.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from micrographia.labs.ioi.circuit import RANDOM, Circuits
from micrographia.labs.ioi.network import BY_SIZE, CHANGE, Studied
from micrographia.labs.ioi.roles import Role
from micrographia.labs.ioi.spots import METHODS

Cell = tuple[str, str]
"""A kind of Site, and what estimates its effects."""
Behaviours = Mapping[str, Studied]
Roles = Mapping[str, Role]


class Taken(NamedTuple):
    """Of one network; NaN where it cannot be told."""

    judged: float
    plain: float
    null: float


Taking = Callable[[Behaviours, Roles], Taken]


def by_network(studied: Sequence[Behaviours], roles: Sequence[Roles]) -> dict[str, list[Taken]]:
    """Claim -> its figure in each network that learned something."""
    known = [(each, own) for each, own in zip(studied, roles, strict=True) if each]
    return {claim: [take(each, own) for each, own in known] for claim, take in TAKINGS.items()}


def beyond(plain: float, null: float) -> float:
    """What is left without the null; a null below zero is none.

    >>> [beyond(0.5, 0.25), beyond(0.5, -0.25), beyond(-0.5, -0.75)]
    [0.25, 0.5, -0.5]
    """
    return plain if null <= 0 else plain - null


def _better(one: Cell, other: Cell, control: tuple[Cell, Cell]) -> Taking:
    """How much better `one` correlates with exact effects than `other`, beyond the same of a control."""

    def take(behaviours: Behaviours, roles: Roles) -> Taken:
        plain, null = _means([_apart(each, (one, other)), _apart(each, control)] for each in behaviours.values())
        return Taken(beyond(plain, null), plain, null)

    return take


def _gain(site: str, method: str) -> Taking:
    """How much better a method correlates than attribution patching, whose own correlation stands beside it."""

    def take(behaviours: Behaviours, roles: Roles) -> Taken:
        fixed, own = _means(
            [_correlation(each, (site, way)) for way in (method, "atp")] for each in behaviours.values()
        )
        return Taken(fixed - own, fixed - own, own)

    return take


def _mirror(behaviours: Behaviours, roles: Roles) -> Taken:
    """The median over behaviours of what denoising and noising differ by, less that between halves of the prompts."""
    rows = [(each.mirror - each.mirror_null, each.mirror, each.mirror_null) for each in behaviours.values()]
    return Taken(*_medians(rows))


def _found_twice(behaviours: Behaviours, roles: Roles) -> Taken:
    """The median over kinds of head that either way finds of their agreement, less that by lot."""
    found = [(role.agreement, role.agreement_by_lot) for role in roles.values() if not math.isnan(role.agreement)]
    return Taken(*_medians([(own - lot, own, lot) for own, lot in found]))


def _small(behaviours: Behaviours, roles: Roles) -> Taken:
    """The share of live parts in the smallest faithful circuit for ioi, and in orders drawn at random."""
    circuits = behaviours["ioi"].circuits if "ioi" in behaviours else None
    if circuits is None:
        return NOT_TOLD
    chosen = circuits.chosen
    return Taken(chosen.share, chosen.share, chosen.by_lot / chosen.of)


def _worst_beside_chance(behaviours: Behaviours, roles: Roles) -> Taken:
    """CMD of the worst kind of attribution less that of chance; beside it exact patching's."""
    names = (RANDOM, "exact", *METHODS)
    chance, exact, *estimated = _means(
        [_cmd(each.circuits, "nodes", name) for name in names] for each in behaviours.values()
    )
    return Taken(max(estimated) - chance, max(estimated) - chance, exact - chance)


def _integrated_edges(behaviours: Behaviours, roles: Roles) -> Taken:
    """CMD of EAP less that of EAP-IG; beside it how much EAP leaves to gain on chance."""
    names = ("eap", "eap-ig", RANDOM)
    plain, integrated, chance = _means(
        [_cmd(each.circuits, "edges", name) for name in names] for each in behaviours.values()
    )
    return Taken(plain - integrated, plain - integrated, chance - plain)


def _apart(each: Studied, pair: tuple[Cell, Cell]) -> float:
    return _correlation(each, pair[0]) - _correlation(each, pair[1])


def _correlation(each: Studied, cell: Cell) -> float:
    kind, method = cell
    return each.trust[kind][method].pearson


def _cmd(circuits: Circuits | None, members: str, method: str) -> float:
    return math.nan if circuits is None else getattr(circuits, members)[method].cmd


def _means(rows: Iterable[Sequence[float]]) -> list[float]:
    """Column by column, over the rows that are known in full; at least one row is given."""
    every = np.array(list(rows))
    known = every[~np.isnan(every).any(1)]
    return (known.mean(0) if len(known) else np.full(every.shape[1], math.nan)).tolist()


def _medians(rows: Sequence[tuple[float, float, float]]) -> list[float]:
    return np.median(np.array(rows), axis=0).tolist() if rows else list(NOT_TOLD)


NOT_TOLD = Taken(math.nan, math.nan, math.nan)
TAKINGS: Mapping[str, Taking] = {
    **{
        claim: _better((one, BY_SIZE), (other, BY_SIZE), ((one, CHANGE), (other, CHANGE)))
        for claim, one, other in (
            ("heads-before-stream", "z", "resid_pre"),
            ("neurons-before-mlp-outputs", "neurons", "mlp_out"),
            ("values-before-queries", "v", "q"),
        )
    },
    "qk-fix-helps-queries": _gain("q", "atp-qk"),
    "qk-fix-helps-keys": _gain("k", "atp-qk"),
    **{
        claim: _better((site, "relp"), (site, "atp"), (("attn_out", "relp"), ("attn_out", "atp")))
        for claim, site in (("relp-helps-mlp-outputs", "mlp_out"), ("relp-helps-stream", "resid_pre"))
    },
    "denoising-is-not-noising": _mirror,
    "heads-found-twice": _found_twice,
    "small-circuit": _small,
    "attribution-beats-chance": _worst_beside_chance,
    "eap-ig-before-eap": _integrated_edges,
}
