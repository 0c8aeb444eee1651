"""Read files of named tensors: safetensors, npz, and pickles that the user allows.

A file may wrap its weights in a mapping (`model`, `state_dict` ...) or hold many sets, one per epoch: then the last is
used, with a note. Other entries are returned too, since they may describe the training task.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from micrographia.core.errors import UnreadableWeights, UserError
from micrographia.core.state_dicts.pickles import SUFFIXES as PICKLES
from micrographia.core.state_dicts.pickles import load_pickle
from micrographia.core.store import read_tensors
from micrographia.core.store.damage import damage_of

# Entries under which training scripts store one set of weights, or one per epoch.
ONE = ("state_dict", "model_state_dict", "model", "net", "weights", "params")
MANY = ("state_dicts", "model_checkpoints", "checkpoints")


class StateDict(NamedTuple):
    """`tensors`: everything numeric among the weights; `aside`: the other entries of the file."""

    tensors: dict[str, Tensor]
    aside: dict[str, Any]
    notes: tuple[str, ...]


def read_state_dict(path: Path, *, allow_pickle: bool = False) -> StateDict:
    """The named tensors of a file, on the CPU, as they are. Reads it once.

    Raises UserError for a missing file, PickleRefused for a pickle that was not allowed, Corrupt or UnreadableWeights
    for a file that cannot be read.
    """
    if not path.is_file():
        raise UserError(f"Asked to read weights from {path}. Found no such file. Give a file of weights, or a Run.")
    suffix = path.suffix.lower()
    if suffix in PICKLES and (damage := damage_of(path)):  # to allow it would not help
        raise UnreadableWeights(f"Asked to read weights from {path.name}, which {damage}.")
    if suffix in PICKLES:
        return _unwrap(load_pickle(path, allowed=allow_pickle), path)
    if suffix not in READERS:
        known = ", ".join([*READERS, *(f"{each} (with --allow-pickle)" for each in PICKLES)])
        raise UnreadableWeights(
            f"Asked to read weights from {path.name}. Found the ending {suffix or 'none'!r}. Give one of: {known}."
        )
    return StateDict(READERS[suffix](path), {}, ())


def _read_npz(path: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(path):
        raise UnreadableWeights(f"Asked to read {path.name} as npz. Found no such archive. Write it with numpy.savez.")
    found = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                found[name] = archive[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UnreadableWeights(
            f"Asked to read {path.name} as npz. Found: {error} Write plain arrays of numbers with numpy.savez."
        ) from error
    return _tensors(found)


READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {".safetensors": read_tensors, ".npz": _read_npz}


def _unwrap(content: Any, path: Path) -> StateDict:
    """Descend to the mapping that holds the weights."""
    aside: dict[str, Any] = {}
    notes: list[str] = []
    while (inner := _inner(content, path, notes)) is not None:
        if isinstance(content, Mapping):
            aside |= {str(name): value for name, value in content.items() if value is not inner}
        content = inner
    tensors = _tensors(_flat(content)) if isinstance(content, Mapping) else {}
    if not tensors:
        raise UnreadableWeights(
            f"Asked to read weights from {path.name}. Found a {type(content).__name__} without a named tensor. "
            "Save the network's state_dict()."
        )
    return StateDict(tensors, aside, tuple(notes))


def _inner(content: Any, path: Path, notes: list[str]) -> Mapping[str, Any] | None:
    """The mapping inside `content` that holds the weights; None when it is `content` itself."""
    if _is_many(content):
        return _last(content, path, notes)
    if not isinstance(content, Mapping):
        return None
    for name in ONE:
        if isinstance(content.get(name), Mapping):
            return content[name]
    return next((_last(content[name], path, notes) for name in MANY if _is_many(content.get(name))), None)


def _is_many(content: Any) -> bool:
    if isinstance(content, Mapping):  # by epoch
        return bool(content) and all(isinstance(key, int) and isinstance(content[key], Mapping) for key in content)
    return isinstance(content, Sequence) and bool(content) and all(isinstance(each, Mapping) for each in content)


def _last(many: Any, path: Path, notes: list[str]) -> Mapping[str, Any]:
    key = max(many) if isinstance(many, Mapping) else len(many) - 1
    notes.append(f"{path.name} holds {len(many)} sets of weights; the last ({key}) is used.")
    return many[key]


def _flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _tensors(found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The numeric entries, as tensors."""
    arrays = {name: value for name, value in found.items() if isinstance(value, Tensor | np.ndarray)}
    numeric = {name: x for name, x in arrays.items() if isinstance(x, Tensor) or x.dtype.kind in "biuf"}
    return {name: x.detach() if isinstance(x, Tensor) else torch.from_numpy(x.copy()) for name, x in numeric.items()}
