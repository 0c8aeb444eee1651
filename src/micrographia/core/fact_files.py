"""Facts with their own prompts, from two published files: athletes with their sports, and what GPT-2 XL knows.

Athletes: a CSV with `athlete`, `sport` and `prompt`, whose cells run over two lines ("Fact: Tiger Woods plays the sport
of golf", then the question), as in github.com/neelnanda-io/LLaMA-Fact. Its first column, pandas' index, has no name;
`sport_token` and `num_athlete_tokens` are of that work's tokenizer, and are not read.
Known facts: a JSON list of `subject`, `attribute`, `template`, `prompt`, `prediction`, `relation_id` and `known_id`, as
in rome.baulab.info/data/dsets/known_1000.json (Meng et al. 2022). A prompt may be longer than its template filled in:
"{} is located in the continent", and "Vinson Massif is located in the continent of"; the prompt is what is asked.
"""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from micrographia.core.errors import BadPrompt
from micrographia.core.relations import SLOT, Fact, WrittenRelation
from micrographia.core.subjects import place_of_subject


class AskedFact(NamedTuple):
    """A fact with the very text that asks for it, and the name of its relation."""

    subject: str
    answer: str
    prompt: str
    relation: str


def read_athletes(path: Path | str) -> list[AskedFact]:
    """The rows of the athletes' CSV in its order. Raises BadPrompt, naming row and column."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    columns = ("athlete", "sport", "prompt")
    if lacking := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise BadPrompt(
            f"Asked for the athletes in {path}, which lacks the column {lacking[0]!r}. Found "
            f"{', '.join(filter(None, reader.fieldnames or ())) or 'nothing'}. Give a file with {', '.join(columns)}."
        )
    found = [
        _asked((row["athlete"], row["sport"], row["prompt"], "athlete sport"), columns, f"row {i} of {path}")
        for i, row in enumerate(reader, start=1)
    ]
    if not found:
        raise BadPrompt(f"Asked for the athletes in {path}, which holds no row below its head. Give a whole file.")
    return found


def read_known(path: Path | str) -> list[AskedFact]:
    """The facts of known_1000.json in its order. Raises BadPrompt, naming row and field."""
    try:
        listed = json.loads(_text(path))
    except ValueError as error:
        raise BadPrompt(f"Asked for the facts in {path}, which is no JSON: {error}. Mend it.") from error
    if not isinstance(listed, list) or not listed:
        raise BadPrompt(f"Asked for the facts in {path}, which holds no list of them. Give known_1000.json.")
    fields = ("subject", "attribute", "prompt", "relation_id")
    return [
        _asked(_cells(row, fields, f"row {i} of {path}"), fields, f"row {i} of {path}")
        for i, row in enumerate(listed, 1)
    ]


def _form(asked: AskedFact) -> str:
    """The prompt with the slot in place of its subject."""
    begin = place_of_subject(asked.prompt, asked.subject)
    return asked.prompt if begin < 0 else asked.prompt[:begin] + SLOT + asked.prompt[begin + len(asked.subject) :]


def relation_of(asked: list[AskedFact], name: str | None = None) -> WrittenRelation:
    """The relation of these facts: the template is what their prompts share, the subject taken out.

    Raises BadPrompt where the prompts are not of one form.
    """
    if not asked:
        raise BadPrompt("Asked for the relation of some facts, of which there are none. Give at least one.")
    forms = list(dict.fromkeys(_form(each) for each in asked))
    if len(forms) != 1:
        raise BadPrompt(
            f"One relation was asked for of {len(asked)} facts, whose prompts have {len(forms)} forms, such as "
            f"{forms[0]!r} and {forms[-1]!r}. Take the facts of one `relation` and form."
        )
    facts = tuple(dict.fromkeys(Fact(each.subject, each.answer) for each in asked))
    return WrittenRelation(name=name or asked[0].relation, templates=(forms[0],), facts=facts)


def _cells(row: Any, fields: tuple[str, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(row, Mapping):
        raise BadPrompt(f"{where} is {row!r:.40}. Write an object with {', '.join(fields)}.")
    return tuple(row.get(name) for name in fields)


def _asked(cells: tuple[Any, ...], fields: tuple[str, ...], where: str) -> AskedFact:
    for name, value in zip(fields, cells):
        if not isinstance(value, str) or not value.strip():
            raise BadPrompt(f"{where} has {value!r:.40} as its {name}. Write a text.")
    subject, answer, prompt, relation = (str(value).strip() for value in cells)
    if subject not in prompt:
        raise BadPrompt(f"The prompt in {where}, {prompt!r:.80}, does not name its subject {subject!r}. Mend the row.")
    return AskedFact(subject, answer, prompt, relation)


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadPrompt(f"Asked for the facts in {path}, which cannot be read: {error}. Is the name right?") from error
