"""The data of a page as text: JSON, its arrays as base64 of typed arrays, the whole compressed with gzip.

The page unpacks it with the browser's own DecompressionStream; plotly.js travels the same way, so that a page with
all its figures stays far below ten megabytes and asks the network for nothing. Arrays keep the precision that the
picture shows: float32, and float16 for heat maps, whose colours carry three figures. The bytes hold no date.
"""

import base64
import gzip
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = {"float16": "f2", "float32": "f4", "float64": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "int32": "i4"}
HALF_RANGE = (1e-3, 6e4)  # where float16 keeps three figures of a picture's largest values


def packed(value: Any) -> str:
    """Any tree of mappings, lists, strings, numbers and arrays as base64 of gzip of JSON."""
    return packed_text(json.dumps(encoded(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def packed_text(text: str) -> str:
    """A text as base64 of gzip; the same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode("ascii")


def encoded(value: Any, *, key: str = "") -> Any:
    """The tree with arrays as {"dtype", "shape", "bdata"}, and NaN outside of arrays as None."""
    if isinstance(value, np.ndarray):
        return _array(value, key)
    if isinstance(value, Mapping):
        return {str(name): encoded(inner, key=str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(inner, key=key) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _array(array: NDArray[Any], key: str) -> Any:
    if array.dtype.kind not in "fiu":
        return encoded(array.tolist(), key=key)
    array = array.astype(_kept_type(array, key))
    return {
        "dtype": CODES[str(array.dtype)],
        "shape": list(array.shape),
        "bdata": base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode("ascii"),
    }


def _kept_type(array: NDArray[Any], key: str) -> str:
    if array.dtype in (np.uint8, np.int8):
        return str(array.dtype)
    if array.dtype.kind != "f":
        return "int16" if array.size and np.abs(array).max() < 2**15 else "int32"
    if array.dtype == np.float16:
        return "float16"
    largest = float(np.nanmax(np.abs(array))) if np.isfinite(array).any() else 0.0
    return "float16" if key == "z" and HALF_RANGE[0] < largest < HALF_RANGE[1] else "float32"
