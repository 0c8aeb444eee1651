"""Texts: what is read, document by document: a file, a folder, JSONL, a Hugging Face data set, or Python's own sources.

A document comes in pieces of at most `PIECE` characters, cut at a line's end where there is one, so that a file of any
length is read in little memory. A `Tally` counts what was read and hashes it, so that a change is seen.
"""

import codecs
import gzip
import hashlib
import json
import os
import platform
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from micrographia.core.errors import MissingExtra, UserError
from micrographia.core.spoken import number_of

PIECE = 2**16
"""Characters."""
LONGEST_NAME = 1024
"""Characters of the name of a file or data set."""
JSONL = (".jsonl", ".ndjson")
HUB = "hf:"
NOT_OURS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
"""Folders of the standard library that are left out."""


class Piece(NamedTuple):
    """A part of a document; `ends` is True of its last one."""

    text: str
    ends: bool
    source: str = ""
    """What the document is from: of a folder the file or folder in it, of JSONL what the row says; "": not known."""


class Document(NamedTuple):
    """A text that is at hand whole."""

    text: str
    source: str = ""


@dataclass(slots=True)
class Tally:
    """What was read so far."""

    n_documents: int = 0
    n_characters: int = 0
    skipped: list[str] = field(default_factory=list)
    """Files that are no text."""
    _hash: Any = field(default_factory=hashlib.sha256, repr=False)

    @property
    def sha256(self) -> str:
        """Of all pieces so far, with where documents end."""
        return self._hash.hexdigest()

    def add(self, piece: Piece) -> None:
        self.n_documents += piece.ends
        self.n_characters += len(piece.text)
        self._hash.update(piece.text.encode("utf-8", "surrogatepass") + (b"\xff" if piece.ends else b"\xfe"))

    def __str__(self) -> str:
        left = f", {number_of(len(self.skipped), 'file')} without text left out" if self.skipped else ""
        return f"{number_of(self.n_documents, 'document')} of {number_of(self.n_characters, 'character')}{left}"


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents that can be read as often as one likes, always in the same order.

    >>> [piece.text for piece in texts_of(["one", "two"]).pieces()]
    ['one', 'two']
    """

    source: str
    """What it is, in words."""
    read: Callable[[Tally], Iterator[Piece]]

    def pieces(self, tally: Tally | None = None) -> Iterator[Piece]:
        """Read from the beginning; empty documents are left out. `tally` counts along."""
        tally = Tally() if tally is None else tally
        for piece in self.read(tally):
            tally.add(piece)
            yield piece


def open_texts(source: str | Path | None = None, *, field: str = "text", split: str = "train") -> Texts:
    """The texts that `source` names. Nothing is read yet.

    A file of text (one document), a `.jsonl` file (one document a line, in `field`), either also as `.gz`; a folder
    (its files in order, those that are no text left out); `hf:NAME` or `hf:NAME:CONFIG`, a data set on the Hub, whose
    `split` is streamed; None: the Python sources of the standard library, which every user has.
    Raises UserError for a path that is not there; MissingExtra without `datasets`.
    """
    if source is None:
        return _standard_library()
    if isinstance(source, str) and source.startswith(HUB):
        return _hub(source.removeprefix(HUB), field, split)
    if len(str(source)) > LONGEST_NAME or "\n" in str(source):
        raise UserError(
            f"Asked for the text in a file called {str(source)[:40]!r}..., {len(str(source)):,} characters: a text, it "
            "seems, and no name. Give a list of texts, or a file."
        )
    path = Path(source).expanduser()
    if not str(source).strip():
        raise UserError(
            "Asked for the text in '', which is no name. Give a file, a folder or a data set, or leave it out."
        )
    if path.is_dir():
        return Texts(f"the folder {path}", lambda tally: _folder(path, _files(path), field, tally))
    if not path.is_file():
        raise UserError(
            f"Asked for the text in {path}, where there is nothing. Give a file of text, a folder, a .jsonl file, or "
            f"{HUB}NAME of a data set on the Hub; with none, Python's own sources are read."
        )
    return Texts(f"the file {path}", lambda tally: _file(path, field, ""))


def texts_of(documents: Iterable[str], source: str = "the given texts") -> Texts:
    """Texts that are at hand."""
    held = tuple(documents)
    return Texts(source, lambda tally: _all(map(Document, held)))


def _standard_library() -> Texts:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path for path in _files(root, NOT_OURS) if path.suffix == ".py"]
    if not files:
        raise UserError(
            f"No text was given, so that Python's own sources were to be read; there are none in {root}. Give a file, "
            "a folder or a data set."
        )
    source = f"the standard library of Python {platform.python_version()} ({len(files):,} files)"
    return Texts(source, lambda tally: _folder(root, files, "text", tally))


def _hub(name: str, field: str, split: str) -> Texts:
    try:
        import datasets  # type: ignore[import-not-found]  # heavy, needed here only, and not always there
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"The data set {name!r} on the Hub was asked for, which needs the package `datasets`, not installed. "
            "Install it (pip install datasets), or give a file, a folder or a .jsonl file."
        ) from error
    repo, _, config = name.partition(":")

    def read(tally: Tally) -> Iterator[Piece]:
        try:
            rows: Iterable[Any] = datasets.load_dataset(repo, config or None, split=split, streaming=True)
        except (OSError, ValueError) as error:  # no such data set, config or split; no network
            raise UserError(
                f"Asked for the data set {name!r} ({split}) on the Hub; it could not be opened: {error}. Check its "
                f"name, its configuration ({HUB}NAME:CONFIG), the split and the network."
            ) from error
        return _all(_document(row, field, f"row {i:,} of {name}") for i, row in enumerate(rows))

    return Texts(f"the data set {name} ({split})", read)


def _files(root: Path, without: Collection[str] = ()) -> list[Path]:
    """The files below a folder in an order that is the same everywhere, without hidden ones and some folders."""
    found: dict[str, Path] = {}
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".") and name not in without]
        paths = [Path(folder, name) for name in names if not name.startswith(".")]
        found |= {path.relative_to(root).as_posix(): path for path in paths}
    return [found[name] for name in sorted(found)]


def _folder(root: Path, files: Iterable[Path], field: str, tally: Tally) -> Iterator[Piece]:
    for path in files:
        if _is_text(path):
            yield from _file(path, field, path.relative_to(root).parts[0])
        else:
            tally.skipped.append(str(path))


def _file(path: Path, field: str, source: str) -> Iterator[Piece]:
    lines = path.with_suffix("") if path.suffix == ".gz" else path
    if lines.suffix in JSONL:
        return _all(each._replace(source=each.source or source) for each in _lines(path, field))
    return _pieces(_characters(path), source)


def _lines(path: Path, field: str) -> Iterator[Document]:
    for number, line in enumerate(_text_lines(path), 1):
        if not line.strip():
            continue
        where = f"line {number:,} of {path}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"Asked for JSONL; {where} is no JSON ({error}). Give one object a line.") from error
        yield _document(row, field, where)


def _text_lines(path: Path) -> Iterator[str]:
    """Lines as JSON has them, which ends them by \\n alone."""
    begun: list[str] = []
    for block in _characters(path):
        first, *lines = block.split("\n")
        begun.append(first)
        if lines:
            yield "".join(begun)
            yield from lines[:-1]
            begun = [lines[-1]]
    yield "".join(begun)


def _document(row: Any, field: str, where: str) -> Document:
    """The text in a field of the row, and the source that it names, also as rows of the Pile do (`meta`)."""
    text = _in_field(row, field, where)
    meta = row.get("meta")
    told = [row.get("source"), *([meta.get("pile_set_name")] if isinstance(meta, dict) else [])]
    return Document(text, next((each for each in told if isinstance(each, str)), ""))


def _in_field(row: Any, field: str, where: str) -> str:
    found = row.get(field) if isinstance(row, dict) else None
    if not isinstance(found, str):
        has = ", ".join(map(str, row)) if isinstance(row, dict) else f"a {type(row).__name__}"
        what = "no text" if isinstance(row, dict) and field in row else "no such field"
        raise UserError(f"Asked for the field {field!r} of each row; {where} has {what} there. It has {has}. Name one.")
    return found


def _opened(path: Path) -> Any:
    return gzip.GzipFile(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _characters(path: Path) -> Iterator[str]:
    """A file's text in blocks. Raises UserError where it is none."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        with _opened(path) as stream:
            while block := stream.read(PIECE):
                yield decoder.decode(block)
        yield decoder.decode(b"", final=True)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"Asked for the text in {path}, which cannot be read as UTF-8: {error}. Convert it.") from error


def _is_text(path: Path) -> bool:
    """Whether a file is UTF-8 without null characters. Reads it."""
    try:
        return not any("\0" in block for block in _characters(path))
    except UserError:
        return False


def _all(documents: Iterable[Document]) -> Iterator[Piece]:
    for text, source in documents:
        yield from _pieces((text[at : at + PIECE] for at in range(0, len(text), PIECE)), source)


def _pieces(blocks: Iterable[str], source: str) -> Iterator[Piece]:
    """One document, given in blocks of any length, cut anew. None of an empty one."""
    held = ""
    for block in blocks:
        held += block
        while len(held) > PIECE:
            cut = held.rfind("\n", 0, PIECE) + 1 or held.rfind(" ", 1, PIECE)
            cut = cut if cut > 0 else PIECE
            yield Piece(held[:cut], False, source)
            held = held[cut:]
    if held:
        yield Piece(held, True, source)
