"""Notes of the user on latents, in one JSON file that is written whole at every change."""

from pathlib import Path
from threading import Lock
from typing import Any

from micrographia.core.errors import Corrupt, UserError
from micrographia.core.store import json_bytes, read_json, write_bytes

LONGEST = 10_000
"""Letters of a note."""


class Notes:
    """Text by bundle and latent. Reads the file once; it belongs to one browser at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, Lock()
        self._texts = _read(path) if path.exists() else {}

    def all(self) -> dict[str, dict[str, str]]:
        """Bundle -> latent -> text."""
        with self._lock:
            return {name: dict(texts) for name, texts in self._texts.items()}

    def put(self, bundle: str, latent: int, text: str) -> None:
        """Keep this note; an empty one is removed. Raises UserError for one too long, CannotWrite."""
        if len(text) > LONGEST:
            raise UserError(f"A note of {len(text):,} letters was to be kept. The longest has {LONGEST:,}: shorten it.")
        with self._lock:
            texts = {name: dict(each) for name, each in self._texts.items()}
            own = texts.setdefault(bundle, {})
            own.pop(str(latent), None)
            if text.strip():
                own[str(latent)] = text.encode(errors="replace").decode()  # half a letter cannot be written
            write_bytes(self.path, json_bytes({"notes": texts}))
            self._texts = texts


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
