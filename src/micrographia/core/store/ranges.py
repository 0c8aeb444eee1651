"""Tables that are written part by part and read by range of rows: Parquet, a row group for each part.

Each page carries a checksum, so that a change is noticed where it is read. Strings are kept as lists: as an array each
would take the room of the longest. A reader may be shared by threads: every read opens the file anew, with the
metadata that were parsed once.
"""

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micrographia.core.store.formats import _array, _arrow, whole

Part = Mapping[str, NDArray[Any] | Sequence[str]]
"""Columns of one length: arrays (rows,) or (rows, width), or strings."""


def table_chunks(parts: Iterable[Part]) -> Iterator[bytes]:
    """The bytes of a table with these row groups, as they come: for `atomic.write_chunks`. Holds one part."""
    import pyarrow  # heavy, and many commands need no table
    import pyarrow.parquet as parquet

    sink, writer = io.BytesIO(), None
    for part in parts:
        table = pyarrow.table({name: _written(values) for name, values in part.items()})
        if writer is None:
            target = pyarrow.PythonFile(_Onward(sink), mode="w")
            writer = parquet.ParquetWriter(target, table.schema, compression="zstd", write_page_checksum=True)
        writer.write_table(table, row_group_size=max(1, len(table)))
        yield _taken(sink)
    if writer is not None:
        writer.close()
        yield _taken(sink)


class RangeTable:
    """A table on disk: `rows(3, 7)` reads the row groups that hold rows 3 to 6. Raises Corrupt where it is damaged."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as parquet  # heavy, and many commands need no table

        self.path = path
        with whole(path):
            self._metadata = parquet.read_metadata(path)
        sizes = (self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups))
        self._starts = [0, *accumulate(sizes)]

    def __len__(self) -> int:
        return self._starts[-1]

    def width(self, name: str) -> int | None:
        """Of a column of vectors; None for one of numbers or strings, and for one that there is not."""
        schema = self._metadata.schema.to_arrow_schema()
        return getattr(schema.field(name).type, "list_size", None) if name in schema.names else None

    def rows(self, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Columns of these rows: arrays, or lists of strings. Raises IndexError for rows that there are not."""
        import pyarrow.parquet as parquet  # heavy, and many commands need no table

        stop = len(self) if stop is None else stop
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"Asked for rows {start} to {stop} of {self.path}; there are {len(self)}.")
        first, last = bisect_right(self._starts, start) - 1, bisect_right(self._starts, stop - 1)
        with (
            whole(self.path),
            parquet.ParquetFile(self.path, metadata=self._metadata, page_checksum_verification=True) as file,
        ):
            table = file.read_row_groups(range(first, last), columns=columns, use_threads=False)
        kept = table.slice(start - self._starts[first], stop - start)
        return {name: _read(kept.column(name)) for name in kept.column_names}


class _Onward:
    """A file for pyarrow that knows how far it is, though what was written is taken away."""

    closed = False

    def __init__(self, sink: io.BytesIO) -> None:
        self._sink, self._written = sink, 0

    def write(self, data: bytes) -> int:
        self._written += len(data)
        return self._sink.write(data)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _taken(sink: io.BytesIO) -> bytes:
    data = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return data


def _written(values: NDArray[Any] | Sequence[str]) -> Any:
    import pyarrow  # heavy, and many commands need no table

    return _arrow(values) if isinstance(values, np.ndarray) else pyarrow.array(list(values), pyarrow.string())


def _read(column: Any) -> Any:
    import pyarrow  # heavy, and many commands need no table

    return column.to_pylist() if pyarrow.types.is_string(column.type) else _array(column)
