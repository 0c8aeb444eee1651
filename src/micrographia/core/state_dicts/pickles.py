"""Read a pickle of tensors without running its code.

A pickle names functions to call. Here only those that build tensors, arrays and plain containers are called; anything
else a file names (a config class, an optimiser, the shell) becomes an `Inert` object that ignores everything. So files
of projects whose classes are not installed can be read too.
"""

import pickle
import types
from pathlib import Path
from typing import Any

import torch

from micrographia.core.errors import PickleRefused, UnreadableWeights

SUFFIXES = (".pth", ".pt")
# Functions that only build data. Torch itself turns the names of its storage classes into storages.
HARMLESS = frozenset(
    {
        ("collections", "OrderedDict"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *(("builtins", name) for name in ("set", "frozenset", "complex", "bytearray", "slice", "range")),
    }
)


class Inert:
    """A placeholder for an object whose class is not built here; accepts any data from a pickle and keeps none."""

    def __new__(cls, *arguments: Any, **named: Any) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class Careful(pickle.Unpickler):
    """An unpickler that reads every name outside `HARMLESS` as `Inert`."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) in HARMLESS:
            return super().find_class(module_name, global_name)
        if (module_name, global_name) == ("_codecs", "encode"):  # how old pickles write bytes
            return _latin
        if module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype):
            return getattr(torch, global_name)
        return Inert


def load_pickle(path: Path, *, allowed: bool) -> Any:
    """Load a file of `torch.save`. Objects of classes that are not plain data come back as `Inert`.

    Raises PickleRefused unless `allowed`, UnreadableWeights for a file that torch cannot read.
    """
    if not allowed:
        raise PickleRefused(
            f"Asked to read {path.name}, a pickle; pickles are refused unless you allow the file by name. "
            "Pass --allow-pickle, or save its state dict as safetensors."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it holds more than tensors
        pass
    except Exception as error:  # torch raises various errors for a damaged file
        raise _unreadable(path, error) from error
    careful: Any = types.SimpleNamespace(
        Unpickler=Careful, load=_load, UnpicklingError=pickle.UnpicklingError, __name__="pickle"
    )
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=careful)
    except Exception as error:  # as above
        raise _unreadable(path, error) from error


def _latin(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _load(file: Any, **named: Any) -> Any:
    return Careful(file, **named).load()


def _unreadable(path: Path, error: Exception) -> UnreadableWeights:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return UnreadableWeights(
        f"Asked to read {path.name} as what torch.save writes. Found: {first} Save the state dict anew, best as "
        "safetensors."
    )
