"""Prompt pairs and reference texts from files.

Pairs are JSON (a list of objects), JSONL (an object a line) or CSV (a head with the columns' names), with the columns
clean, corrupt, answer and wrong. A reference is a list of texts: a text file of one a line, JSON strings, or any of the
above, whose clean prompts are taken.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from micrographia.core.errors import BadPrompt
from micrographia.core.prompts import PairText

COLUMNS = ("clean", "corrupt", "answer", "wrong")
NEEDED = COLUMNS[:3]


def read_pairs(path: Path | str) -> list[PairText]:
    """The prompt pairs of a file, in its order. Raises BadPrompt, naming row and column, for what cannot be read."""
    found = _records(Path(path))
    if not found:
        raise BadPrompt(f"Asked for the prompts in {path}, which holds none. Write at least one pair.")
    return [_pair(row, f"row {i + 1} of {path}") for i, row in enumerate(found)]


def read_texts(path: Path | str) -> list[str]:
    """The texts of a reference file, in its order."""
    place = Path(path)
    if place.suffix.lower() not in READERS:
        found: list[Any] = [line for line in _text(place).splitlines() if line.strip()]
    else:
        found = _records(place)
    texts = [row.get("clean") or row.get("text") if isinstance(row, Mapping) else row for row in found]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise BadPrompt(
            f"Asked for the texts in {path}; found {len(texts)} rows that are not all texts. Write one a line, a JSON "
            "list of strings, or objects with `text` or `clean`."
        )
    return [str(text) for text in texts]


def _pair(row: Any, where: str) -> PairText:
    if not isinstance(row, Mapping):
        raise BadPrompt(f"{where} is {row!r}. Write an object with {', '.join(COLUMNS)}.")
    if unknown := [str(key) for key in row if key not in COLUMNS]:
        near = [match for key in unknown for match in get_close_matches(key.lower(), COLUMNS, n=1)]
        hint = f"Did you mean {', '.join(near)}?" if near else f"Known are {', '.join(COLUMNS)}."
        raise BadPrompt(f"{where} has the column {', '.join(map(repr, unknown))}. {hint}")
    lacking = [key for key in NEEDED if not isinstance(row.get(key), str) or not row[key]]
    if lacking:
        raise BadPrompt(f"{where} lacks {', '.join(lacking)}. Each pair needs clean, corrupt and answer.")
    if not isinstance(row.get("wrong"), str | None):
        raise BadPrompt(f"{where} has the wrong answer {row['wrong']!r}. Write a text, or leave it out.")
    return PairText(row["clean"], row["corrupt"], row["answer"], row.get("wrong") or None)


def _records(path: Path) -> list[Any]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadPrompt(f"Asked for the prompts in {path}, whose kind is not known. Give {', '.join(READERS)}.")
    text = _text(path)
    try:
        return reader(text)
    except (ValueError, csv.Error) as error:
        raise BadPrompt(f"Asked for the prompts in {path}, which is no {path.suffix[1:].upper()}: {error}.") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadPrompt(
            f"Asked for the prompts in {path}, which cannot be read: {error}. Is the name right?"
        ) from error


def _json(text: str) -> list[Any]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError(f"it holds a {type(found).__name__}, not a list")
    return found


def _jsonl(text: str) -> list[Any]:
    found = []
    for i, line in enumerate(text.splitlines(), start=1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {i}: {getattr(error, 'msg', error)}") from error
    return found


def _csv(text: str) -> Sequence[Any]:
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    if any(None in row for row in rows):
        raise ValueError("a row has more columns than the head; put texts with commas between quotes")
    return rows


READERS = {".json": _json, ".jsonl": _jsonl, ".csv": _csv}
