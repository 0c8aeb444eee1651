"""Shards: a folder of files written one after the other, so that writing goes on after any stop, and each is checked.

The manifest names every shard with its length and hash, what the folder is of (`about`), and after each shard the place
from where writing goes on (`places`). A shard is written first, then the manifest, each by one rename. A reader sees
a truncated shard when it opens the folder, and any other change before it first uses the shard.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from micrographia.core.errors import BadConfig, Corrupt, RunExists, RunNotFound
from micrographia.core.store import atomic, lock, manifest
from micrographia.core.store.atomic import write_bytes
from micrographia.core.store.formats import json_bytes, plain
from micrographia.core.store.lock import Lock
from micrographia.core.store.models import sha256_of

Place = Mapping[str, Any]


class ShardWriter:
    """The right to write one folder of shards; a context manager.

    `n_shards` and `place` say how far it is, `dropped` which shards were damaged and are to be written again.
    """

    def __init__(self, path: Path, record: dict[str, Any], held: Lock) -> None:
        self.path = path
        self.dropped: list[str] = []
        self._record = record
        self._lock = held

    @classmethod
    def open(cls, path: Path | str, *, kind: str, about: Mapping[str, Any]) -> "ShardWriter":
        """Begin a folder of shards of this `kind`, or go on with the one there. Each shard there is read and hashed.

        Raises BadConfig where the shards there are of something else, RunExists for a folder with other files,
        RunLocked, CannotWrite, Corrupt for a damaged manifest.
        """
        path = Path(path).absolute()
        _refuse_occupied(path)
        atomic.make_folder(path)
        held = Lock.take(path)
        try:
            atomic.clean(path)
            new = {"kind": kind, "about": plain(about), "finished": False, "places": [], "files": {}}
            begun = (path / manifest.NAME).exists()
            record = _read(path, kind) if begun else new
            _refuse_other(path, record["about"], new["about"])
            writer = cls(path, record, held)
            if not begun:
                writer._commit()
            writer._drop_damaged()
        except BaseException:
            held.release()
            raise
        return writer

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    @property
    def n_shards(self) -> int:
        return len(self._record["files"])

    @property
    def finished(self) -> bool:
        return self._record["finished"]

    @property
    def place(self) -> Place:
        """What `add` was given with the last shard; empty before the first."""
        return self._record["places"][-1] if self.n_shards else {}

    @property
    def files(self) -> list[Path]:
        """The shards so far, each as it was written."""
        return [self.path / name for name in self._record["files"]]

    def add(self, data: bytes, place: Place, *, suffix: str) -> None:
        """Commit the next shard; writing goes on from `place`. Raises CannotWrite, and nothing is lost."""
        name = f"{self.n_shards:06d}{suffix}"
        write_bytes(self.path / name, data)
        self._record["files"][name] = manifest.entry(data)
        self._record["places"].append(plain(place))
        try:
            self._commit()
        except BaseException:
            self._record["files"].pop(name)
            self._record["places"].pop()
            raise

    def finish(self, found: Mapping[str, Any]) -> None:
        """Declare the folder complete, with what is known of it now that it is."""
        self._record |= {"finished": True, "found": plain(found)}
        self._commit()

    def _commit(self) -> None:
        write_bytes(self.path / manifest.NAME, json_bytes(self._record))

    def _drop_damaged(self) -> None:
        """Keep the shards before the first damaged one."""
        names = list(self._record["files"])
        bad = next((i for i, name in enumerate(names) if self._problem(name)), None)
        if bad is None:
            return
        self.dropped = names[bad:]
        self._record["files"] = {name: self._record["files"][name] for name in names[:bad]}
        self._record["places"] = self._record["places"][:bad]
        self._record["finished"] = False
        self._commit()

    def _problem(self, name: str) -> bool:
        return _size_problem(self.path, name, self._record["files"][name]) is not None or (
            sha256_of(self.path / name) != self._record["files"][name]["sha256"]
        )


class Shards:
    """A finished folder of shards, for reading. Sizes are checked now, each hash before the first use of its shard."""

    def __init__(self, path: Path | str, *, kind: str) -> None:
        """Raises RunNotFound without a manifest, Corrupt for one that is damaged, unfinished or of missing shards."""
        self.path = Path(path).absolute()
        if not (self.path / manifest.NAME).is_file():
            raise RunNotFound(f"Asked for {kind} in {self.path}, which holds no {manifest.NAME}. Give their folder.")
        record = _read(self.path, kind)
        if not record["finished"]:
            raise Corrupt(
                f"Asked for {kind} in {self.path}, of which {len(record['files'])} shards are written and more are to "
                "come. Run the command that writes them once more: it goes on."
            )
        self.about: Mapping[str, Any] = record["about"]
        self.found: Mapping[str, Any] = record["found"]
        self.places: list[Place] = record["places"]
        """What was known after each shard."""
        self._files: Mapping[str, Any] = record["files"]
        self._checked: set[str] = set()
        for name, entry in self._files.items():
            if problem := _size_problem(self.path, name, entry):
                raise Corrupt(f"Asked for {kind} in {self.path}, where {name} is {problem}. {_AGAIN}")

    @property
    def names(self) -> list[str]:
        return list(self._files)

    @property
    def n_bytes(self) -> int:
        return sum(entry["bytes"] for entry in self._files.values())

    @property
    def identity(self) -> str:
        """One hash of all content."""
        return manifest.entry(json_bytes({"files": self._files}))["sha256"]

    def file(self, name: str) -> Path:
        """A shard that is as it was written: read and hashed when first asked for. Raises Corrupt."""
        if name not in self._checked:
            if sha256_of(self.path / name) != self._files[name]["sha256"]:
                raise Corrupt(f"Asked to read {self.path / name}, which was altered since it was written. {_AGAIN}")
            self._checked.add(name)
        return self.path / name

    def check(self) -> None:
        """Hash every shard now. Raises Corrupt."""
        for name in self.names:
            self.file(name)


def complete(path: Path | str, *, kind: str, about: Mapping[str, Any]) -> Shards | None:
    """The finished folder of exactly this, every hash checked; None where there is none, or a damaged one.

    Takes no lock, so that a folder that one may only read will do.
    """
    try:
        shards = Shards(path, kind=kind)
        if dict(shards.about) != plain(about):
            return None
        shards.check()
    except (RunNotFound, Corrupt):  # `ShardWriter.open` says what is wrong, or mends it
        return None
    return shards


_AGAIN = "Run the command that wrote it once more, which replaces damaged shards, or restore it."


def mapped(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """The raw numbers of a file as an array that is read from the disk where it is used."""
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def _read(path: Path, kind: str) -> dict[str, Any]:
    record = manifest.read(path / manifest.NAME)
    if record.get("kind") != kind:
        raise BadConfig(f"Asked for {kind} in {path}, which holds {record.get('kind') or 'something else'}.")
    return record


def _size_problem(path: Path, name: str, entry: Mapping[str, Any]) -> str | None:
    if not (path / name).is_file():
        return "missing"
    size = (path / name).stat().st_size
    return None if size == entry["bytes"] else f"of {size:,} bytes where {entry['bytes']:,} were written"


def _refuse_other(path: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    differing = [
        f"{name} is {stored.get(name, '(absent)')!r} there, {given.get(name, '(absent)')!r} asked"
        for name in sorted({*stored, *given})
        if stored.get(name) != given.get(name)
    ]
    if differing:
        raise BadConfig(
            f"Asked to write into {path}, which holds others: {'; '.join(differing)}. Ask for the same, or give "
            "another folder."
        )


def _refuse_occupied(path: Path) -> None:
    if (path / manifest.NAME).is_file() or not path.exists():
        return
    found = [path.name] if not path.is_dir() else [each.name for each in path.iterdir()]
    foreign = [name for name in found if name != lock.NAME and not name.startswith(atomic.TEMPORARY)]
    foreign = [name for name in foreign if not name[:6].isdecimal()]  # a shard of a folder that never had a manifest
    if foreign:
        raise RunExists(f"Asked to write into {path}, which holds other files ({foreign[0]}). Choose a new folder.")
