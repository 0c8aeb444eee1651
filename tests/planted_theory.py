"""What else theory says of planted circuits: attention shares, the edges that are missed, what a calibration flags.

Derived where the circuits stand (`labs/planted`); eap and eap-ig are edges, by the gradient at the base run, and by its
mean along the path between the inputs.
"""

from collections.abc import Mapping
from math import exp
from typing import Literal

from micrographia.core.graph import Edge
from micrographia.core.titles import Mode
from micrographia.labs.planted.found import AFTER, AFTER_OTHER, MATCH
from micrographia.labs.planted.hidden import AWAKE, END, LEFT, RIGHT, SOURCE
from micrographia.labs.planted.planted import PlantedPart, edges, heads
from micrographia.labs.planted.theory import MODES


def induction_shares() -> tuple[float, float]:
    """P and q of `induction`: the attention of the match, and that of each other position."""
    return exp(MATCH) / (exp(MATCH) + 5), 1 / (exp(MATCH) + 5)


def backup_shares() -> tuple[float, float]:
    """w and r of `backup`: the backup's attention to the source, awake and at rest."""
    return 1 / (1 + 4 * exp(-AWAKE)), 1 / (1 + 4 * exp(AWAKE))


_FLAGGED: dict[
    tuple[str, Mode], dict[str, tuple[PlantedPart, ...]]
] = {  # what a single patch shows atp to be wrong about
    # the one of two keys that has little attention at the base: 0.28 of its effect
    ("induction", "denoise"): {"missed": heads("z", 0, 0, AFTER)},
    ("induction", "noise"): {"missed": heads("z", 0, 0, AFTER_OTHER)},
    ("backup", "noise"): {"overstated": (*heads("z", 0, 0, END), *heads("v", 0, 0, SOURCE))},
    **{
        ("saturated", mode): {
            "missed": (*heads("z", 0, 0, END), *heads("q", 1, 0, END), *heads("k", 1, 1, LEFT, RIGHT))
        }
        for mode in MODES
    },
    **{("cancelling", mode): {"missed": heads("z", 0, 0, END)} for mode in MODES},
}
_TOGETHER: dict[tuple[str, Mode], tuple[str, ...]] = {  # kinds whose places do more at once than one by one
    ("and", "denoise"): ("z",),
    ("or", "noise"): ("z",),
    ("backup", "noise"): ("z", "v"),
}

EdgeWay = Literal["eap", "eap-ig"]
EDGE_WAYS: tuple[EdgeWay, ...] = ("eap", "eap-ig")
_INTO_THE_GATE = ("input -> L0.v[0]", "input -> L0.v[1]", "L0.z[0] -> L1.mlp_pre", "L0.z[1] -> L1.mlp_pre")
_MISSED_EDGES: dict[tuple[str, Mode | None], dict[EdgeWay, tuple[str, ...]]] = {
    ("and", "denoise"): {"eap": _INTO_THE_GATE},
    ("or", "noise"): {"eap": _INTO_THE_GATE},
    # what inhibits the backup is worth nothing where the backup has nothing to say (corrupt), or is asleep (clean)
    ("backup", "denoise"): {"eap": ("L0.z[0] -> L1.q[0]", "L1.z[0] -> logits"), "eap-ig": ("L1.z[0] -> logits",)},
    ("backup", "noise"): {
        "eap": ("L0.z[0] -> L1.q[0]", "input -> L1.v[0]", "L1.z[0] -> logits"),
        "eap-ig": ("L1.z[0] -> logits",),
    },
    ("saturated", None): {"eap": ("input -> L0.v[0]", "L0.z[0] -> L1.q[0]", "input -> L1.k[1]")},
    ("cancelling", None): {"eap": ("input -> L0.v[0]",)},
}


def flagged_in_theory(name: str, mode: Mode) -> Mapping[str, frozenset[PlantedPart]]:
    """What a calibration of `atp` against single patches should call missed (or far too small) and overstated."""
    return {kind: frozenset(parts) for kind, parts in _FLAGGED.get((name, mode), {}).items()}


def more_together_in_theory(name: str, mode: Mode) -> frozenset[str]:
    """The kinds of Site of which single patches, exact ones too, hide an AND, an OR or a backup."""
    return frozenset(_TOGETHER.get((name, mode), ()))


def edges_missed_in_theory(name: str, way: EdgeWay, mode: Mode) -> frozenset[Edge]:
    """The edges of this planted circuit that edge attribution does not find."""
    return frozenset(edges(*(text for m in (mode, None) for text in _MISSED_EDGES.get((name, m), {}).get(way, ()))))
