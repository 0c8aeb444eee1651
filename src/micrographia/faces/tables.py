"""Tables as all faces print them: every cell a text, the figures of a column with decimals in common.

A column of numbers has the decimals that give its largest figure three digits, so that small ones beside it become
0.00; but what only counts sizes (losses, p-values: nothing below 0) keeps its small figures, as 1.3e-6.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from micrographia.faces import words

DIGITS = 3
MOST_DECIMALS = 6
LARGE = 1e6


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
    number = common_format([x for cell in cells for x in _numbers(cell)], intervals=intervals)
    return [words.format_value(cell, number) for cell in cells]


def _numbers(cell: Any) -> Iterator[Any]:
    """The figures that a cell shows: itself, or the middle and the limits of an interval."""
    if isinstance(cell, Mapping):
        figures = (words.middle_of(cell), cell.get("low"), cell.get("high")) if words.is_interval(cell) else ()
    else:
        figures = (cell,)
    for each in figures:
        if isinstance(each, Real) and not isinstance(each, bool) and math.isfinite(each):
            yield each


def common_format(figures: Sequence[float], *, intervals: bool = False) -> Callable[[float], str]:
    """How the numbers of one column are written: alike, or each for itself where they have no measure in common.

    Whole numbers have none with fractions: a column that holds both is one of several quantities. `intervals`, three
    figures each, make do with two decimals.
    """
    if any(isinstance(x, Integral) and x for x in figures) or not any(figures):  # counts, or figures of several kinds
        return words.format_number
    places = decimals(figures)
    if places > MOST_DECIMALS or max(map(abs, figures)) >= LARGE:
        return words.format_number
    places = min(places, 2) if intervals and max(map(abs, figures)) >= 0.1 else places
    sizes = min(figures) >= 0

    def write(x: float) -> str:
        lost = sizes and math.isfinite(x) and 0 < x < 0.5 * 10.0**-places
        return words.format_number(float(f"{x:.2g}")) if lost else fixed(x, places)

    return write


def decimals(figures: Sequence[float]) -> int:
    """How many decimals give the largest figure of a column three digits."""
    largest = max(map(abs, figures), default=0.0)
    return max(DIGITS - 1 - math.floor(math.log10(largest)), 0) if largest else 0


def fixed(x: float, places: int) -> str:
    """A figure with so many decimals; a dash for NaN, and no minus before a zero."""
    if not math.isfinite(x):
        return words.format_number(x)
    text = f"{x:,.{places}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text


def texts_of(data: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Paragraphs and preformatted lines of a Figure of kind "text": with `preformatted` true, all are lines."""
    paragraphs, more = [str(each) for each in data["paragraphs"]], data.get("preformatted")
    if isinstance(more, str | Sequence):
        return paragraphs, more.splitlines() if isinstance(more, str) else [str(line) for line in more]
    return ([], paragraphs) if more else (paragraphs, [])
