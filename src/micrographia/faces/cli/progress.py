"""How long work goes: a live bar on standard error, or plain lines, ever fewer, when that is no terminal.

`shown()` gives the Watch that labs call. Standard output is never touched.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from micrographia.core.events import Event, Note, Progress, Watch
from micrographia.faces import words

FIRST_SECONDS, MOST_SECONDS = 5.0, 300.0
"""From one line of a stage to the next: at first, and at most. In between each pause is as long as all before it."""


@contextmanager
def shown(console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Watch]:
    """Show Progress and Notes while the block runs."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Lines(console, clock)
        return
    with Live(console) as live:
        yield live.watch


class Lines:
    """A Watch for logs and pipes: the first and last event of each stage, and some between: after 5 s, 10 s, 20 s ...

    A stage begins anew where its count falls. One of a single item is a line without a count, and its time if it is
    long.
    """

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console, self._clock = console, clock
        self._first: Progress | None = None
        self._last: Progress | None = None
        self._began = self._said = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self._print(f"{event.level}: {event.text}")
            return
        now, last = self._clock(), self._last
        fresh = last is None or event.stage != last.stage or event.done < last.done
        if fresh:
            self._first, self._began = event, now
        self._last = event
        if event.total == 1:
            self._single(event, now, fresh)
        elif fresh or event.done >= event.total or now - self._said >= self._pause():
            self._said = now
            self._print(self._line(event, now))

    def _pause(self) -> float:
        return min(max(FIRST_SECONDS, self._said - self._began), MOST_SECONDS)

    def _single(self, event: Progress, now: float, fresh: bool) -> None:
        if fresh:
            self._print(event.stage)
        elif event.done >= event.total and now - self._began >= FIRST_SECONDS:
            self._print(f"{event.stage}: took {duration(now - self._began)}")

    def _line(self, event: Progress, now: float) -> str:
        assert self._first is not None
        parts = [f"{event.stage}: {amount(event)}"]
        passed, done = now - self._began, event.done - self._first.done
        if passed > 0 and done > 0:
            parts.append(rate(done / passed, event.unit))
            parts += [f"{duration((event.total - event.done) * passed / done)} left"] * (event.done < event.total)
        return ", ".join([*parts, *values(event)])

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def rate(per_second: float, unit: str) -> str:
    """ "18.2 per s"; below one a second "2.2 s per reader"."""
    if per_second >= 1:
        return f"{words.format_number(per_second)} per s"
    return f"{words.format_number(float(f'{1 / per_second:.2g}'))} s per {unit.removesuffix('s')}"


class Live(Bars):
    """Bars with the newest values in a line below them."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24, complete_style="blue", finished_style="green", pulse_style="blue"),
            TextColumn("{task.fields[amount]}"),
            TextColumn("{task.fields[pace]}", style="bright_black"),
        )
        self._stages: dict[str, TaskID] = {}
        self._values = ""
        super().__init__(*columns, console=console, refresh_per_second=8)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self._values:
            yield Text(self._values, style="bright_black", overflow="ellipsis", no_wrap=True)

    def watch(self, event: Event) -> None:
        if isinstance(event, Note):
            style = "yellow" if event.level == "warning" else "bright_black"
            self.console.print(Text(event.text, style=style))
            return
        shown = {"amount": amount(event), "pace": ""}
        if event.stage not in self._stages:
            self._stages[event.stage] = self.add_task(event.stage, total=event.total, completed=event.done, **shown)
        task = self._stages[event.stage]
        self.update(task, completed=event.done, total=event.total, amount=amount(event), pace=pace(self._tasks[task]))
        self._values = "  " + " · ".join(values(event)) if event.values else ""


def amount(event: Progress) -> str:
    """ "450/1,200 epochs"."""
    return f"{event.done:,}/{event.total:,} {event.unit if event.total == 1 else _several(event.unit)}"


def _several(unit: str) -> str:
    if unit.endswith("y"):
        return f"{unit[:-1]}ies"
    return unit if unit.endswith("s") else f"{unit}es" if unit.endswith("tch") else f"{unit}s"


def pace(task: Task) -> str:
    """ "18.2/s, 0:41 left"; after the end, how long it took."""
    if task.finished:
        return duration(task.finished_time or 0)
    if not task.speed:
        return ""
    speed = f"{words.format_number(round(task.speed, 1))}/s" if task.speed >= 1 else f"{1 / task.speed:.2g} s each"
    return f"{speed}, {duration((task.remaining or 0) / task.speed)} left"


def values(event: Progress) -> list[str]:
    """The figures beside the bar as words."""
    return [f"{words.name(key)} {words.format_number(value)}" for key, value in event.values.items()]


def duration(seconds: float) -> str:
    """Seconds as 0:41 or 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
