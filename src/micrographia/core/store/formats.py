"""Three formats, both ways: JSON, safetensors, Parquet. The same content always gives the same bytes.

JSON holds sorted keys and a schema version; NaN becomes null and is read as None, the infinities become the strings
"Infinity" and "-Infinity"; every other float survives exactly. Tensors are safetensors without metadata. Tables are
Parquet without dates. Nothing here unpickles. A file that cannot be read in its format raises Corrupt.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor

from micrographia.core.errors import BadShape, Corrupt, UserError
from micrographia.core.store.atomic import write_bytes
from micrographia.core.store.damage import damage_of

SCHEMA = 1
# The errors of json, safetensors and pyarrow (its own derive from these) for invalid bytes.
_DAMAGE = (ValueError, TypeError, LookupError, OSError, RuntimeError, safetensors.SafetensorError)
Column = Sequence[Any] | NDArray[Any]


def read_json(path: Path | str) -> dict[str, Any]:
    """The mapping of `json_bytes` in a file, without its schema version. Raises Corrupt for a newer schema."""
    with whole(Path(path)):
        found = json.loads(Path(path).read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not an object")
        if found.pop("schema", SCHEMA) != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}; a newer micrographia may have written it")
        return found


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors: dtype and shape kept, moved to the CPU. Holds a second copy while writing."""
    write_bytes(path, tensors_bytes(tensors))


def read_tensors(path: Path | str, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name."""
    with whole(Path(path)):
        return safetensors.torch.load_file(path, device=device)


def read_arrays(path: Path | str) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file as numpy arrays."""
    with whole(Path(path)):
        return safetensors.numpy.load_file(path)


def read_table(path: Path | str) -> dict[str, NDArray[Any]]:
    """The columns of a Parquet table as arrays: `(rows,)`, or `(rows, width)` for vectors."""
    import pyarrow.parquet as parquet  # heavy, and many commands need no table

    with whole(Path(path)):
        table = parquet.read_table(io.BytesIO(Path(path).read_bytes()))
        return {name: _array(table.column(name)) for name in table.column_names}


def json_bytes(obj: Mapping[str, Any]) -> bytes:
    """A mapping of strings, numbers, lists, arrays and mappings as JSON. See the module for NaN and infinities."""
    if "schema" in obj:
        raise UserError("Asked to write an object with an entry 'schema'; that name is the file's own. Rename it.")
    text = json.dumps(plain({**obj, "schema": SCHEMA}), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def plain(obj: Any) -> Any:
    """`obj` in JSON's own types: arrays as lists, tuples as lists, NaN as None, infinities as strings."""
    if isinstance(obj, Mapping):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, Tensor | np.ndarray | np.generic):
        return plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None if math.isnan(obj) else "Infinity" if obj > 0 else "-Infinity"
    if obj is None or isinstance(obj, bool | int | float | str):
        return obj
    if isinstance(obj, Path):
        return str(obj)
    if isinstance(obj, list | tuple | range):
        return [plain(value) for value in obj]
    raise UserError(f"Cannot write {obj!r} as JSON: a {type(obj).__name__} is no string, number, list or mapping.")


def tensors_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes that `write_tensors` writes. Cloned, because safetensors refuses tensors that share memory."""
    own = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    return safetensors.torch.save(own)


def arrays_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes that `write_tensors` would write for these arrays."""
    return safetensors.numpy.save({name: np.array(arrays[name], order="C") for name in sorted(arrays)})


def table_bytes(columns: Mapping[str, Column]) -> bytes:
    """Columns of one length as Parquet: numbers, booleans, strings, or one vector (of one width) a row.

    None among numbers is written as NaN. Integers stay integers, floats keep every bit.
    """
    import pyarrow  # heavy, and many commands need no table
    import pyarrow.parquet as parquet

    arrays = {name: _column(name, values) for name, values in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise BadShape(f"The columns of a table must have one length. Found {lengths}.")
    target = io.BytesIO()
    table = pyarrow.table({name: _arrow(array) for name, array in arrays.items()})
    parquet.write_table(table, target, compression="zstd")
    return target.getvalue()


def _column(name: str, values: Column) -> NDArray[Any]:
    if not isinstance(values, np.ndarray):
        values = np.asarray([_without_none(value) for value in values] or np.zeros(0))
    if values.dtype.kind not in "biufUT" or values.ndim not in (1, 2):
        raise BadShape(
            f"Column {name!r} cannot be a table's: found {values.ndim} axes of {values.dtype}. "
            "Give numbers, booleans or strings, or vectors of one width."
        )
    return values


def _without_none(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_none(part) for part in value]
    return math.nan if value is None else value


def _arrow(array: NDArray[Any]) -> Any:
    import pyarrow  # heavy, and many commands need no table

    if array.ndim == 1:
        return pyarrow.array(array.tolist() if array.dtype.kind in "UT" else np.ascontiguousarray(array))
    return pyarrow.FixedSizeListArray.from_arrays(_arrow(array.reshape(-1)), array.shape[1])


def _array(column: Any) -> NDArray[Any]:
    import pyarrow  # heavy, and many commands need no table

    if pyarrow.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        return _array(column.combine_chunks().flatten()).reshape(-1, width)
    if pyarrow.types.is_string(column.type):
        return np.asarray(column.to_pylist(), dtype=str)
    return np.array(column.to_numpy())


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Turn readers' errors for a damaged file into Corrupt: what was requested, what was found, what to do."""
    try:
        yield
    except (PermissionError, IsADirectoryError):
        raise
    except FileNotFoundError as error:
        raise Corrupt(f"Asked for {path}, which is missing. `micrographia verify` lists all problems.") from error
    except _DAMAGE as error:
        found = damage_of(path).partition(":")[0] or error
        raise Corrupt(f"Cannot read {path}: {found}. It was altered or cut short; restore it or run again.") from error
