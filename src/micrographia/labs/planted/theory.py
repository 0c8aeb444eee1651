"""What theory says of each method on each planted circuit: which roles it misses. Derived where the circuits stand.

A role is missed when one of its parts does not score above everything outside the circuit. Methods:
exact      one patch at a time
atp        the gradient at the base run times the change (attribution patching)
atp-qk     with the QK-fix at queries and keys (Kramar et al. 2024)
atp-star   with the QK-fix and GradDrop (the same)
ig         the mean gradient along the straight path between the inputs (integrated gradients)
relp       as atp, with attention patterns held still; without norms and with ReLU nothing else differs
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.ranking import areas
from micrographia.core.sites import Site
from micrographia.core.titles import Mode
from micrographia.labs.planted.found import chain, induction
from micrographia.labs.planted.gates import and_gate, or_gate
from micrographia.labs.planted.hidden import backup, cancelling, saturated
from micrographia.labs.planted.planted import Planted, PlantedPart

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


def missed_in_theory(name: str, way: Way, mode: Mode) -> frozenset[str]:
    """The roles of this planted circuit that this method does not find."""
    return frozenset().union(*(_MISSED.get((name, m), {}).get(way, set()) for m in (mode, None)))


def missed(planted: Planted, scores: Mapping[Site, Tensor]) -> frozenset[str]:
    """The roles of which some part does not score above everything outside the circuit. Scores as in `cells`."""
    size, inside = cells(planted, scores)
    largest = size[~inside].max()
    return frozenset(
        role for role, parts in planted.roles.items() if min(_size(scores, part) for part in parts) <= largest
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


def _size(scores: Mapping[Site, Tensor], part: PlantedPart) -> float:
    """|mean over prompts| of the score of one part."""
    return float(scores[part.site][:, part.pos, part.index].mean().abs())
