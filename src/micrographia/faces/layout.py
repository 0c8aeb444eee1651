"""How a table is laid out in a given number of terminal cells: what may wrap, and which columns stand side by side.

Figures stay whole whatever the width, names as long as there is room for them. Where a table is too wide, intervals go
below their figures; where that is not enough, its columns are shown in parts, one below the other, which all begin with
the names of the rows. Widths are those that a terminal draws: a Chinese character takes two cells.
"""

import re
from collections.abc import Sequence

from rich.cells import cell_len

from micrographia.faces.tables import TextTable

BETWEEN, EDGES = 3, 2  # cells between two columns, and around a table
MOST_LEAST = 36  # cells that the longest word of a column may ask for at least
SQUEEZED = 8  # cells that are left to a column of words at least, where figures need all the others


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
    least, most = _least(content), _most(content)
    spare = room - drawn_width(least)
    if spare < 0:
        return []
    for _ in range(min(spare, sum(most) - sum(least))):
        poorest = max(range(len(least)), key=lambda i: most[i] - least[i])
        least[poorest] += 1
    return least


def squeezed(content: TextTable, room: int) -> list[int]:
    """Widths where there is no room for `widths`: words are folded anywhere, figures take what they need.

    The table may then be wider than the room, since a figure is never cut.
    """
    least = _least(content, headed=False)
    while drawn_width(least) > room and (words := [i for i in content.texts if least[i] > SQUEEZED]):
        least[max(words, key=least.__getitem__)] -= 1
    return least


def drawn_width(widths: Sequence[int]) -> int:
    """How wide a table with columns of these widths is drawn."""
    return EDGES + BETWEEN * (len(widths) - 1) + sum(widths)


def _least(content: TextTable, *, headed: bool = True) -> list[int]:
    """The longest piece of each column that may not be broken; without `headed`, headings may."""
    found = []
    for i, name in enumerate(content.columns):
        cells = "\n".join(row[i] for row in content.rows)
        pieces = re.split(r"\s+" if i in content.texts else r"\n|(?<=,) ", cells)
        longest = max(map(cell_len, [*pieces, *(name.split() if headed else [])]), default=1)
        found.append(max(min(longest, MOST_LEAST) if i in content.texts else longest, 1))
    return found


def _most(content: TextTable) -> list[int]:
    """The longest line of each column."""
    return [
        max(cell_len(line) for text in (name, *(row[i] for row in content.rows)) for line in text.split("\n"))
        for i, name in enumerate(content.columns)
    ]
