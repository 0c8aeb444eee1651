"""A fingerprint of the weight files of a model on disk, to notice that they are others than they were."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from micrographia.core.errors import RunNotFound
from micrographia.core.store import find_run

WEIGHTS = frozenset({".safetensors", ".gguf", ".bin", ".pt", ".pth"})
WHOLE = 2**23
"""Up to how many bytes a file is read whole; of a larger one `PIECES` pieces are, so that it takes no time."""
PIECES, PIECE = 64, 2**16


def weights_of(name: str) -> str | None:
    """A fingerprint of the weights in this file, folder or Run; None for a model of the Hub.

    Of files over 8 MB it reads the size and 64 pieces of 64 KB, evenly spread: enough to tell training or another
    conversion, which change nearly every number, and not a single number edited by hand.
    """
    place = Path(name)
    if not place.exists():
        with suppress(RunNotFound):
            place = find_run(name)
    files = [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []
    found = [file for file in files if file.is_file() and (file == place or file.suffix in WEIGHTS)]
    digest = hashlib.sha256()
    for file in found:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        for piece in _pieces(file):
            digest.update(piece)
    return digest.hexdigest()[:16] if found else None


def _pieces(file: Path) -> Iterable[bytes]:
    size = file.stat().st_size
    if size <= WHOLE:
        yield file.read_bytes()
        return
    with file.open("rb") as stream:
        for i in range(PIECES):
            stream.seek(i * (size - PIECE) // (PIECES - 1))
            yield stream.read(PIECE)
