"""Notes of the user on latents, in one JSON file that is written whole at every change.

Several browsers may share it: each change is made to what is in the file then, under a lock.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from micrographia.core.errors import Corrupt, RunLocked, UserError
from micrographia.core.store import json_bytes, read_json, write_bytes
from micrographia.core.store import lock as files

LONGEST = 10_000
"""Letters of a note."""
PATIENCE = 5.0
"""Seconds to wait for another browser, which writes for a moment."""


class Notes:
    """Text by bundle and latent. Raises Corrupt for a file that holds anything else."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, Lock()
        self.all()

    def all(self) -> dict[str, dict[str, str]]:
        """Bundle -> latent -> text."""
        return _read(self.path) if self.path.exists() else {}

    def put(self, bundle: str, latent: int, text: str) -> None:
        """Keep this note; an empty one is removed. Raises UserError for one too long, CannotWrite, RunLocked."""
        if len(text) > LONGEST:
            raise UserError(f"A note of {len(text):,} letters was to be kept. The longest has {LONGEST:,}: shorten it.")
        with self._lock, _alone(self.path):
            texts = self.all()
            own = texts.setdefault(bundle, {})
            own.pop(str(latent), None)
            if text.strip():
                own[str(latent)] = text.encode(errors="replace").decode()  # half a letter cannot be written
            write_bytes(self.path, json_bytes({"notes": texts}))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process writes this file. Raises RunLocked where one does for long."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            held = files.Lock.take(path.parent, f".{path.name}.lock")
            break
        except RunLocked:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
    try:
        yield
    finally:
        held.release()


def _read(path: Path) -> dict[str, dict[str, str]]:
    texts: Any = read_json(path).get("notes")
    good = isinstance(texts, dict) and all(
        isinstance(own, dict) and all(isinstance(text, str) for text in own.values()) for own in texts.values()
    )
    if not good:
        raise Corrupt(
            f"The notes in {path} cannot be read: they are no texts by bundle and latent. Move the file away."
        )
    return texts
