"""Exact JSON round trips: values that `formats.plain` would flatten are tagged instead.

A non-finite float becomes `{"$float": "nan"}`, a tuple `{"$tuple": [...]}`, a numeric array `{"$array": name}` with the
array itself returned separately, an array of strings `{"$strings": [dtype, shape, values]}`. Figures and the numbers of
checkpoints are stored this way.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micrographia.core.errors import UserError

Arrays = dict[str, NDArray[Any]]


def pack(value: Any, *, name: str, arrays: Arrays) -> Any:
    """`value` in JSON's own types; its numeric arrays are added to `arrays` under names that begin with `name`."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return _pack_array(value, name, arrays)
    if isinstance(value, Mapping):
        return _pack_mapping(value, name, arrays)
    if isinstance(value, list | tuple):
        parts = [pack(part, name=f"{name}.{i}", arrays=arrays) for i, part in enumerate(value)]
        return {"$tuple": parts} if isinstance(value, tuple) else parts
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(
        f"Cannot store {name!r}: found a {type(value).__name__}. "
        "Give numbers, strings, lists, mappings or numpy arrays."
    )


def unpack(value: Any, arrays: Arrays) -> Any:
    """What was packed."""
    if isinstance(value, list):
        return [unpack(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, content),) = value.items()
        if tag in _UNPACK:
            return _UNPACK[tag](content, arrays)
    return {key: unpack(part, arrays) for key, part in value.items()}


_UNPACK = {
    "$float": lambda content, arrays: float(content),
    "$tuple": lambda content, arrays: tuple(unpack(content, arrays)),
    "$array": lambda content, arrays: arrays[content],
    "$strings": lambda content, arrays: np.array(content[2], dtype=content[0]).reshape(content[1]),
}


def _pack_array(array: NDArray[Any], name: str, arrays: Arrays) -> dict[str, Any]:
    if array.dtype.kind == "U":
        return {"$strings": [array.dtype.str, list(array.shape), array.ravel().tolist()]}
    if array.dtype.kind not in "biuf":
        raise UserError(f"Cannot store {name!r}: found an array of {array.dtype}. Give numbers, booleans or strings.")
    arrays[name] = array
    return {"$array": name}


def _pack_mapping(value: Mapping[Any, Any], name: str, arrays: Arrays) -> dict[str, Any]:
    if not all(isinstance(key, str) and not key.startswith("$") for key in value):
        raise UserError(f"Cannot store {name!r}: its keys must be strings that do not begin with $. Got {list(value)}.")
    return {key: pack(part, name=f"{name}.{key}", arrays=arrays) for key, part in value.items()}
