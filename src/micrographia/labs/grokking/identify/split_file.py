"""A split written in a file, or beside the weights: a mask, indices of rows a * p + b, or pairs (a, b).

Read from safetensors, npz, JSON, and from a pickle where the user allows it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from micrographia.core.errors import UnreadableWeights, UserError
from micrographia.core.state_dicts.pickles import SUFFIXES as PICKLES
from micrographia.core.state_dicts.pickles import load_pickle
from micrographia.core.state_dicts.read import read_state_dict

TRAIN_NAMES = ("train", "train_mask", "is_train", "train_indices", "train_pairs", "train_data")
NAMES = (*TRAIN_NAMES, "mask", "indices", "pairs")
KINDS = "a mask of p * p or (p, p), indices of rows a * p + b, or pairs (a, b)"


def read_mask(path: Path, p: int, *, allow_pickle: bool = False) -> Bool[Tensor, "pairs"]:
    """The training pairs that a file names. Raises UserError, PickleRefused, UnreadableWeights."""
    if not path.is_file():
        raise UserError(
            f"Asked for the split {str(path)!r}. Found no such file. Give shuffle, randperm, none, or a file "
            f"with {KINDS}."
        )
    content = _content(path, allow_pickle)
    entries = content if isinstance(content, Mapping) else {"train": content}
    found = mask_among(entries, p, names=NAMES if len(entries) != 1 else tuple(entries))
    if found is None:
        raise UnreadableWeights(
            f"Asked for a split from {path.name}. Found the entries {', '.join(map(str, entries))}. "
            f"Name one of them {', '.join(NAMES)}: {KINDS}."
        )
    return found


def mask_among(entries: Mapping[str, Any], p: int, *, names: Sequence[str]) -> Bool[Tensor, "pairs"] | None:
    """The training pairs in the first of these entries that is there."""
    name = next((name for name in names if entries.get(name) is not None), None)
    return None if name is None else as_mask(entries[name], p, name)


def as_mask(value: Any, p: int, name: str) -> Bool[Tensor, "pairs"]:
    """A mask over the p * p rows from a mask, indices or pairs."""
    array = _numbers(value, name)
    binary = array.dtype == bool or bool(np.isin(array, (0, 1)).all())
    if binary and array.shape in ((p * p,), (p, p)):
        return _useful(torch.from_numpy(array.reshape(-1) != 0), name)
    rows = array
    if array.ndim == 2 and array.shape[1] in (2, 3):  # scripts often write the "=" with a and b
        rows = array[:, 0] * p + array[:, 1]
        array = array[:, :2]
    limit = p * p if array.ndim == 1 else p
    if array.ndim not in (1, 2) or rows.ndim != 1 or array.dtype == bool or not _within(array, limit):
        raise UnreadableWeights(
            f"Asked for a split from {name!r} for p = {p}. Found shape {list(array.shape)}, {array.dtype}"
            f"{f', from {array.min()} to {array.max()}' if array.size else ''}. Give {KINDS}."
        )
    mask = torch.zeros(p * p, dtype=torch.bool)
    mask[torch.from_numpy(rows.astype(np.int64))] = True
    return _useful(mask, name)


def _content(path: Path, allow_pickle: bool) -> Any:
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        return load_pickle(path, allowed=allow_pickle)
    if suffix != ".json":
        return read_state_dict(path).tensors
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UnreadableWeights(f"Asked for a split from {path.name}. It is no JSON: {error}. Mend it.") from error


def _numbers(value: Any, name: str) -> np.ndarray[Any, Any]:
    try:
        array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
    except ValueError as error:  # rows of unequal length
        raise UnreadableWeights(f"Asked for a split from {name!r}. Found no array: {error}. Give {KINDS}.") from error
    if array.dtype.kind == "f" and (array == np.round(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "biu":
        raise UnreadableWeights(f"Asked for a split from {name!r}. Found values of {array.dtype}. Give {KINDS}.")
    return array


def _within(array: np.ndarray[Any, Any], limit: int) -> bool:
    return array.size > 0 and int(array.min()) >= 0 and int(array.max()) < limit


def _useful(mask: Tensor, name: str) -> Tensor:
    if not 0 < int(mask.sum()) < len(mask):
        raise UnreadableWeights(
            f"Asked for a split from {name!r}. It marks {int(mask.sum())} of {len(mask)} pairs. Some must be left over."
        )
    return mask
