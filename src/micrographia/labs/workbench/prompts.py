"""Prompt pairs of a question: as texts or from a file, read with the model's tokenizer and checked.

Files are JSON (a list of objects), JSONL (an object a line) or CSV (a head with the columns' names). A reference is a
list of texts: a text file of one a line, JSON strings, or any of the above, whose clean prompts are taken. Everything
that can be wrong about prompts is found here, before any Run is begun.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from micrographia.core.errors import BadPrompt
from micrographia.core.model import Model
from micrographia.core.prompts import NEED_WRONG, LanguageModel, Pairs, PairText, from_texts, position_names
from micrographia.core.tokens import Batch, Inputs, ids_of, to_str_tokens
from micrographia.labs.workbench.config import Prompts

COLUMNS = ("clean", "corrupt", "answer", "wrong")
NEEDED = COLUMNS[:3]


class PromptSet(NamedTuple):
    """The pairs, their texts, and a name for each position."""

    pairs: Pairs
    texts: list[PairText]
    positions: list[str]

    def rows(self, model: Model) -> list[dict[str, Any]]:
        """The pairs for the results: texts, answers, and the tokens of both prompts."""
        sides = (ids_of(self.pairs.clean), ids_of(self.pairs.corrupt))
        tokens = ([to_str_tokens(model.tokenizer, row) for row in side] for side in sides)
        return [
            {**text._asdict(), "clean_tokens": clean, "corrupt_tokens": corrupt}
            for text, clean, corrupt in zip(self.texts, *tokens)
        ]


def read_prompts(prompts: Prompts, model: LanguageModel, metrics: Sequence[str], option: str) -> PromptSet:
    """The pairs of a question, for these metrics, which are chosen by `option`.

    Raises BadPrompt, also where a metric compares two answers and there is one; UserError without a tokenizer.
    """
    if prompts.prompts is not None:
        texts = read_pairs(prompts.prompts)
    else:
        texts = [PairText(str(prompts.clean), str(prompts.corrupt), str(prompts.answer), prompts.wrong)]
    pairs = from_texts(model, texts, first_token=prompts.first_token)
    check_length(pairs.clean, model)
    needy = [name for name in metrics if name in NEED_WRONG]
    if needy and pairs.wrong is None:
        give = "Give --wrong" if prompts.prompts is None else f"Give every pair in {prompts.prompts} a wrong one"
        raise BadPrompt(
            f"The metric {needy[0]} compares two answers, but the prompts name no wrong one. {give}, or choose "
            f"{option} logit."
        )
    return PromptSet(pairs, texts, position_names(pairs, model.tokenizer))


def check_length(inputs: Inputs, model: Model) -> None:
    """Raise BadPrompt for a text longer than the model's context."""
    length = ids_of(inputs).shape[1]
    if length > model.shape.n_ctx:
        raise BadPrompt(
            f"A prompt has {length} tokens, but this model reads at most {model.shape.n_ctx}. Shorten the prompt."
        )


def reference_inputs(file: str | None, model: LanguageModel) -> Inputs | None:
    """The texts of a reference file as tokens; None, which means the pairs themselves, where there is no file."""
    if file is None:
        return None
    found = model.to_tokens(read_texts(file))
    check_length(found, model)
    device = model.weights.W_E.device
    if isinstance(found, Batch):
        return Batch(found.ids.to(device), None if found.mask is None else found.mask.to(device))
    return found.to(device)


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
