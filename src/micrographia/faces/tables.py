"""Tables as all faces print them: every cell a text, the figures of a column with decimals in common."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from micrographia.faces import words


class TextTable(NamedTuple):
    """`strong` rows are set off; `texts` are the columns of words, all others hold numbers; `notes`: one a row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()
    texts: frozenset[int] = frozenset({0})
    notes: Sequence[str] = ()


def table_of(data: Mapping[str, Any]) -> TextTable:
    """The data of a Figure of kind "table"."""
    names = [str(name) for name in data["columns"]]
    columns = [[row[i] for row in data["rows"]] for i in range(len(names))]
    marked = {str(name) for name in data.get("texts") or ()}
    texts = {i for i, name in enumerate(names) if name in marked or str(i) in marked}
    texts |= {i for i, column in enumerate(columns) if any(isinstance(cell, str) for cell in column)}
    written = [format_column(column) for column in columns]
    return TextTable(
        names,
        [list(row) for row in zip(*written)],
        frozenset(int(i) for i in data.get("highlight") or ()),
        frozenset(texts),
        [str(note or "") for note in data.get("notes") or ()],
    )


def format_column(cells: Sequence[Any]) -> list[str]:
    """The cells of one column as texts."""
    intervals = any(isinstance(cell, Mapping) for cell in cells)
    number = words.common_format([x for cell in cells for x in words.numbers_of(cell)], intervals=intervals)
    return [words.format_value(cell, number) for cell in cells]


def texts_of(data: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Paragraphs and preformatted lines of a Figure of kind "text": with `preformatted` true, all are lines."""
    paragraphs, more = [str(each) for each in data["paragraphs"]], data.get("preformatted")
    if isinstance(more, str | Sequence):
        return paragraphs, more.splitlines() if isinstance(more, str) else [str(line) for line in more]
    return ([], paragraphs) if more else (paragraphs, [])
