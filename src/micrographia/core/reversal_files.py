"""The files of the reversal curse: invented people and what they are known for, and parents of celebrities.

Statements are JSONL, an object a line with `prompt` and `completion`, which begins with a space. `p2d` goes from the
person to the description, `d2p` back, `both` both ways, each with a `_prompts_train` and a `_prompts_test` file; the
`_reverse_prompts_test` files ask what was trained one way the other way round. A training completion may run on after
the name (" Samuel Rockford now enjoys a quite life."); a test's is the name alone. A folder may lack some of the files:
of `p2d`, reversed tests with random names (`_randomized`) may be there, which are no answers and are not read. Pairs
are a CSV of `child`, `parent`, `parent_type`, `child_prediction` (often empty, or another spelling: "Zendaya Coleman")
and `can_reverse`; some stand twice, and other versions have a model's log-probabilities instead of `can_reverse`.
Source: Berglund et al. 2023 (arXiv 2309.12288), github.com/lukasberglund/reversal_curse.
"""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from micrographia.core.errors import BadPrompt

ARMS = ("p2d", "d2p", "both")
PARENTS = ("mother", "father")


class Statement(NamedTuple):
    """A text in two parts, the second of which is learned or asked for."""

    prompt: str
    completion: str


class ReversalData(NamedTuple):
    """What is trained on and what tests it, by arm ("p2d", "d2p", "both")."""

    train: Mapping[str, tuple[Statement, ...]]
    same: Mapping[str, tuple[Statement, ...]]
    """Tests in the direction of training; of "both", both directions."""
    reverse: Mapping[str, tuple[Statement, ...]]
    """Tests against it."""


class Parentage(NamedTuple):
    """A child and a parent; `can_reverse` is what the file says of its model, None where it does not."""

    child: str
    parent: str
    parent_type: str
    can_reverse: bool | None


def read_statements(path: Path | str) -> tuple[Statement, ...]:
    """The statements of a JSONL file. Raises BadPrompt, naming line and field."""
    lines = [(i, line) for i, line in enumerate(_text(path).split("\n"), start=1) if line.strip()]
    if not lines:
        raise BadPrompt(f"Asked for the statements in {path}, which holds none. Give prompts and completions.")
    return tuple(_statement(line, f"line {i} of {path}") for i, line in lines)


def read_reversal(folder: Path | str) -> ReversalData:
    """The files of a published folder that are there. Raises BadPrompt for a folder without any training file."""
    place = Path(folder)

    def there(suffix: str) -> dict[str, tuple[Statement, ...]]:
        files = {arm: place / f"{arm}_{suffix}.jsonl" for arm in ARMS}
        return {arm: read_statements(file) for arm, file in files.items() if file.is_file()}

    train = there("prompts_train")
    if not train:
        held = ", ".join(sorted(file.name for file in place.glob("*.jsonl"))) or "no .jsonl file"
        raise BadPrompt(
            f"Asked for the reversal data in {folder}. Found {held}. It should hold p2d_prompts_train.jsonl, "
            "d2p_prompts_train.jsonl or both_prompts_train.jsonl."
        )
    return ReversalData(train, there("prompts_test"), there("reverse_prompts_test"))


def read_parentage(path: Path | str) -> tuple[Parentage, ...]:
    """The pairs of the CSV, each once, in its order. Raises BadPrompt, naming row and column."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    columns = ("child", "parent", "parent_type")
    if lacking := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise BadPrompt(
            f"Asked for the pairs in {path}, which lacks the column {lacking[0]!r}. Found "
            f"{', '.join(filter(None, reader.fieldnames or ())) or 'nothing'}. Give a file with {', '.join(columns)}."
        )
    found = tuple(dict.fromkeys(_parentage(row, f"row {i} of {path}") for i, row in enumerate(reader, start=1)))
    if not found:
        raise BadPrompt(f"Asked for the pairs in {path}, which holds no row below its head. Give a whole file.")
    return found


def _statement(line: str, where: str) -> Statement:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise BadPrompt(f"{where} is no JSON: {error}. Mend it.") from error
    for field in Statement._fields:
        value = found.get(field) if isinstance(found, Mapping) else None
        if not isinstance(value, str) or not value.strip():
            raise BadPrompt(f"{where} has {value!r:.40} as its {field}. Write an object with prompt and completion.")
    return Statement(found["prompt"], found["completion"])


def _parentage(row: Mapping[str, str | None], where: str) -> Parentage:
    child, parent, kind = ((row[name] or "").strip() for name in ("child", "parent", "parent_type"))
    if not child or not parent or kind not in PARENTS:
        raise BadPrompt(
            f"{where} has child {child!r}, parent {parent!r}, parent_type {kind!r}. Write mother or father."
        )
    told = (row.get("can_reverse") or "").strip()
    if told not in ("", "True", "False"):
        raise BadPrompt(f"{where} has {told!r} as can_reverse. Write True or False, or leave it empty.")
    return Parentage(child, parent, kind, told == "True" if told else None)


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadPrompt(f"Asked for {path}, which cannot be read: {error}. Is the name right?") from error
