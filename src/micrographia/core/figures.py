"""Figure: the data of one picture or table, and a constructor for each kind.

A lab hands over all that it shows as Figures; terminal, report and notebook draw them alike, and know no lab. `group`
is the section that a Figure stands in, `essential` and `headline` whether a terminal prints it. Arrays stay numpy
arrays; nothing here is drawn. A `widget` carries data for a script that lives with its lab.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from micrographia.core.errors import BadConfig, BadShape

# What each kind of Figure needs in `data`, beside the optional entries named in `OPTIONAL`.
# Arrays may carry one more leading axis, `frames`, when they are named in `Figure.framed`.
REQUIRED: dict[str, tuple[str, ...]] = {
    "lines": ("x", "y", "names", "x_label", "y_label"),  # x (n,) or (series, n); y (series, n), NaN leaves a gap
    "bars": ("y", "names", "x_label", "y_label"),  # y (n,) with one name a bar, or (series, n) with `series` names
    "histogram": ("values", "x_label", "y_label"),  # values (n,)
    "heatmap": ("z", "panels", "x_label", "y_label"),  # z (panels, rows, columns); rows upward along y
    "scatter": ("x", "y", "x_label", "y_label"),  # x, y (n,)
    "tokens": ("tokens", "values", "names", "value_label"),  # tokens: texts of each row; values (row, n); a name a row
    "attention": ("z", "panels", "tokens"),  # z (panels, query, key), floats, or uint8 in steps of 1/255; tokens: the
    # text at each position, in order
    "graph": ("nodes", "levels", "sources", "targets", "weights"),  # nodes: names; levels (nodes,): the lowest first;
    # sources, targets (edges,): places in nodes; weights (edges,): positive raises, negative lowers
    "board": ("z", "panels"),  # z (panels, rows, columns), the first row on top
    "table": ("columns", "rows"),  # columns: names; rows: cells, each a text, a number, a truth value, None, a list, or
    # an interval: a mapping with `low`, `high` and a `median`, `mean` or `value`
    "text": ("paragraphs",),  # sentences; with `preformatted` lines
    "widget": ("asset",),  # asset: "package:file.js", the script that draws all other entries, whatever they are
}
OPTIONAL: dict[str, tuple[str, ...]] = {
    "lines": ("log_x", "log_y", "low", "high", "bands", "marks", "highlight", "hidden", "reach"),
    # low, high (series, n): an interval; bands: [{"name", "start", "end"}]; marks: [{"name", "x"}];
    # highlight: indices of series drawn strong; hidden: of series shown only from the legend; reach: (low, high) that
    # the y axis holds
    "bars": ("highlight", "series", "log_y", "low", "high", "reference"),  # reference: [{"name", "y"}]
    "histogram": ("bins", "marks", "log_y"),
    "heatmap": ("x_names", "y_names", "y_groups", "colour", "midpoint", "value_label", "texts", "told"),
    # y_groups: the group of each row, as its layer; colour: "diverging" or "sequential"; texts: a word in each cell, as
    # [panel][row][column]; told: the same, under the pointer alone
    "scatter": ("colour", "colour_label", "names", "log_x", "log_y", "categorical", "diagonal"),
    # colour (n,); diagonal: draw y = x, for an estimate beside the truth
    "tokens": ("colour", "midpoint"),
    "attention": ("colour", "midpoint", "value_label", "groups"),  # groups: the layer of each panel
    "graph": ("level_names", "values", "weight_label"),  # level_names: [{"level", "name"}]; values (nodes,)
    "board": ("colour", "midpoint", "value_label", "texts", "marks"),  # texts as a heat map's; marks: [{"panel", "row",
    # "column", "name"}]
    "table": ("highlight", "notes", "texts"),  # highlight: rows set off; notes: a remark on each row; texts: columns of
    # words (else those that hold a text)
    "text": ("preformatted",),
}


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Figure:
    """The data of one picture or table, drawn alike by terminal, report, notebook and web.

    `data` holds strings, numbers, lists, mappings and numpy arrays under the names in `REQUIRED[kind]` and
    `OPTIONAL[kind]`. With `frames` the picture has a slider: each array named in `framed` carries a leading axis of
    that length.
    """

    name: str
    kind: str
    title: str
    caption: str
    """What to see, in plain words."""
    source: str = ""
    """Paper and figure that this repeats, if any."""
    claims: tuple[str, ...] = ()
    """Ids of the claims that the picture bears on."""
    data: Mapping[str, Any]
    frames: tuple[str, ...] = ()
    framed: tuple[str, ...] = ()
    group: str = ""
    """The section of the report it belongs to."""
    essential: bool = True
    """Whether a terminal prints it when asked for all tables. The report has everything."""
    headline: bool = False
    """Whether it is the one table that a terminal prints without being asked."""

    def __repr__(self) -> str:
        return f"Figure({self.name!r}: {self.kind}, {self.title!r})"

    def __post_init__(self) -> None:
        if self.kind not in REQUIRED:
            raise BadConfig(f"Figure {self.name!r} is of kind {self.kind!r}; known are {', '.join(REQUIRED)}.")
        missing = set(REQUIRED[self.kind]) - set(self.data)
        unknown = set(self.data) - set(REQUIRED[self.kind]) - set(OPTIONAL.get(self.kind, self.data))
        if missing or unknown:
            raise BadConfig(
                f"Figure {self.name!r} ({self.kind}) lacks {sorted(missing)}, has unknown {sorted(unknown)}."
            )
        for name in self.framed:
            if name not in self.data:
                raise BadConfig(f"Figure {self.name!r} has frames of {name!r}, but its data are {sorted(self.data)}.")
            if len(self.data[name]) != len(self.frames):
                raise BadShape(
                    f"Figure {self.name!r}: {name!r} has {len(self.data[name])} frames, not {len(self.frames)}."
                )

    @property
    def is_empty(self) -> bool:
        """Whether a picture has no value to draw."""
        return self.kind in VALUES and not _has_any(self.data[VALUES[self.kind]])


VALUES = {"lines": "y", "bars": "y", "histogram": "values", "scatter": "x", "tokens": "values", "graph": "weights"}
VALUES |= dict.fromkeys(("heatmap", "attention", "board"), "z")
"""What a picture of this kind draws."""


def _has_any(values: Any) -> bool:
    return any(map(_has_any, values)) if isinstance(values, list | tuple) else getattr(values, "size", 1) > 0


ABOUT = ("caption", "source", "claims", "group", "essential", "headline", "frames", "framed")
"""What every constructor takes beside its data: the fields of a Figure that are about it. Claims and frames may be any
sequence. All other keywords are entries of `OPTIONAL`; those that are None are left out. Pictures with colours take
`value`, what the colours show, and `diverging`, for colours on both sides of `midpoint`."""


def lines(name: str, title: str, x: Any, y: Any, *, names: Sequence[str], **more: Any) -> Figure:
    """Curves: x (n,) or (series, n), y (series, n) with a name each; NaN leaves a gap."""
    return _figure("lines", name, title, {"x": x, "y": y, "names": names, "x_label": "", "y_label": ""}, more)


def bars(name: str, title: str, y: Any, *, names: Sequence[str], **more: Any) -> Figure:
    """Bars: y (n,) with a name each, or (series, n) with `series`."""
    return _figure("bars", name, title, {"y": y, "names": names, "x_label": "", "y_label": ""}, more)


def histogram(name: str, title: str, values: Any, **more: Any) -> Figure:
    """How often: values (n,)."""
    return _figure("histogram", name, title, {"values": values, "x_label": "", "y_label": "how many"}, more)


def heatmap(
    name: str,
    title: str,
    z: Any,
    *,
    x: Sequence[str] | None = None,
    y: Sequence[str] | None = None,
    panels: Sequence[str] = ("",),
    **more: Any,
) -> Figure:
    """Colours: z (rows, columns) or (panels, rows, columns), rows upward. `x`, `y`: names of columns and rows."""
    import numpy as np  # Runs are read, and flags explained, without it

    framed = "z" in tuple(more.get("framed", ()))
    array = np.asarray(z)
    z = array if array.ndim >= 3 + framed else np.expand_dims(array, int(framed))
    data = {"z": z, "panels": panels, "x_label": "", "y_label": "", "x_names": x, "y_names": y}
    return _coloured("heatmap", name, title, data, **more)


def scatter(name: str, title: str, x: Any, y: Any, **more: Any) -> Figure:
    """Points: x, y (n,)."""
    return _figure("scatter", name, title, {"x": x, "y": y, "x_label": "", "y_label": ""}, more)


def tokens(
    name: str, title: str, texts: Sequence[Sequence[str]], values: Any, *, names: Sequence[str], **more: Any
) -> Figure:
    """Coloured text: the tokens of each row, a value each (row, n), and a name for each row."""
    data = {"tokens": texts, "values": values, "names": names}
    return _coloured("tokens", name, title, data, **{"value": "", **more})


def attention(name: str, title: str, z: Any, *, panels: Sequence[str], tokens: Sequence[str], **more: Any) -> Figure:
    """Query by key: z (panels, query, key), a panel a head; `tokens` name the positions."""
    return _coloured("attention", name, title, {"z": z, "panels": panels, "tokens": tokens}, **more)


def graph(name: str, title: str, data: Mapping[str, Any], **more: Any) -> Figure:
    """Nodes on levels and weighted edges between them; `data` as `core.graph_figure.drawn` gives it."""
    return _figure("graph", name, title, dict(data), more)


def board(name: str, title: str, z: Any, *, panels: Sequence[str] = ("",), **more: Any) -> Figure:
    """Squares of a board: z (rows, columns) or (panels, rows, columns), the first row on top."""
    import numpy as np  # as above

    array = np.asarray(z)
    data = {"z": array if array.ndim > 2 else array[None], "panels": panels}
    return _coloured("board", name, title, data, **more)


def table(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any] | Sequence[Any]],
    *,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    **more: Any,
) -> Figure:
    """Cells in columns. Rows are sequences, with the columns' names beside them; or records (mappings).

    Of records, `columns` says which fields are shown and under which names (a mapping of field to name, or the fields
    alone); by default all, in the order in which they come. A record that lacks a field shows none there.
    """
    records = [row for row in rows if isinstance(row, Mapping)]
    if records and len(records) != len(rows):
        raise BadShape(
            f"Table {name!r} has {len(records)} records and {len(rows) - len(records)} lists. Give one kind."
        )
    if records:
        seen = columns if columns is not None else dict.fromkeys(key for row in records for key in row)
        shown = dict(seen) if isinstance(seen, Mapping) and columns is not None else {key: _words(key) for key in seen}
        cells = [[row.get(key) for key in shown] for row in records]
        return _figure("table", name, title, {"columns": list(shown.values()), "rows": cells}, more)
    names = list(columns.values()) if isinstance(columns, Mapping) else list(columns or ())
    if any(len(row) != len(names) for row in rows):
        raise BadShape(f"Table {name!r} has {len(names)} columns, but rows of {sorted({len(row) for row in rows})}.")
    return _figure("table", name, title, {"columns": names, "rows": [list(row) for row in rows]}, more)


def text(name: str, title: str, paragraphs: Sequence[str], **more: Any) -> Figure:
    """Sentences under a heading; with `preformatted` lines as they are."""
    return _figure("text", name, title, {"paragraphs": list(paragraphs)}, more)


def widget(name: str, title: str, asset: str, data: Mapping[str, Any], **more: Any) -> Figure:
    """An interactive picture of a lab's own: `asset` ("package:file.js") is a script there that draws `data`."""
    return _figure("widget", name, title, {"asset": asset, **data}, more)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _coloured(
    kind: str, name: str, title: str, data: dict[str, Any], *, value: str | None = None, diverging: bool = False,
    **more: Any,
) -> Figure:  # fmt: skip
    """`value` names what the colours show; `diverging`: colours on both sides of `midpoint`, 0 unless given."""
    colours = {"colour": "diverging", "midpoint": 0.0} if diverging else {"colour": "sequential"}
    return _figure(kind, name, title, {**data, "value_label": value, **colours}, more)


def _figure(kind: str, name: str, title: str, data: Mapping[str, Any], more: Mapping[str, Any]) -> Figure:
    about = {key: value for key, value in more.items() if key in ABOUT}
    about |= {key: tuple(about[key]) for key in ("claims", "frames", "framed") if key in about}
    entries = {key: value for key, value in {**data, **more}.items() if key not in ABOUT and value is not None}
    return Figure(name=name, kind=kind, title=title, data=entries, **{"caption": "", **about})
