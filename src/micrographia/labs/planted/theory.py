"""What theory says of each method on each planted circuit: which roles it misses. Derived where the circuits stand.

A role is missed when one of its parts does not score above everything outside the circuit. Methods:
exact      one patch at a time
atp        the gradient at the base run times the change (attribution patching)
atp-qk     with the QK-fix at queries and keys (Kramar et al. 2024)
atp-star   with the QK-fix and GradDrop (the same)
ig         the mean gradient along the straight path between the inputs (integrated gradients)
relp       as atp, with attention patterns held still; without norms and with ReLU nothing else differs
eap, eap-ig   edges, by the gradient at the base run, and by its mean along the path between the inputs
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.graph import Edge
from micrographia.core.sites import Site
from micrographia.labs.planted.found import AFTER, AFTER_OTHER, chain, induction
from micrographia.labs.planted.gates import and_gate, or_gate
from micrographia.labs.planted.hidden import END, LEFT, RIGHT, SOURCE, backup, cancelling, saturated
from micrographia.labs.planted.planted import Part, Planted, edges, heads
from micrographia.methods.ranking import areas

Mode = Literal["denoise", "noise"]
Way = Literal["exact", "atp", "atp-qk", "atp-star", "ig", "relp"]
WAYS: tuple[Way, ...] = ("exact", "atp", "atp-qk", "atp-star", "ig", "relp")
MODES: tuple[Mode, ...] = ("denoise", "noise")

PLANTED: Mapping[str, Callable[[], Planted]] = MappingProxyType(
    {
        "chain": chain,
        "induction": induction,
        "and": and_gate,
        "or": or_gate,
        "backup": backup,
        "saturated": saturated,
        "cancelling": cancelling,
    }
)

_INPUTS = {"inputs"}
_ATTENTION = {"pointer", "query", "keys"}
_ASLEEP = {"backup", "backup's value"}
_MISSED: dict[tuple[str, Mode | None], dict[Way, set[str]]] = {  # None: in either mode
    ("induction", None): {"relp": {"previous token"}},
    ("and", "denoise"): {way: _INPUTS for way in WAYS if way != "ig"},
    ("or", "noise"): {way: _INPUTS for way in WAYS if way != "ig"},
    ("backup", "denoise"): {way: {"backup"} for way in WAYS},
    ("backup", "noise"): {
        "exact": {"primary", "primary's value", *_ASLEEP},
        "ig": {"backup"},
        **{way: _ASLEEP for way in WAYS if way not in ("exact", "ig")},
    },
    ("saturated", None): {"atp": _ATTENTION, "atp-qk": {"pointer"}, "atp-star": {"pointer"}, "relp": _ATTENTION},
    ("cancelling", None): {"atp": {"head"}, "atp-qk": {"head"}, "relp": {"head"}},
}

_FLAGGED: dict[tuple[str, Mode], dict[str, tuple[Part, ...]]] = {  # what a single patch shows atp to be wrong about
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


def missed_in_theory(name: str, way: Way, mode: Mode) -> frozenset[str]:
    """The roles of this planted circuit that this method does not find."""
    return frozenset().union(*(_MISSED.get((name, m), {}).get(way, set()) for m in (mode, None)))


def flagged_in_theory(name: str, mode: Mode) -> Mapping[str, frozenset[Part]]:
    """What a calibration of `atp` against single patches should call missed (or far too small) and overstated."""
    return {kind: frozenset(parts) for kind, parts in _FLAGGED.get((name, mode), {}).items()}


def more_together_in_theory(name: str, mode: Mode) -> frozenset[str]:
    """The kinds of Site of which single patches, exact ones too, hide an AND, an OR or a backup."""
    return frozenset(_TOGETHER.get((name, mode), ()))


def edges_missed_in_theory(name: str, way: EdgeWay, mode: Mode) -> frozenset[Edge]:
    """The edges of this planted circuit that edge attribution does not find."""
    return frozenset(edges(*(text for m in (mode, None) for text in _MISSED_EDGES.get((name, m), {}).get(way, ()))))


def missed(planted: Planted, scores: Mapping[Site, Tensor]) -> frozenset[str]:
    """The roles of which some part does not score above everything outside the circuit. Scores as in `cells`."""
    size, inside = cells(planted, scores)
    loudest = size[~inside].max()
    return frozenset(
        role for role, parts in planted.roles.items() if min(_size(scores, part) for part in parts) <= loudest
    )


def area(planted: Planted, scores: Mapping[Site, Tensor]) -> float:
    """Area under the ROC curve of |mean score| over all places of `planted.sites`: 1 puts the circuit first."""
    size, inside = cells(planted, scores)
    return float(areas(size[None].numpy(), inside[None].numpy())[0, 0])


def cells(planted: Planted, scores: Mapping[Site, Tensor]) -> tuple[Float[Tensor, "cell"], Bool[Tensor, "cell"]]:
    """|mean over prompts| of the score of every place, and whether it belongs to the circuit.

    `scores`: (prompt, pos, head or neuron) for each of the Sites.
    """
    size = [scores[site].mean(0).abs() for site in planted.sites]
    inside = [torch.zeros_like(x, dtype=torch.bool) for x in size]
    for part in planted.circuit:
        inside[planted.sites.index(part.site)][part.pos, part.index] = True
    return torch.cat([x.flatten() for x in size]), torch.cat([x.flatten() for x in inside])


def _size(scores: Mapping[Site, Tensor], part: Part) -> float:
    """|mean over prompts| of the score of one part."""
    return float(scores[part.site][:, part.pos, part.index].mean().abs())
