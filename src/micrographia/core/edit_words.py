"""Edits as they are typed: "zero L9.z[6]; scale 2 L15.resid_pre; add 4 vector.safetensors L15.resid_pre".

A verb, its number or file, and a place (`core.edits.place_of`) or a pattern of Sites; several with ; between.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from micrographia.core.edits import Edit, add, put, scale, zero
from micrographia.core.errors import BadEdit
from micrographia.core.model import Model
from micrographia.core.sites import select
from micrographia.core.store.formats import read_tensors

MADE: Mapping[str, tuple[int, int, Callable[..., Edit]]] = {
    "zero": (0, 0, zero),
    "scale": (1, 1, scale),
    "put": (1, 1, put),
    "add": (1, 2, add),
}
"""By verb the fewest and most words between it and the place, and what it makes of their product."""
WORDS = re.compile(r"(\w+)\s+(?:(.*?)\s+)?([^\s\[]+(?:\[[^\]]*\])?)")
HOW = "Write for instance: zero L9.z[6]; scale 2 L15.resid_pre; add 4 vector.safetensors L15.resid_pre."


def read_edits(text: str, model: Model) -> list[Edit]:
    """The edits of a text, in its order. Raises BadEdit for what cannot be read, UnknownSite as `select` does."""
    found: list[Edit] = []
    for part in filter(None, map(str.strip, text.split(";"))):
        match = WORDS.fullmatch(part)
        verb, between, place = (match[1], shlex.split(match[2] or ""), match[3]) if match else ("", [], "")
        fewest, most, make = MADE.get(verb, (1, 0, zero))
        if not fewest <= len(between) <= most:
            raise BadEdit(f"Cannot read the edit {part!r}. {HOW}")
        values = [_value(word, part, model) for word in between]
        if sum(isinstance(value, Tensor) for value in values) > 1:
            raise BadEdit(f"The edit {part!r} names two files. {HOW}")
        value = [values[0] * values[1]] if len(values) == 2 else values
        site, bracket, region = place.partition("[")
        found += [make(f"{each}{bracket}{region}", *value) for each in select(model.sites, site)]
    return found


def _value(word: str, part: str, model: Model) -> Any:
    """A number, or the one tensor of a safetensors file."""
    try:
        return float(word)
    except ValueError:
        if not word.endswith(".safetensors") or not part.startswith("add"):
            raise BadEdit(f"In the edit {part!r}, {word!r} is no number and no file to add. {HOW}") from None
    if not Path(word).is_file():
        raise BadEdit(f"The edit {part!r} adds the vector in {word}. There is no such file. Check the path.")
    tensors: Sequence[Tensor] = list(read_tensors(word).values())
    if len(tensors) != 1:
        raise BadEdit(f"The edit {part!r} adds the vector in {word}, which holds {len(tensors)} tensors. Give one.")
    return tensors[0].to(model.weights.W_E)
