"""Files in the formats of other tools, as bytes: JSON without our schema, npz, and the pickle that `torch.save` writes.

A pickle is written only where the user asks for a format that has no other file. It holds tensors, numbers and strings
in plain mappings, so that `torch.load(..., weights_only=True)` opens it.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from micrographia.core.store.formats import plain


def foreign_json(obj: Mapping[str, Any]) -> bytes:
    """A mapping as indented JSON, in its own order and without a schema version."""
    return (json.dumps(plain(obj), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as what `numpy.savez` writes."""
    target = io.BytesIO()
    np.savez(target, allow_pickle=False, **arrays)
    return target.getvalue()


def torch_bytes(content: Mapping[str, Any]) -> bytes:
    """What `torch.save` writes for a mapping of tensors, numbers, strings and such mappings."""
    target = io.BytesIO()
    torch.save(dict(content), target)
    return target.getvalue()
