"""What is wrong with a file of weights, told by its first bytes and its size.

A safetensors file begins with the length of its header (8 bytes, little-endian) and the header, a JSON object that says
where in the rest each tensor lies; the tensors fill the rest. Source: the format's description in
https://github.com/huggingface/safetensors. A file of `torch.save` is a zip archive, or an old pickle.
"""

import json
import zipfile
from pathlib import Path

POINTER = b"version https://git-lfs"
"""How a file begins that Git LFS left in place of a large one."""
PICKLES = (".bin", ".pt", ".pth")
_PICKLE = b"\x80"


def damage_of(path: Path) -> str:
    """What is wrong with this file and what to do about it; "" where its size and its header agree.

    Reads a safetensors file's header, not its tensors; of a file of `torch.save` the first bytes and the end; of any
    other the first bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(POINTER))
        if not size:
            return "is empty: download it again"
        if start == POINTER:
            return "is a pointer of Git LFS and not the file itself: fetch it with `git lfs pull`"
        if path.suffix != ".safetensors":
            right = path.suffix not in PICKLES or start[:1] == _PICKLE or zipfile.is_zipfile(path)
            return "" if right else "is cut short or damaged: download it again"
        n_header = int.from_bytes(start[:8], "little")
        if size < 8 or n_header > size - 8:
            return f"is cut short ({size:,} bytes, its header alone {n_header:,}) or no safetensors: download it again"
        file.seek(8)
        n_tensors = _end_of(file.read(n_header))
    if n_tensors is None:
        return "has a header that cannot be read: download it again"
    promised = 8 + n_header + n_tensors
    return "" if size == promised else f"holds {size:,} bytes where its header promises {promised:,}: download it again"


def _end_of(header: bytes) -> int | None:
    """The bytes of all tensors by this header; None where it cannot be read."""
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        return max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
