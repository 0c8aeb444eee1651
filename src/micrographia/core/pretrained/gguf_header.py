"""The header of a GGUF file: its metadata, and the name, shape, type and place of each tensor.

Read by itself, so that a file can be judged before the minutes of dequantising it: the lists of words and merges are
skipped, of which only the lengths are kept.
Source: "GGUF", docs/gguf.md in ggml-org/ggml.
"""

import math
import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from micrographia.core.errors import UnknownModel

MAGIC, POINTER = b"GGUF", b"version https://git-lfs"
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
VERSIONS = (2, 3)


class StoredTensor(NamedTuple):
    """A tensor of the file: `shape` as in torch, `kind` such as "Q4_1", `offset` from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)


class GgufHeader(NamedTuple):
    """What a GGUF file says of itself. A list in `metadata` is there as its values if of numbers, else its length."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[StoredTensor, ...]

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    def own(self, key: str, default: Any = None) -> Any:
        """The metadata of this key of the architecture, such as "rope.freq_base"."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def quantisation(self) -> str:
        """The types of the weights with their shares of all elements, such as "Q4_1 (79 %), Q8_0 (21 %)"."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors:
            counts[tensor.kind] += tensor.n_elements
        shares = {kind: 100 * n / counts.total() for kind, n in counts.most_common()}
        return ", ".join(f"{kind} ({share:.0f} %)" for kind, share in shares.items() if share >= 0.5)

    def values(self, name: str) -> NDArray[np.float32] | None:
        """A tensor of float32 as it is in the file; None where there is none of this name."""
        for tensor in self.tensors:
            if tensor.name == name and tensor.kind == "F32":
                found = np.fromfile(self.path, "<f4", tensor.n_elements, offset=tensor.offset)
                return found.astype(np.float32)
        return None


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file. Raises UnknownModel for another file, a damaged one, or one that is cut short."""
    with path.open("rb") as stream:
        begin = stream.read(len(POINTER))
        if begin[:4] != MAGIC:
            why = "It is a pointer of Git LFS: fetch the file itself (`git lfs pull`)." if begin == POINTER else ""
            raise UnknownModel(
                f"Asked for the model in {path}, which is no GGUF file: it does not begin with 'GGUF'. "
                f"{why or 'Check the path, or download it again.'}"
            )
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                header = _read(path, _Cursor(data))
            except (struct.error, UnicodeDecodeError, KeyError, ValueError, IndexError, OverflowError) as error:
                raise UnknownModel(
                    f"Asked for the model in {path}, whose header cannot be read ({error}). The file is damaged or "
                    "incomplete: download it again."
                ) from error
    end, size = max((each.offset + each.n_bytes for each in header.tensors), default=0), path.stat().st_size
    if end > size:
        raise UnknownModel(
            f"Asked for the model in {path}, which has {size:,} bytes, where its header lists tensors up to byte "
            f"{end:,}. The download is incomplete: fetch it again."
        )
    return header


class _Cursor:
    """A place in the file that moves on as values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 4

    def numbers(self, form: str, count: int = 1) -> list[Any]:
        width = struct.calcsize(form) * count
        if self.at + width > len(self.data):
            raise ValueError("it ends within its header")
        found = struct.unpack_from(f"<{count}{form}", self.data, self.at)
        self.at += width
        return list(found)

    def number(self, form: str) -> Any:
        return self.numbers(form)[0]

    def text(self) -> str:
        length = self.number("Q")
        self.skip(length)
        return self.data[self.at - length : self.at].decode("utf-8")

    def skip(self, length: int) -> None:
        if self.at + length > len(self.data):
            raise ValueError("it ends within its header")
        self.at += length


def _read(path: Path, cursor: _Cursor) -> GgufHeader:
    _check_version(path, cursor.number("I"))
    n_tensors, n_keys = cursor.numbers("Q", 2)
    metadata = {}
    for _ in range(n_keys):
        key = cursor.text()
        metadata[key] = _value(cursor, cursor.number("I"))
    rows = [_row(path, cursor) for _ in range(n_tensors)]
    start, alignment = cursor.at, metadata.get("general.alignment", 32)
    start += -start % alignment
    tensors = tuple(row._replace(offset=start + row.offset) for row in rows)
    return GgufHeader(path, {"general.architecture": metadata["general.architecture"], **metadata}, tensors)


def _check_version(path: Path, version: int) -> None:
    """Raise UnknownModel, with what to do: such a file is whole, and to download it again would not help."""
    if version in VERSIONS:
        return
    if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
        why = "is big-endian. Convert it to little-endian (`gguf-convert-endian FILE little` of the package gguf)"
    elif version < VERSIONS[0]:
        why = f"is of version {version}, which is no longer in use. Find a newer file of this model"
    else:
        why = f"is of version {version}, newer than this micrographia reads. Find one of version 3"
    raise UnknownModel(f"Asked for the model in {path}, which {why}, or load the original weights as a folder.")


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind == TEXT:
        return cursor.text()
    if kind != ARRAY:
        return cursor.number(NUMBERS[kind])
    inner, count = cursor.number("I"), cursor.number("Q")
    if inner in NUMBERS:
        return cursor.numbers(NUMBERS[inner], count)
    if inner != TEXT:
        raise ValueError(f"it holds a list of kind {inner}")
    for _ in range(count):
        cursor.skip(cursor.number("Q"))
    return count


def _row(path: Path, cursor: _Cursor) -> StoredTensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    name = cursor.text()
    shape = tuple(reversed(cursor.numbers("Q", cursor.number("I"))))
    number = cursor.number("I")
    if number not in GGMLQuantizationType._value2member_map_:
        raise UnknownModel(
            f"Asked for the model in {path}: its tensor {name!r} is of the type {number}, which the installed package "
            "gguf does not know. Install a newer gguf if the file is new (types 4, 5 and 31 to 38 were given up), or "
            "load another file of this model."
        )
    kind = GGMLQuantizationType(number)
    block, n_bytes = GGML_QUANT_SIZES[kind]
    return StoredTensor(name, shape, kind.name, cursor.number("Q"), math.prod(shape) // block * n_bytes)
