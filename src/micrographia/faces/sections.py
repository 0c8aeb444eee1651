"""What a Run shows, section by section, before any face draws it.

A section is the Figures of one group, in the order in which the groups first come. A Run without a single table, as
labs stored them until version 0.1.0, has its results shown as tables under their own names, after the pictures that
open it. Nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from micrographia.core.claims import Run
from micrographia.core.figures import Figure, table, text
from micrographia.faces import words

UNGROUPED = "Figures"
ELSEWHERE = ("title", "subtitle", "summary", "config", "claims", "measured", "run", "report")
"""Entries of the results that have a place of their own."""
FEW_COLUMNS, FEW_ROWS, FEW_VALUES = 7, 40, 20  # of results without a Figure, what a terminal still shows
MOST_VALUES = 12  # of a list in a cell


class Section(NamedTuple):
    """The Figures of one group. `essential` sections stand before the claims."""

    title: str
    figures: Sequence[Figure]

    @property
    def essential(self) -> bool:
        return any(figure.essential for figure in self.figures)

    @property
    def id(self) -> str:
        """The title as an anchor."""
        return "group-" + "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def sections(run: Run) -> list[Section]:
    """The sections of a Run in reading order; empty while it has no results."""
    if any(figure.kind == "table" for figure in run.figures):
        return _grouped(run.figures)
    opening, *rest = [[*each.figures] for each in _grouped(run.figures)] or [[]]
    return _grouped([*opening, *figures_of_results(run.results or {}), *chain(*rest)])


def headline(run: Run) -> Figure | None:
    """The table to show where there is room for one: that which is marked so, else the first essential one."""
    tables = [each for section in sections(run) for each in section.figures if each.kind == "table" and each.essential]
    return next((each for each in tables if each.headline), tables[0] if tables else None)


def _grouped(figures: Sequence[Figure]) -> list[Section]:
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.group or UNGROUPED, []).append(figure)
    return [Section(title, found) for title, found in groups.items()]


def title(run: Run) -> str:
    """What a Run is about: its own title, else its lab."""
    own = (run.results or {}).get("title")
    return str(own) if own else words.name(run.lab)[:1].upper() + words.name(run.lab)[1:]


def subtitle(run: Run) -> str:
    """The line below the title: the Run's own, else its preset."""
    return str((run.results or {}).get("subtitle") or f"preset {words.name(run.preset)}")


def summary(run: Run) -> list[str]:
    """The lab's own sentences on what was found."""
    sentences = (run.results or {}).get("summary") or []
    return [sentences] if isinstance(sentences, str) else [str(sentence) for sentence in sentences]


def figures_of_results(results: Mapping[str, Any]) -> list[Figure]:
    """All that the results hold, as Figures under the names of their entries."""
    return [figure for key, content in results.items() if key not in ELSEWHERE for figure in _shown(key, content, key)]


def _shown(key: str, content: Any, name: str) -> list[Figure]:
    """Tables of records, of names and values, lines of text, or a plain value."""
    heading = words.name(key)[:1].upper() + words.name(key)[1:]
    about: dict[str, Any] = {"name": f"results-{name}", "title": heading, "group": heading}
    if content is None or content == [] or content == {}:
        return []
    if records := as_records(content):
        return [_table_of_records(records, about)]
    if isinstance(content, Mapping):
        inner = {field: value for field, value in content.items() if isinstance(value, Sequence) and as_records(value)}
        plain = flat({field: value for field, value in content.items() if field not in inner})
        rows = [[label, _short(value)] for label, value in plain]
        tables = [each for field, value in inner.items() for each in _shown(field, value, f"{name}-{field}")]
        few = len(rows) <= FEW_VALUES
        return [*([table(**about, rows=rows, columns=["what", "value"], essential=few)] if rows else []), *tables]
    if isinstance(content, str):
        return [text(**about, paragraphs=[content])]
    if isinstance(content, Sequence) and all(isinstance(line, str) for line in content):
        prose = all(line.rstrip().endswith(".") for line in content)
        return [text(**about, paragraphs=list(content), preformatted=None if prose else True)]
    return [text(**about, paragraphs=[words.format_value(content)])]


def _table_of_records(records: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Figure:
    """Names first, then figures; a field that holds sentences is a remark on its row."""
    longest = {field: max(_n_letters(row.get(field)) for row in records) for row in records for field in row}
    notes = max(longest, key=lambda field: longest[field])
    notes = notes if longest[notes] > MOST_LETTERS else None
    names = [field for field, n in longest.items() if n and field != notes]
    columns = {field: words.name(field) for field in [*names, *longest] if field != notes}
    small = len(columns) <= FEW_COLUMNS and len(records) <= FEW_ROWS
    remarks = None if notes is None else [str(row.get(notes) or "") for row in records]
    return table(**about, rows=records, columns=columns, notes=remarks, essential=small)


MOST_LETTERS = 40


def _n_letters(cell: Any) -> int:
    return len(cell) if isinstance(cell, str) else 0


def _short(value: Any) -> str:
    """A value of any kind; a list too long for a cell is only counted, as a value for each frequency or layer."""
    long = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > MOST_VALUES
    return f"{len(value)} values" if long else words.format_value(value)


def as_records(content: Any) -> list[Mapping[str, Any]]:
    """A list of mappings as it is; a mapping of mappings with the outer key as `name`; anything else is none."""
    if not content or isinstance(content, str) or not isinstance(content, Mapping | Sequence):
        return []
    if isinstance(content, Mapping):
        whole = all(isinstance(row, Mapping) and not words.is_interval(row) for row in content.values())
        return [{"name": words.name(key), **row} for key, row in content.items()] if whole else []
    return list(content) if all(isinstance(row, Mapping) for row in content) else []


def flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as (name, value) pairs: restricted_loss {"i": x} is ("restricted loss, i", x)."""
    pairs = []
    for key, inner in mapping.items():
        label = f"{prefix}, {words.name(key)}" if prefix else words.name(key)
        deeper = isinstance(inner, Mapping) and not words.is_interval(inner)
        pairs += flat(inner, label) if deeper else [(label, inner)]
    return pairs
