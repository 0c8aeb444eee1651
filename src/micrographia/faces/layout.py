"""How a table is laid out in a given number of letters: what may wrap, and which columns stand side by side.

Names and figures stay whole. Where a table is too wide, intervals go below their figures; where that is not enough,
its columns are shown in parts, one below the other, which all begin with the names of the rows.
"""

import re
from collections.abc import Sequence

from micrographia.faces.tables import TextTable

BETWEEN, EDGES = 3, 2  # letters between two columns, and around a table
MOST_LEAST = 36  # letters that the longest word of a column may ask for at least


def parts_of(content: TextTable, room: int) -> list[TextTable]:
    """The table in as many parts as it takes; itself where it fits."""
    return blocks(content if widths(content, room) else stacked(content), room)


def stacked(content: TextTable) -> TextTable:
    """The same with each interval below its figure, which needs less room."""
    rows = [
        [cell if i in content.texts else cell.replace(" (", "\n(", 1) for i, cell in enumerate(row)]
        for row in content.rows
    ]
    return content._replace(rows=rows)


def blocks(content: TextTable, room: int) -> list[TextTable]:
    """The columns of a table in as many parts as fit the room, each with its rows' names; whole where it fits."""
    names = list(range(n_names(content)))
    chosen = [names]
    for i in range(len(names), len(content.columns)):
        if len(chosen[-1]) > len(names) and not widths(_columns(content, [*chosen[-1], i]), room):
            chosen.append(names)
        chosen[-1] = [*chosen[-1], i]
    return [content] if len(chosen) == 1 else [_columns(content, each) for each in chosen]


def n_names(content: TextTable) -> int:
    """How many of the first columns it takes to distinguish the rows, of words and two at most; else one."""
    for n in (1, 2):
        names = [tuple(row[:n]) for row in content.rows]
        if content.texts.issuperset(range(n)) and n < len(content.columns) and len(set(names)) == len(names):
            return n
    return 1


def _columns(content: TextTable, chosen: Sequence[int]) -> TextTable:
    texts = frozenset(place for place, i in enumerate(chosen) if i in content.texts)
    rows = [[row[i] for i in chosen] for row in content.rows]
    return content._replace(columns=[content.columns[i] for i in chosen], rows=rows, texts=texts)


def widths(content: TextTable, room: int) -> list[int]:
    """How wide each column is, at least as its longest word or figure; none where there is no room for that.

    rich itself would take from all columns alike, and cut figures.
    """
    cells = [[row[i] for row in content.rows] for i in range(len(content.columns))]
    pieces = [
        re.split(r"\s+" if i in content.texts else r"\n|(?<=,) ", "\n".join(each)) for i, each in enumerate(cells)
    ]
    least = [
        min(max(map(len, [*words, *name.split()]), default=1), MOST_LEAST)
        for name, words in zip(content.columns, pieces)
    ]
    most = [
        max(len(line) for text in (name, *each) for line in text.split("\n"))
        for name, each in zip(content.columns, cells)
    ]
    spare = room - EDGES - BETWEEN * (len(least) - 1) - sum(least)
    if spare < 0:
        return []
    for _ in range(min(spare, sum(most) - sum(least))):
        poorest = max(range(len(least)), key=lambda i: most[i] - least[i])
        least[poorest] += 1
    return least
