"""Prompt pairs, reference texts and labelled texts from files.

Pairs are JSON (a list of objects, or an object with such a list as `prompts`), JSONL (an object a line) or CSV (a head
with the columns' names), in a layout of `core.prompt_layouts`. A reference is a list of texts: a text file of one a
line, JSON strings, or any of the above, whose clean prompts are taken. Labelled texts are objects with a
`text` and its `label`.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from micrographia.core.errors import BadPrompt
from micrographia.core.prompt_layouts import COLUMNS, NAMES, layout_of, pair_of
from micrographia.core.prompts import PairText


def read_pairs(
    path: Path | str, *, layout: str = "auto", columns: Mapping[str, str] | None = None, limit: int | None = None
) -> list[PairText]:
    """The prompt pairs of a file, in its order; with `limit` only the first.

    `layout` names whose layout it is (`prompt_layouts.NAMES`), where the columns do not tell; `columns` name the file's
    columns for clean, corrupt, answer or wrong. Raises BadPrompt, naming row and column, for what cannot be read.
    """
    place = Path(path)
    if layout not in ("auto", *NAMES):
        raise BadPrompt(f"Asked for the layout {layout!r} of {path}. There are auto, {', '.join(NAMES)}.")
    if limit is not None and not (isinstance(limit, int) and limit >= 1):
        raise BadPrompt(f"Asked for the first {limit!r} pairs of {path}. Ask for 1 at least.")
    chosen_names = columns or {}
    if not isinstance(chosen_names, Mapping) or any(
        side not in COLUMNS or not isinstance(name, str) for side, name in chosen_names.items()
    ):
        raise BadPrompt(
            f"Found {columns!r} as the columns. Give the file's own names of {', '.join(COLUMNS)}, as texts."
        )
    found = _records(place)[:limit]
    if not found:
        raise BadPrompt(f"Asked for the prompts in {path}, which holds none. Write at least one pair.")
    if not isinstance(found[0], Mapping):
        raise BadPrompt(f"row 1 of {path} is {found[0]!r:.80}. Write an object with clean, corrupt, answer and wrong.")
    chosen = layout_of(found[0], layout, chosen_names, path)
    return [pair_of(row, chosen, f"row {i + 1} of {path}") for i, row in enumerate(found)]


def read_texts(path: Path | str) -> list[str]:
    """The texts of a reference file, in its order."""
    place = Path(path)
    if place.suffix.lower() not in READERS:
        found: list[Any] = [line for line in _lines(_text(place)) if line.strip()]
    else:
        found = _records(place)
    texts = [row.get("clean") or row.get("text") if isinstance(row, Mapping) else row for row in found]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise BadPrompt(
            f"Asked for the texts in {path}; found {len(texts)} rows that are not all texts. Write one a line, a JSON "
            "list of strings, or objects with `text` or `clean`."
        )
    return [str(text) for text in texts]


class LabelledText(NamedTuple):
    """A text and its class; texts of one group stay together where they are split."""

    text: str
    label: str | int
    group: str | int | None = None


def read_labelled(
    path: Path | str, *, columns: Mapping[str, str] | None = None, limit: int | None = None
) -> list[LabelledText]:
    """The labelled texts of a JSON, JSONL or CSV file, in its order; with `limit` only the first.

    `columns` name the file's columns for text, label or group. Raises BadPrompt, naming the row, for one without text
    or label, or whose label is neither a name nor a whole number; and where some rows have a group and others have not.
    """
    names = {side: side for side in LabelledText._fields} | dict(columns or {})
    found = [_labelled(row, names, f"row {i} of {path}") for i, row in enumerate(_records(Path(path))[:limit], start=1)]
    if not found:
        raise BadPrompt(f"Asked for the labelled texts in {path}, which holds none. Write at least one.")
    grouped = [each.group is not None for each in found]
    if any(grouped) and not all(grouped):
        raise BadPrompt(f"row {grouped.index(False) + 1} of {path} has no group, and others have. Give it one.")
    return found


def _labelled(row: Any, names: Mapping[str, str], where: str) -> LabelledText:
    if not isinstance(row, Mapping):
        raise BadPrompt(f"{where} is {row!r:.80}. Write an object with {names['text']} and {names['label']}.")
    text, label, group = (row.get(names[side]) for side in LabelledText._fields)
    group = None if group == "" else group  # an empty cell of CSV
    if not isinstance(text, str) or not text:
        raise BadPrompt(
            f"{where} has no text as {names['text']!r}; it has {', '.join(map(str, row))}. Name the column."
        )
    if label is None or label == "":
        raise BadPrompt(
            f"{where} has no {names['label']!r}. Write a class beside every text: a name or a whole number."
        )
    for side, value in (("label", label), ("group", group)):
        if not isinstance(value, str | int | None):
            raise BadPrompt(f"{where} has the {side} {value!r:.40}. Write a name, or a whole number.")
    return LabelledText(text, label, group)


def _records(path: Path) -> list[Any]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadPrompt(f"Asked for the prompts in {path}, whose kind is not known. Give {', '.join(READERS)}.")
    text = _text(path)
    try:
        return reader(text)
    except RecursionError as error:
        raise BadPrompt(f"Asked for the prompts in {path}, which is nested too deep to be pairs.") from error
    except (ValueError, csv.Error) as error:
        raise BadPrompt(f"Asked for the prompts in {path}, which is no {path.suffix[1:].upper()}: {error}.") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadPrompt(
            f"Asked for the prompts in {path}, which cannot be read: {error}. Is the name right?"
        ) from error
    except UnicodeDecodeError as error:
        raise BadPrompt(
            f"Asked for the prompts in {path}, which is not in UTF-8: {error}. Save it as UTF-8."
        ) from error


def _lines(text: str) -> list[str]:
    """The lines of a text by its line ends alone: a text within a line may hold other separators, such as U+2028."""
    return re.split("\r\n|\n|\r", text)


def _json(text: str) -> list[Any]:
    found = json.loads(text)
    if isinstance(found, dict) and isinstance(found.get("prompts"), list):
        found = _in_turn(found) if "answers" in found else found["prompts"]
    if not isinstance(found, list):
        raise ValueError(f"it holds a {type(found).__name__}, not a list")
    return found


def _in_turn(found: Mapping[str, Any]) -> list[Any]:
    """Prompts with an answer and a wrong one each, as in ARENA's exercises, where neighbours are each other's corrupt.

    Raises ValueError unless the answers of neighbours are those of each other the other way round.
    """
    prompts, answers = found["prompts"], found["answers"]
    if not isinstance(answers, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in answers):
        raise ValueError("its answers are not a list of two for each prompt, the right and the wrong one")
    turned = [list(pair)[::-1] for i in range(0, len(answers), 2) for pair in answers[i : i + 2][::-1]]
    if len(prompts) != len(answers) or len(prompts) % 2 or turned != [list(pair) for pair in answers]:
        raise ValueError(
            "its prompts stand beside their answers, without corrupt ones: then each must be followed by its own "
            "corrupt one, with the same two answers the other way round"
        )
    return [
        {"clean": prompt, "corrupt": prompts[i ^ 1], "answer": right, "wrong": wrong}
        for i, (prompt, (right, wrong)) in enumerate(zip(prompts, answers))
    ]


def _jsonl(text: str) -> list[Any]:
    found = []
    for i, line in enumerate(_lines(text), start=1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {i}: {getattr(error, 'msg', error)}") from error
    return found


def _csv(text: str) -> Sequence[Any]:
    reader = csv.DictReader(io.StringIO(text.lstrip("\r\n"), newline=""), strict=True)
    names = list(reader.fieldnames or ())
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"its column {twice[0]!r} is there twice")
    rows = list(reader)
    if any(None in row for row in rows):
        raise ValueError("a row has more columns than the head; put texts with commas between quotes")
    return [{name: value for name, value in row.items() if name} for row in rows]  # pandas' index has no name


READERS = {".json": _json, ".jsonl": _jsonl, ".csv": _csv}
