"""Splits of a finite task's rows into training and test: the first of a shuffled order, or as a file names them.

A file (safetensors, npz, JSON, and a pickle where the user allows it) or an entry beside weights holds, for all pairs
(a, b) of a table, a mask, indices a * p + b, or the pairs.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from micrographia.core.errors import UnreadableWeights, UserError
from micrographia.core.runtime import generator
from micrographia.core.state_dicts.pickles import SUFFIXES as PICKLES
from micrographia.core.state_dicts.pickles import load_pickle
from micrographia.core.state_dicts.read import read_state_dict

TRAIN_NAMES = ("train", "train_mask", "is_train", "train_indices", "train_pairs", "train_data")
NAMES = (*TRAIN_NAMES, "mask", "indices", "pairs")
KINDS = "a mask of p * p or (p, p), indices of rows a * p + b, or pairs (a, b)"


def shuffle_split(n: int, fraction: float, seed: int) -> Bool[Tensor, "rows"]:
    """The first int(fraction * n) of the rows after `random.seed(seed); random.shuffle(rows)`, as in Nanda et al."""
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return _marked(n, torch.tensor(order[: int(fraction * n)]))


def randperm_split(n: int, fraction: float, seed: int) -> Bool[Tensor, "rows"]:
    """The first int(fraction * n) of `torch.manual_seed(seed); torch.randperm(n)`, as in TransformerLens' demo."""
    return _marked(n, torch.randperm(n, generator=generator(seed))[: int(fraction * n)])


SPLITS: dict[str, Callable[[int, float, int], Tensor]] = {"shuffle": shuffle_split, "randperm": randperm_split}


def read_mask(path: Path, p: int, *, known: Sequence[str] = (), allow_pickle: bool = False) -> Bool[Tensor, "pairs"]:
    """The pairs that a file names. Raises UserError (with the `known` splits), PickleRefused, UnreadableWeights."""
    if not path.is_file():
        names = ", ".join([*known, "a file"])
        raise UserError(f"Asked for the split {str(path)!r}. Found no such file. Give {names} with {KINDS}.")
    content = _content(path, allow_pickle)
    entries = content if isinstance(content, Mapping) else {"train": content}
    found = mask_among(entries, p, names=NAMES if len(entries) != 1 else tuple(entries))
    if found is None:
        raise UnreadableWeights(
            f"Asked for a split from {path.name}. Found the entries {', '.join(map(str, entries))}. "
            f"Name one of them {', '.join(NAMES)}: {KINDS}."
        )
    return found


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


def mask_among(entries: Mapping[str, Any], p: int, *, names: Sequence[str]) -> Bool[Tensor, "pairs"] | None:
    """The training pairs in the first of these entries that is there."""
    name = next((name for name in names if entries.get(name) is not None), None)
    return None if name is None else as_mask(entries[name], p, name)


def as_mask(value: Any, p: int, name: str) -> Bool[Tensor, "pairs"]:
    """A mask over the p * p rows from a mask, indices or pairs. It marks some pairs, and not all."""
    try:
        array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
    except ValueError as error:  # rows of unequal length
        raise UnreadableWeights(f"Asked for a split from {name!r}. Found no array: {error}. Give {KINDS}.") from error
    rows = _rows(array, p)
    mask = _marked(p * p, torch.from_numpy((np.zeros(0) if rows is None else rows).astype(np.int64)))
    if not 0 < int(mask.sum()) < len(mask):
        raise UnreadableWeights(
            f"Asked for a split from {name!r} for p = {p}. Found shape {list(array.shape)}, {array.dtype}, which marks "
            f"{int(mask.sum())} of {len(mask)} pairs. Give {KINDS}; some pairs must be left over."
        )
    return mask


def _rows(array: np.ndarray, p: int) -> np.ndarray | None:
    """The rows that an array marks; None for an array that is no split."""
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and (array != np.round(array)).any()):
        return None
    if array.shape in ((p * p,), (p, p)) and np.isin(array, (0, 1)).all():
        return np.flatnonzero(array)
    if array.ndim == 0 or array.dtype == bool or array.shape[1:] not in ((), (2,), (3,)):
        return None
    pairs = array.ndim == 2
    columns = array[:, :2] if pairs else array[:, None]  # scripts often write the "=" with a and b
    inside = (columns >= 0) & (columns < (p if pairs else p * p))
    return columns @ np.array([p, 1] if pairs else [1]) if inside.all() else None


def _marked(n: int, rows: Tensor) -> Bool[Tensor, "rows"]:
    mask = torch.zeros(n, dtype=torch.bool)
    mask[rows] = True
    return mask
