"""Pictures of a lens: parts by component, head and source token, and what each layer would say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from micrographia.core.figures import Figure
from micrographia.core.graph import Node
from micrographia.labs.workbench.reading import Read

GROUP = "In pictures"
PANELS = {"clean": "clean prompt", "corrupt": "corrupt prompt"}


def figures_of_lens(read: Read) -> list[Figure]:
    """Components, heads by layer, heads by source token; then the layers: what they would say, and the answer in it."""
    heads = {label: i for i, label in enumerate(read.direct.labels) if ".z[" in label}
    by_head = [_heads(read, heads), _sources(read)] if heads else []
    return [_components(read, heads), *by_head, _says(read), _along(read)]


def what(read: Read) -> str:
    """What parts add up to."""
    answer, *wrong = (repr(text.strip()) for text in read.answers)
    return f"logit of {answer} less {wrong[0]}" if wrong else f"logit of {answer}"


def _panels(read: Read) -> list[str]:
    return [PANELS[side] for side in read.sides] if len(read.sides) > 1 else [""]


def _array(values: Tensor) -> NDArray[Any]:
    return values.double().cpu().numpy()


def _components(read: Read, heads: Mapping[str, int]) -> Figure:
    """Heads of a layer taken together; everything else by itself, in the order of the model."""
    values = _array(read.direct.values)
    sums: dict[str, NDArray[Any]] = {}
    for i, label in enumerate(read.direct.labels):
        name = f"{label.partition('.')[0]} heads" if label in heads else label
        sums[name] = sums.get(name, 0.0) + values[:, i]
    return Figure(
        name="components",
        kind="bars",
        group=GROUP,
        title="What each component writes straight to the answer",
        caption="Heads of a layer are taken together; biases stand by themselves. All bars sum to the whole.",
        data={
            "y": np.stack(list(sums.values()), axis=1),
            "names": list(sums),
            "series": list(read.sides),
            "x_label": "component",
            "y_label": what(read),
        },
    )


def _heads(read: Read, heads: Mapping[str, int]) -> Figure:
    nodes = [Node.parse(label) for label in heads]
    layers = sorted({node.site.layer or 0 for node in nodes})
    n = 1 + max(node.head or 0 for node in nodes)
    z = np.full((len(read.sides), len(layers), n), np.nan)
    values = _array(read.direct.values)
    for node, i in zip(nodes, heads.values()):
        z[:, layers.index(node.site.layer or 0), node.head or 0] = values[:, i]
    return Figure(
        name="heads",
        kind="heatmap",
        group=GROUP,
        title="What each head writes straight to the answer",
        source="Elhage et al. (2021)",
        caption="Orange raises the answer, blue lowers it; through the final norm, with nothing in between.",
        data=_map(z, read, x=("head", [str(i) for i in range(n)]), y=("layer", [str(i) for i in layers])),
    )


def _sources(read: Read) -> Figure:
    z = _array(read.sources.transpose(1, 2)).transpose(0, 2, 1)[:, ::-1]
    names = [str(node) for node in reversed(read.nodes)]
    return Figure(
        name="sources",
        kind="heatmap",
        group=GROUP,
        title="From which token the heads carried it",
        source="Elhage et al. (2021)",
        caption=f"The parts of the {len(names)} heads that write most, split by the token that they attend to: "
        "attention times what the token's value says of the answer.",
        data=_map(z, read, x=("token", read.positions), y=("head", names)),
    )


def _map(z: NDArray[Any], read: Read, *, x: tuple[str, Sequence[str]], y: tuple[str, Sequence[str]]) -> dict[str, Any]:
    return {
        "z": z,
        "panels": _panels(read),
        "x_label": x[0],
        "y_label": y[0],
        "x_names": list(x[1]),
        "y_names": list(y[1]),
        "colour": "diverging",
        "midpoint": 0.0,
        "value_label": what(read),
    }


def _points(read: Read) -> list[str]:
    """The points of the stream: before the first layer, then after each."""
    return ["before" if site.kind == "resid_pre" else f"after {site.layer}" for site in read.layers.sites]


def _says(read: Read) -> Figure:
    z = _array(read.layers.top_prob[..., 0].transpose(0, 1))
    return Figure(
        name="lens",
        kind="heatmap",
        group=GROUP,
        title="What the stream would say next, layer by layer",
        source="nostalgebraist (2020)",
        caption="In each cell the first choice where the stream is unembedded at that point; the stronger the "
        "colour, the surer.",
        data={
            "z": z,
            "panels": _panels(read),
            "x_label": "token",
            "y_label": "layer",
            "x_names": read.positions,
            "y_names": _points(read),
            "texts": [[[text.strip() or "·" for text in row] for row in side] for side in read.says],
            "colour": "sequential",
            "value_label": "probability",
        },
    )


def _along(read: Read) -> Figure:
    found = read.layers
    own = found.logit[:, :, -1, 0] - (found.logit[:, :, -1, 1] if len(read.answers) > 1 else 0.0)
    return Figure(
        name="along",
        kind="lines",
        group=GROUP,
        title="The answer along the layers, at the last position",
        source="nostalgebraist (2020)",
        caption="Read where the stream is unembedded: 0 is before the first layer, then after each.",
        data={
            "x": np.arange(len(found.sites)),
            "y": _array(own.T),
            "names": list(read.sides),
            "x_label": "layers passed",
            "y_label": what(read),
        },
    )
