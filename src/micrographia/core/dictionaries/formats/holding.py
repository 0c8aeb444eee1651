"""Holding: the files that lie at a path, as a format's recogniser and reader see them.

Files are read when they are asked for, and only then; of safetensors the names of tensors can be had from the header.
"""

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from micrographia.core.errors import PickleRefused, UnknownDictionary, UnreadableWeights
from micrographia.core.state_dicts.pickles import SUFFIXES as PICKLES
from micrographia.core.state_dicts.pickles import load_pickle
from micrographia.core.state_dicts.read import READERS, read_state_dict
from micrographia.core.store import read_json
from micrographia.core.store.damage import damage_of

WEIGHTS = (*READERS, *PICKLES)
"""The endings of files of weights."""
INNER = "checkpoints"
"""The one subfolder in which a format keeps weights (Llama Scope)."""
NAMED = frozenset(
    {"sae_weights.safetensors", "sae.safetensors", "ae.pt", "params.npz", "params.safetensors", "final.safetensors"}
)
"""Files of weights that stand for their folder, since their tool gives all of them that name."""
MANY = 12
_ASIDE = re.compile(r"(?:^|/)(?:\w*state\w*|(?:optimizer|lr_scheduler)_\d+)\.pt$|(?:^|/)checkpoints/[^/]*\.pt$")


def is_aside(name: str) -> bool:
    """Whether this is a pickle beside dictionaries that is none that is meant: a trainer's state, an earlier step."""
    return _ASIDE.search(name) is not None


@dataclass(frozen=True, slots=True)
class Holding:
    """Files of a folder. `only`: the one file of weights that was asked for, where it does not stand for its folder."""

    folder: Path
    only: str = ""
    allow_pickle: bool = False

    @classmethod
    def at(cls, path: Path, *, allow_pickle: bool = False) -> "Holding":
        """What lies at this path. Raises UnknownDictionary where nothing does."""
        if path.is_dir():
            return cls(path, "", allow_pickle)
        if not path.is_file():
            raise UnknownDictionary(f"Asked for the dictionary at {path}. There is no such folder or file.")
        inner = path.parent.name == INNER and path.name in NAMED
        if path.suffix.lower() not in WEIGHTS:
            raise UnknownDictionary(
                f"Asked for the dictionary in {path.name}, a file of another kind. Give its folder, or a file of "
                f"weights ({', '.join(WEIGHTS)})."
            )
        return cls(path.parent.parent if inner else path.parent, "" if path.name in NAMED else path.name, allow_pickle)

    @property
    def path(self) -> Path:
        return self.folder / self.only

    @property
    def names(self) -> list[str]:
        """Names of files, those in `checkpoints` too; of weights only the one that was asked for, if one was."""
        inner = self.folder / INNER
        files = [each for place in (self.folder, inner) if place.is_dir() for each in place.iterdir() if each.is_file()]
        names = sorted(each.relative_to(self.folder).as_posix() for each in files)
        return [name for name in names if not self.only or name == self.only or not name.endswith(WEIGHTS)]

    def has(self, *names: str) -> bool:
        return set(names) <= set(self.names)

    def ending(self, *suffixes: str) -> list[str]:
        """The names of files with these endings."""
        return [name for name in self.names if name.endswith(suffixes)]

    def pickles(self) -> list[str]:
        """The names of pickles that may be dictionaries."""
        return [name for name in self.ending(*PICKLES) if name == self.only or not is_aside(name)]

    def config(self, name: str) -> dict[str, Any]:
        """The JSON object of this file; empty where there is no such file. Raises Corrupt."""
        return read_json(self.folder / name) if (self.folder / name).is_file() else {}

    def tensor_names(self, name: str) -> frozenset[str]:
        """The tensors in a safetensors or npz file, from its header; none where it cannot be read."""
        return frozenset(self.shapes(name)) if name.endswith(".safetensors") else _npz_names(self.folder / name)

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """Tensor -> shape of a safetensors file, from its header; empty where it cannot be read."""
        path = self.folder / name
        if damage_of(path):
            return {}
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a safetensors or npz file, on the CPU. Raises Corrupt, UnreadableWeights."""
        return read_state_dict(self.folder / name).tensors

    def pickled(self, name: str) -> Mapping[str, Any]:
        """The mapping in a file of `torch.save`. Raises PickleRefused, UnreadableWeights."""
        path = self.folder / name
        if damage := damage_of(path):
            raise UnreadableWeights(f"Asked to read {path}, which {damage}.")
        if not self.allow_pickle:
            raise PickleRefused(
                f"Asked to read {path}, a pickle; pickles are refused unless you allow it: allow_pickle=True, or "
                "--allow-pickle. Only tensors and plain values are then read, and no code is run."
            )
        content = load_pickle(path, allowed=True)
        if not isinstance(content, Mapping):
            raise UnreadableWeights(
                f"Asked to read {path}. Found a {type(content).__name__}, not a mapping of tensors."
            )
        return content

    def said(self) -> str:
        """What lies here, for an error."""
        names = self.names
        folders = sorted(f"{each.name}/" for each in self.folder.iterdir() if each.is_dir() and each.name != INNER)
        found = [*names, *folders]
        if not found:
            return "an empty folder"
        return ", ".join(found[:MANY]) + (f" and {len(found) - MANY} more" if len(found) > MANY else "")


def _npz_names(path: Path) -> frozenset[str]:
    if not zipfile.is_zipfile(path):  # numpy leaves such a file open
        return frozenset()
    with np.load(path, allow_pickle=False) as archive:
        return frozenset(archive.files)
