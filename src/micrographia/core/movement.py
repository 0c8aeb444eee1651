"""Where the answer is along the layers: which position carries it in which layers, and between which it moves.

Read off a grid of effects by layer and position. A position *carries* the answer in the layers where it has at least
half of the gap and more than any other; it *leaves* where less than 90 % of what it had at most is left, and has
*arrived* where that much is there. These bounds are ours; the picture is Meng et al. (2022), figure 1, and Wang et al.
(2022), section 3.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

CARRIES = 0.5
LEFT = 0.9
SEEN = 0.1
"""A position that never has this share of the gap has no row."""


class Stay(NamedTuple):
    """A position and the layers of a range, both ends within; `value` is the mean effect there."""

    pos: int
    first: int
    last: int
    value: float

    @property
    def layers(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


class Move(NamedTuple):
    """From one position to another: `still` the last layer where it is at the one, `there` the first at the other."""

    source: int
    target: int
    still: int
    there: int


def layer_range(first: int, last: int) -> str:
    """Layers in words.

    >>> layer_range(0, 19), layer_range(3, 3)
    ('layers 0 to 19', 'layer 3')
    """
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def ranges(values: Float[ndarray, "layer pos"], layers: Sequence[int], least: float = SEEN) -> list[Stay]:
    """A row for each position of notable effect: the layers around its largest where at least half of that is left."""
    found = []
    for pos in range(values.shape[1]):
        column = np.nan_to_num(values[:, pos])
        at = int(np.abs(column).argmax())
        if abs(column[at]) < least:
            continue
        inside = column * np.sign(column[at]) >= CARRIES * abs(column[at])
        first = at - int(np.argmin([*inside[: at + 1][::-1], False])) + 1
        last = at + int(np.argmin([*inside[at:], False])) - 1
        found.append(Stay(pos, layers[first], layers[last], float(column[first : last + 1].mean())))
    return sorted(found, key=lambda stay: (stay.first, stay.pos))


def carriers(values: Float[ndarray, "layer pos"], layers: Sequence[int]) -> list[Stay]:
    """The positions that carry the answer one after the other; layers where none does are in between."""
    best = np.nan_to_num(values).argmax(1)
    held = [int(pos) if values[i, pos] >= CARRIES else -1 for i, pos in enumerate(best)]
    found = []
    for pos, run in groupby(range(len(held)), key=lambda i: held[i]):
        at = list(run)
        if pos >= 0:
            found.append(Stay(pos, layers[at[0]], layers[at[-1]], float(values[at, pos].mean())))
    return found


def moves(values: Float[ndarray, "layer pos"], layers: Sequence[int]) -> list[Move]:
    """The hand-overs between carriers that follow one another."""
    stays, found = carriers(values, layers), []
    for one, other in pairwise(stays):
        if one.pos == other.pos:
            continue
        left = _near(values[:, one.pos], layers, one)
        there = _near(values[:, other.pos], layers, other)
        found.append(Move(one.pos, other.pos, max(left), min(there)))
    return found


def _near(column: Float[ndarray, "layer"], layers: Sequence[int], stay: Stay) -> list[int]:
    """The layers of a stay in which at least `LEFT` of its largest effect is there."""
    at = {layer: float(column[i]) for i, layer in enumerate(layers) if stay.first <= layer <= stay.last}
    return [layer for layer, value in at.items() if value >= LEFT * max(at.values())]


def told(values: Any, layers: Sequence[int], names: Sequence[str]) -> str:
    """In words where it is and between which layers it moves; empty where no position carries it.

    `names` are the positions as they are called in a sentence.
    """
    stays, found = carriers(values, layers), moves(values, layers)
    if not stays:
        return ""
    if not found:
        where = " and ".join(layer_range(stay.first, stay.last) for stay in stays)
        return f"the answer is at {names[stays[0].pos]} in {where}, and moves to no other position"
    steps = [f"between layers {move.still} and {move.there} it moves on to {names[move.target]}" for move in found]
    first = found[0]
    steps[0] = (
        f"between layers {first.still} and {first.there} the answer moves from {names[first.source]} to "
        f"{names[first.target]}"
    )
    return ", ".join(steps)
