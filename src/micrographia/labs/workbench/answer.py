"""What every question comes to: results, pictures and a table, once all that the user said has been checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Generator

from micrographia.core.events import Watch
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.labs.workbench.prompts import Asked, Ends, told

MOST_PLACES = 2000  # places written out in the results; all of them are in the table


class Answer(NamedTuple):
    """`results` is the object that `--json` prints; `table` has a row a place."""

    results: dict[str, Any]
    figures: list[Figure]
    table: Mapping[str, Sequence[Any]]


Work = Callable[[Generator, Watch], Answer]
"""What is left to do of a question whose every user error has been raised already."""


def about(model: Model, name: str) -> dict[str, Any]:
    """The model, in the results."""
    shape = model.shape
    return {"name": name, "layers": shape.n_layers, "heads": shape.n_heads, "d_model": shape.d_model}


def head_of(asked: Asked, ends: Sequence[Ends], model: Model, name: str) -> dict[str, Any]:
    """The part of the results that all questions about prompt pairs share."""
    return {
        "model": about(model, name),
        "n_prompts": len(asked.texts),
        "baselines": [each.told() for each in ends],
        "prompts": told(asked, model),
    }
