"""A StreamReading as Figures: tables of the largest direct effects and of the logit lens, and their pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.graph import Node
from micrographia.core.spoken import component_name, node_name
from micrographia.core.titles import shown_token
from micrographia.methods.lens.reading import StreamReading

GROUP, DIRECT = "In pictures", "Direct effects on the answer"
MOST_WRITERS, MOST_SOURCES, MOST_TOKENS = 14, 10, 3
Row = Mapping[str, Any]


def tables_of(read: StreamReading) -> list[Figure]:
    """The answer, the largest direct effects (all of them in a second table), and the logit lens by prompt."""
    writers = read.writers()
    sides = {"clean": "logits"} if len(read.sides) == 1 else {side: side for side in (*read.sides, "difference")}
    component, head = {"part": "component", **sides}, {"head": "head", "token": "token", **sides}
    answer = {"prompt": "prompt", "logit": read.label, "parts": "sum of parts", "prob": "probability"}
    most = f" The {MOST_WRITERS} largest of {len(writers)}." if len(writers) > MOST_WRITERS else ""
    own = "The model's own figures at the last position, and the sum of the parts below, before any soft-cap."
    parts = f"Parts of the {read.label}, in logits.{most}"
    sources = "The direct effects of the heads with the largest, by source token, in logits."
    found = [
        _table("answer", "The model's own answer", read.model_answers(), answer, own),
        _table("writers", DIRECT, writers[:MOST_WRITERS], component, parts, headline=True),
        _table("head-sources", "Direct effects of heads by token", read.head_sources()[:MOST_SOURCES], head, sources),
    ]
    if most:
        every: dict[str, Any] = {"columns": component, "group": DIRECT, "essential": False}
        found.insert(2, figures.table("all-writers", "All components", writers, **every))
    return [*found, *(_layer_table(read, side) for side in read.sides)]


def _table(name: str, title: str, rows: Sequence[Row], columns: Mapping[str, str], caption: str, **more: Any) -> Figure:
    return figures.table(name, title, rows, columns=columns, caption=caption, group=title, **more)


def _layer_table(read: StreamReading, side: str) -> Figure:
    which = f" on the {side} prompt" if len(read.sides) > 1 else ""
    named = [component_name(site, {}) for site in read.layers.sites]
    rows = [{"site": name, **row[side]} for name, row in zip(named, read.predictions())]
    rows = [{**row, "best": "  ".join(map(shown_token, row["says"][:MOST_TOKENS]))} for row in rows]
    columns = {"site": "stream", "logit": "logit", "prob": "probability", "rank": "rank", "best": "best tokens"}
    caption = (
        f"The stream unembedded at each point, at the last position{which}: the {read.label}, probability and rank of "
        "the answer (0 is the best), and the best tokens."
    )
    return _table(f"lens-{side}", f"Logit lens{which}", rows, columns, caption)


def pictures_of(read: StreamReading) -> list[Figure]:
    """Components, heads by layer, heads by source token; then predictions and the answer, layer by layer."""
    heads = {label: i for i, label in enumerate(read.direct.labels) if ".z[" in label}
    by_head = [_head_map(read, heads), _source_text(read), _source_map(read)] if heads else []
    return [_components(read, heads), *by_head, _predictions(read), _answer_along(read)]


def _array(values: Tensor) -> NDArray[Any]:
    return values.double().cpu().numpy()


def _components(read: StreamReading, heads: Mapping[str, int]) -> Figure:
    """Heads of a layer summed; everything else by itself, in the order of the model."""
    values = _array(read.direct.values)
    sums: dict[str, NDArray[Any]] = {}
    for i, label in enumerate(read.direct.labels):
        name = f"{label.partition('.')[0]} heads" if label in heads else node_name(label)
        sums[name] = sums.get(name, 0.0) + values[:, i]
    return figures.bars(
        "components",
        "Direct effect of each component on the answer",
        np.stack(list(sums.values()), axis=1),
        names=list(sums),
        series=list(read.sides),
        x_label="component",
        y_label=read.label,
        caption="Heads of a layer are summed; biases stand by themselves. All bars sum to the whole.",
        group=GROUP,
    )


def _head_map(read: StreamReading, heads: Mapping[str, int]) -> Figure:
    nodes = [Node.parse(label) for label in heads]
    layers = sorted({node.site.layer or 0 for node in nodes})
    n = 1 + max(node.head or 0 for node in nodes)
    z = np.full((len(read.sides), len(layers), n), np.nan)
    values = _array(read.direct.values)
    for node, i in zip(nodes, heads.values()):
        z[:, layers.index(node.site.layer or 0), node.head or 0] = values[:, i]
    x, y = ([str(i) for i in numbers] for numbers in (range(n), layers))
    caption = "Orange raises the answer, blue lowers it; through the final norm, with nothing in between."
    return _map(read, "heads", "Direct effect of each head on the answer", z, ("head", x), ("layer", y), caption)


def _source_map(read: StreamReading) -> Figure:
    z = _array(read.sources)[:, ::-1]
    names = [node_name(node) for node in reversed(read.nodes)]
    caption = (
        f"The direct effects of the {len(names)} heads with the largest, split by source token: attention times the "
        "value's effect on the answer."
    )
    title = "Direct effect of heads by source token"
    return _map(read, "sources", title, z, ("token", read.positions), ("head", names), caption)


def _source_text(read: StreamReading) -> Figure:
    """The prompts themselves, a token coloured by what these heads carry from it."""
    names = [position.partition(" ")[2] or position for position in read.positions]
    sides = [[name.split(" / ")[min(i, name.count(" / "))] for name in names] for i in range(len(read.sides))]
    return figures.tokens(
        "source-text",
        "Direct effect by source token, in the text",
        sides,
        _array(read.sources).sum(1),
        names=read.sides if len(read.sides) > 1 else [""],
        value=read.label,
        diverging=True,
        caption=f"Summed over the {len(read.nodes)} heads with the largest: orange raises the answer, blue lowers it.",
        source="Elhage et al. (2021)",
        group=GROUP,
    )


def _map(
    read: StreamReading,
    name: str,
    title: str,
    z: NDArray[Any],
    x: tuple[str, list[str]],
    y: tuple[str, list[str]],
    caption: str,
    **more: Any,
) -> Figure:
    """A panel a side; `x` and `y` are an axis with the names along it."""
    source = "nostalgebraist (2020)" if "texts" in more else "Elhage et al. (2021)"
    labels = {"x": x[1], "y": y[1], "x_label": x[0], "y_label": y[0]}
    panels = [f"{side} prompt" for side in read.sides] if len(read.sides) > 1 else [""]
    more = {"diverging": True, "value": read.label, **more}
    return figures.heatmap(name, title, z, panels=panels, caption=caption, source=source, group=GROUP, **labels, **more)


def _predictions(read: StreamReading) -> Figure:
    z = _array(read.layers.top_prob[..., 0].transpose(0, 1))
    points = ["before" if site.kind == "resid_pre" else f"after {site.layer}" for site in read.layers.sites]
    caption = "Each cell has the best token where the stream is unembedded there; the stronger the colour, the surer."
    texts = [[[shown_token(text) for text in row] for row in side] for side in read.tokens]
    more = {"texts": texts, "diverging": False, "value": "probability"}
    axes = ("token", read.positions), ("layer", points)
    return _map(read, "lens", "Logit lens: the prediction layer by layer", z, *axes, caption, **more)


def _answer_along(read: StreamReading) -> Figure:
    return figures.lines(
        "along",
        "The answer along the layers, at the last position",
        np.arange(len(read.layers.sites)),
        _array(read.along().T),
        names=list(read.sides),
        x_label="layers passed",
        y_label=read.label,
        source="nostalgebraist (2020)",
        caption="Read where the stream is unembedded: 0 is before the first layer, then after each.",
        group=GROUP,
    )
