"""Layouts of prompt files: which columns hold the prompts and answers of a pair, and how answers are written there.

Our own; those of auto-circuit (Miller et al., 2024), of the tasks published with EAP-IG (Hanna et al., 2024) and with
sparse feature circuits (Marks et al., 2024). Token ids are held against the words that they must be, where these are
known. A file of another kind is read by naming its columns.
"""

import ast
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from micrographia.core.answers import Answers, TokenId
from micrographia.core.errors import BadPrompt
from micrographia.core.prompts import PairText

Row = Mapping[str, Any]
COLUMNS = ("clean", "corrupt", "answer", "wrong")
NEEDED = COLUMNS[:3]
IDS = ("_id", "_ids", "_idx")
"""How the names of columns end that hold token ids."""


def as_given(value: Any, row: Row) -> Answers | None:
    """A text, a token id, or a list of them; None for nothing."""
    if isinstance(value, list | tuple) and value:
        found = [as_given(each, row) for each in value]
        if all(isinstance(each, str | TokenId) for each in found):
            return tuple(each for each in found if isinstance(each, str | TokenId))
        raise ValueError(
            f"{value!r}, which is not one token after the prompt. A sequence of answers, one for each position, as of "
            "tracr's models, cannot be scored"
        )
    if type(value) is int:
        return TokenId(value)
    if isinstance(value, str) or value is None or value == []:
        return value or None
    raise ValueError(f"{value!r}. Write a text, or a list of texts")


def as_ids(value: Any, row: Row, among: tuple[str, ...] = ()) -> Answers | None:
    """Token ids, also in a text: "16840", "[16840, 23685]"."""
    found = _literal(value) if isinstance(value, str) and value else value
    listed = list(found) if isinstance(found, list | tuple) else [found]
    ids = [each for each in listed if type(each) is int]
    if not ids or len(ids) < len(listed):
        raise ValueError(f"{value!r}, where ids of tokens were expected")
    return tuple(TokenId(each, among) for each in ids)


def named_in_prompt(value: Any, row: Row) -> Answers | None:
    """Ids of words of the clean prompt, as of the names in IOI."""
    return as_ids(value, row, tuple(dict.fromkeys(re.findall(r"\w+", str(row["clean"])))))


def pronoun(value: Any, row: Row) -> Answers | None:
    return as_ids(value, row, ("he", "she"))


def spaced(value: Any, row: Row) -> Answers | None:
    """Words without the space that stands before them; also a list of them as text: "['gem', 'gems']"."""
    words = _literal(value) if isinstance(value, str) and value.startswith("[") else value
    words = [words] if isinstance(words, str) else words
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"{value!r}. Write a word, or a list of words")
    return tuple(f" {word.strip()}" for word in words)


def later_years(value: Any, row: Row) -> Answers | None:
    """The two digits of all later years of the century, where the column holds those of the year in the prompt."""
    return tuple(f"{year:02d}" for year in range(_year(value, row) + 1, 100))


def earlier_years(value: Any, row: Row) -> Answers | None:
    return tuple(f"{year:02d}" for year in range(_year(value, row) + 1))


def _year(value: Any, row: Row) -> int:
    years = [int(text) for text in re.findall(r"\b\d\d(\d\d)\b", str(row.get("clean")))]
    if not str(value).isdigit() or int(value) not in years:
        raise ValueError(
            f"{value!r}, which is not the end of a year in the clean prompt. It is a label, or the id of a token: say "
            "where the answers stand"
        )
    return int(value)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{text!r}, which is neither an id nor a list") from error


Read = Callable[[Any, Row], Answers | None]


class PromptLayout(NamedTuple):
    """Where a pair stands in a row: their column for each of ours, and how their answers are read."""

    name: str
    columns: Mapping[str, str]
    answer: Read = as_given
    wrong: Read = as_given
    strict: bool = False
    """A column that is not of the layout is an error: it may be a misspelt one."""

    def holds(self, row: Row) -> bool:
        return all(self.columns[name] in row for name in NEEDED)


def _layout(name: str, columns: str, *read: Read, strict: bool = False) -> PromptLayout:
    return PromptLayout(name, dict(zip(COLUMNS, columns.split())), *read, strict=strict)


LAYOUTS = (
    _layout("own", "clean corrupt answer wrong", strict=True),
    _layout("auto-circuit", "clean corrupt answers wrong_answers"),
    _layout("eap-ig", "clean corrupted answers corrupted_answers", spaced, spaced),
    _layout("eap-ig", "clean corrupted country corrupted_country", spaced, spaced),
    _layout("eap-ig", "clean corrupted clean_answer_idx corrupted_answer_idx", pronoun, pronoun),
    _layout("feature-circuits", "clean_prefix patch_prefix clean_answer patch_answer"),
)
IOI = _layout("eap-ig", "clean corrupted correct_idx incorrect_idx", named_in_prompt, named_in_prompt)
YEARS = tuple(
    _layout("eap-ig", f"clean corrupted {label} {label}", later_years, earlier_years)
    for label in ("correct_idx", "label")
)
"""Greater-than: one column says which years are right and which are wrong."""
NAMES = ("own", "auto-circuit", "eap-ig", "feature-circuits")


def layout_of(row: Row, name: str, columns: Mapping[str, str], path: object) -> PromptLayout:
    """The layout of a file with such rows: of this name, or with "auto" the one that its columns tell.

    `columns` are read whatever the layout says of them. Raises BadPrompt, with the file's own columns, where there is
    none.
    """
    known = [*LAYOUTS, *([IOI] if "incorrect_idx" in row else YEARS)]
    fits = [_with(each, columns) for each in known if name in ("auto", each.name)]
    found = next((each for each in fits if each.holds(row)), None)
    if found is None and fits[0].strict and sum(name in row for name in COLUMNS) > 1:
        found = fits[0]  # one of ours in which something is missing or misspelt
    if found is not None and set(columns.values()) <= row.keys():
        return found
    if absent := ", ".join(repr(each) for each in columns.values() if each not in row):
        fault = f"they hold no {absent}"
    else:
        fault = "no layout that is known" if name == "auto" else f"not those of {name}"
    raise BadPrompt(
        f"Asked for the prompts in {path}, whose columns are {', '.join(map(str, row))}: {fault}. Say which to read, "
        'such as --columns "clean=prompt, corrupt=counterfactual, answer=target", or choose --prompt-format of '
        f"{', '.join(NAMES)}."
    )


def _with(layout: PromptLayout, columns: Mapping[str, str]) -> PromptLayout:
    """The layout with some of its columns named otherwise."""
    read = {
        side: as_ids if columns[side].endswith(IDS) else as_given for side in ("answer", "wrong") if side in columns
    }
    return layout._replace(columns={**layout.columns, **columns}, strict=layout.strict and not columns, **read)


def pair_of(row: Any, layout: PromptLayout, where: str) -> PairText:
    """The pair in a row. Raises BadPrompt, naming row and column."""
    if not isinstance(row, Mapping):
        raise BadPrompt(f"{where} is {row!r}. Write an object with {', '.join(COLUMNS)}.")
    if layout.strict and (unknown := [str(key) for key in row if key not in layout.columns.values()]):
        near = [match for key in unknown for match in get_close_matches(key.lower(), COLUMNS, n=1)]
        hint = f"Did you mean {', '.join(near)}?" if near else f"Known are {', '.join(COLUMNS)}."
        raise BadPrompt(f"{where} has the column {', '.join(map(repr, unknown))}. {hint} Or name columns (--columns).")
    texts = {side: row.get(layout.columns[side]) for side in ("clean", "corrupt")}
    if ids := [side for side, text in texts.items() if isinstance(text, list)]:
        raise BadPrompt(f"{where} has a {ids[0]} prompt of numbers, {texts[ids[0]]!r:.60}. Prompts are read as text.")
    answers = {side: _read(row, layout, side, where) for side in ("answer", "wrong")}
    found = {**texts, "answer": answers["answer"]}
    lacking = [side for side in NEEDED if not found[side] or (side != "answer" and not isinstance(found[side], str))]
    if lacking:
        theirs = ", ".join(layout.columns[side] for side in lacking)
        raise BadPrompt(f"{where} lacks {theirs}. Each pair needs clean, corrupt and answer.")
    right = answers["answer"]
    assert right is not None
    return PairText(str(texts["clean"]), str(texts["corrupt"]), right, answers["wrong"])


def _read(row: Row, layout: PromptLayout, side: str, where: str) -> Answers | None:
    column = layout.columns.get(side, side)
    try:
        return (layout.answer if side == "answer" else layout.wrong)(row.get(column), row) if column in row else None
    except ValueError as error:
        raise BadPrompt(f"{where} has in {column} {error}; or name another column (--columns {side}=...).") from error
