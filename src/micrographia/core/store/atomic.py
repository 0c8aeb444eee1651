"""Atomic writes: a file is complete, either the old or the new version, and never in between.

A file is written under a temporary name in its own folder, flushed to the disk, renamed over the old one, and the
folder is flushed too. A folder of files is committed by one rename in the same way. The underscored primitives are the
only calls that change the disk, so that a test can simulate a crash at each of them in turn.
Temporary names begin with `.tmp-`; a killed process may leave some behind, and `clean` removes them.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from micrographia.core.errors import CannotWrite

TEMPORARY = ".tmp-"
OUT = "--out or $MICROGRAPHIA_RUNS"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, or leave the file unchanged. Missing folders are created.

    Raises CannotWrite, which names the path, the reason and what to do, when the disk is full or read-only.
    """
    path = Path(path)
    with explained(path):
        _make_parents(path.parent)
        with _temporary(path) as draft:
            _fill(draft, [data])
            _rename(draft, path)
        _sync_folder(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder with these files at `path`, committed by one rename. `path` must not exist yet.

    A name may have folders in it: "layer_0/cfg.json".
    """
    with new_folder(path) as draft:
        for name, data in files.items():
            write_chunks(draft / name, [data])


@contextmanager
def new_folder(path: Path, elsewhere: str = OUT, *, over: bool = False) -> Iterator[Path]:
    """The draft of a folder: whole at `path` by one rename where the block ends well, else gone.

    What others write into it reaches the disk first. `path` must not exist yet, or with `over` gives way then;
    `elsewhere` says, for the error of a full disk, how another one is chosen.
    """
    with explained(path, elsewhere):
        _make_parents(path.parent)
        with _temporary(path) as draft:
            _remove_tree(draft)
            _make_folder(draft)
            yield draft
            for inner in [draft, *(each for each in draft.rglob("*") if each.is_dir())]:
                _sync_folder(inner)
            (_swap if over and path.exists() else _rename)(draft, path)
        _sync_folder(path.parent)


def _swap(draft: Path, path: Path) -> None:
    """The draft in the place of a folder, which is removed; where it cannot be, that is put back."""
    before = _temporary_name(path.with_name(f"{path.name}-before"))
    _remove_tree(before)
    _rename(path, before)
    try:
        _rename(draft, path)
    except OSError:
        _rename(before, path)
        raise
    _remove_tree(before)


@contextmanager
def scratch(place: Path, elsewhere: str = OUT) -> Iterator[Path]:
    """A temporary folder in the folder `place`, gone after the block."""
    draft = _temporary_name(place / "download")
    with explained(place, elsewhere):
        _make_parents(place)
        _remove_tree(draft)
        _make_folder(draft)
    try:
        yield draft
    finally:
        if draft.exists():  # it may have been moved
            _remove_tree(draft)


def move_folder(source: Path, target: Path) -> None:
    """A finished folder under its new name, on the same disk. Its files reach the disk first."""
    for inner in [source, *source.rglob("*")]:
        if inner.is_dir():
            _sync_folder(inner)
        else:
            _sync_file(inner)
    _rename(source, target)
    _sync_folder(target.parent)


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file inside a draft, a chunk at a time, with its missing folders; it reaches the disk."""
    _make_parents(path.parent)
    _fill(path, chunks)


def overwrite(descriptor: int, data: bytes) -> None:
    """Overwrite the content of an open file: for the lock, which is ignored when incomplete."""
    os.ftruncate(descriptor, 0)
    _write(descriptor, data)


def remove(path: Path) -> None:
    """Remove a file or a folder. A folder is renamed first, so it is never visible half empty."""
    with explained(path):
        if path.is_dir() and not path.is_symlink():
            draft = _temporary_name(path)
            _remove_tree(draft)
            _rename(path, draft)
            _remove_tree(draft)
        elif path.is_symlink() or path.exists():
            _remove(path)
        _sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents."""
    with explained(path):
        _make_parents(path)


def clean(root: Path) -> None:
    """Remove every temporary file and folder below `root`, left half written by a killed process."""
    with explained(root):
        for draft in sorted(root.rglob(f"{TEMPORARY}*")):
            if draft.is_dir() and not draft.is_symlink():
                _remove_tree(draft)
            elif draft.is_symlink() or draft.exists():
                _remove(draft)


@contextmanager
def explained(path: Path, elsewhere: str = OUT) -> Iterator[None]:
    """Turn a system error into CannotWrite: what was requested, what was found, what to do."""
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        raised = CannotWrite(f"Cannot write {path}: {error.strerror or error}. {_advice(error.errno, elsewhere)}")
        raised.errno = error.errno
        raise raised from error


def _advice(number: int | None, elsewhere: str) -> str:
    kept = "What was there before is still there."
    if number in _FULL:
        return f"{kept} Free some space, or choose a folder on another disk ({elsewhere})."
    if number in _CLOSED:
        return f"{kept} Choose a folder you may write to ({elsewhere})."
    return f"{kept} Check the disk and the path, then try again."


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    draft = _temporary_name(path)
    try:
        yield draft
    except BaseException:
        with suppress(OSError):  # the first error is the one to report; `clean` runs later
            _remove_tree(draft)
        raise


def _temporary_name(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")


def _fill(path: Path, chunks: Iterable[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        for data in chunks:
            _write(descriptor, data)
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _make_parents(path: Path) -> None:
    if path.is_dir():
        return
    _make_parents(path.parent)
    _make_folder(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there, and a rename is durable without it
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


# The primitives.


def _make_folder(path: Path) -> None:
    path.mkdir(exist_ok=True)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _rename(source: Path, target: Path) -> None:
    source.replace(target)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _remove_tree(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
