"""A file of game records, whichever its format: which one is decided by what is in it, and its name is held against it.

Bytes that are no text are a WTHOR file if their head says so or their name does; text with `(;TAG[` is GGF, text with
[Tag "value"] lines is read in the manner of PGN, other text a game a line. Where name and content differ, the content
decides and the user is told.
"""

import re
from pathlib import Path

from micrographia.core.errors import UserError
from micrographia.labs.othello.records import ggf, text, wthor
from micrographia.labs.othello.records.record import RecordFile, RecordProblem

PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"7z\xbc\xaf": "7z", b"\xfd7zXZ": "xz"}
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f\x7f]")  # no letter of any text; \x1a ended files under DOS


def read_records(path: str | Path) -> RecordFile:
    """The games of a file, as it tells them, and what could not be read. Nothing is replayed.

    Reads the whole file into memory. Raises UserError for a file that is missing or of no known format.
    """
    path = Path(path).expanduser()
    data = _bytes(path)
    written = _text(data)
    if written is None:
        if path.suffix.lower() not in wthor.SUFFIXES and not wthor.is_wthor(data):
            raise UserError(
                f"{path} is neither text nor a WTHOR file: its head does not fit its {len(data):,} bytes. Read are "
                "WTHOR files (.wtb), GGF, and moves in text."
            )
        return _named(path, wthor.read_wthor(path, data), wthor.SUFFIXES)
    if ggf.is_ggf(written):
        return _named(path, ggf.read_ggf(written), {".ggf"})
    read = text.read_tagged if text.is_tagged(written) else text.read_lines
    try:
        return _named(path, read(written), set())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"Asked for the games in {path}, which is a folder. Give its files.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"Asked for the games in {path}: {error.strerror}. Check the path.") from error
    if not data.strip():
        raise UserError(f"{path} is empty.")
    if packed := next((name for mark, name in PACKED.items() if data.startswith(mark)), ""):
        raise UserError(f"{path} is packed ({packed}). Unpack it and give the file inside.")
    return data


def _text(data: bytes) -> str | None:
    """The bytes as text, or None for bytes that are none. What is no UTF-8 is read as Latin-1: names alone differ."""
    coding = next((coding for mark, coding in MARKS.items() if data.startswith(mark)), "utf-8-sig")
    try:
        written = data.decode(coding)
    except UnicodeDecodeError:
        written = data.decode("latin-1")
    return None if CONTROL.search(written) else written.rstrip("\x1a")


def _named(path: Path, found: RecordFile, own: set[str]) -> RecordFile:
    """With a remark where the name is that of another format."""
    suffix = path.suffix.lower()
    if suffix in own or suffix not in {*wthor.SUFFIXES, ".ggf"}:
        return found
    remark = RecordProblem("file", "", f"its name ends in {path.suffix}, but it holds {found.format}: read as that")
    return found._replace(problems=[remark, *found.problems])
