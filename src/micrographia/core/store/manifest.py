"""Manifests: hashes of the files that were written, and checks that they are unchanged.

A manifest names each file of a folder with its length and SHA-256. A file being added to a finished Run is listed under
`arriving` until both it and the manifest are written, so that an intact folder never looks damaged.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from micrographia.core.errors import Corrupt
from micrographia.core.store.formats import json_bytes, read_json

NAME = "manifest.json"
Entry = Mapping[str, Any]


class Problem(NamedTuple):
    """A file, as a path inside its Run, and its problem."""

    file: str
    what: str


def entry(data: bytes) -> dict[str, Any]:
    """Length and hash of a file's content."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def entries(root: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Length and hash of files on disk; each is read once."""
    return {name: entry((root / name).read_bytes()) for name in names}


def check(root: Path, name: str, *expected: Entry) -> Problem | None:
    """The problem of `root / name`, which should match one of `expected`; None when it does."""
    path = root / name
    if not path.is_file():
        return Problem(name, "missing")
    size = path.stat().st_size
    if size < min(each["bytes"] for each in expected):
        return Problem(name, f"cut short: {size} bytes of {expected[-1]['bytes']}")
    found = entry(path.read_bytes())
    return None if found in [dict(each) for each in expected] else Problem(name, "altered")


def read(path: Path) -> dict[str, Any]:
    """A manifest; raises Corrupt unless it is byte for byte as it would be written."""
    manifest = read_json(path)
    lists = [manifest.get("files"), manifest.get("arriving", {}), manifest.get("snapshots", {})]
    if path.read_bytes() != json_bytes(manifest) or not all(map(is_list, lists)):
        raise Corrupt(f"Cannot trust {path}: it is not as it was written. Restore it or run again.")
    return manifest


def is_list(files: Any) -> bool:
    """Whether these are files with their length and hash."""
    return isinstance(files, dict) and all(
        isinstance(each, dict) and each.keys() == {"bytes", "sha256"} and isinstance(each["bytes"], int)
        for each in files.values()
    )


def settled(root: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with each arriving file added if it is complete, and dropped if not."""
    arriving = manifest.get("arriving", {})
    arrived = {name: new for name, new in arriving.items() if check(root, name, new) is None}
    return {"files": {**manifest["files"], **arrived}}
