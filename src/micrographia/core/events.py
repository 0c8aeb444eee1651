"""Progress reports and notes of long computations.

Core, methods and labs never print: they pass events to a `Watch`, and a face displays them. There are two kinds:
the progress of a stage, and a sentence for the user.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of `stage`; `values` are the figures to show beside the bar."""

    stage: str
    done: int
    total: int
    unit: str = "step"
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for the user: where work resumes, what could not be kept, what was guessed."""

    text: str
    level: Literal["info", "warning"] = "info"


Event = Progress | Note
Watch = Callable[[Event], None]


def silent(event: Event) -> None:
    """A Watch that ignores every event."""


def renamed(watch: Watch, stage: str) -> Watch:
    """The same Watch, where progress is of a stage of this name: what a sweep is for, and in which direction."""
    return lambda event: watch(replace(event, stage=stage) if isinstance(event, Progress) else event)
