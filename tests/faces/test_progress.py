"""Progress on standard error: a bar in a terminal, lines elsewhere."""

import io

from rich.console import Console

from micrographia.core.events import Note, Progress
from micrographia.faces.cli.progress import duration, shown


def terminal(*, live):
    return Console(file=io.StringIO(), width=100, force_terminal=live, no_color=True)


def test_lines_come_first_last_and_every_few_seconds():
    console, now = terminal(live=False), iter(range(100))
    with shown(console, clock=lambda: float(next(now))) as watch:
        for done in range(21):
            watch(Progress("training", done, 20, "epoch", {"train_loss": 0.5}))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "training: 0/20 epochs, train loss 0.5"
    assert lines[1] == "training: 5/20 epochs, 1 per s, 0:15 left, train loss 0.5"
    assert lines[-1] == "training: 20/20 epochs, 1 per s, train loss 0.5"
    assert len(lines) == 5


def test_a_resumed_stage_does_not_count_what_was_done_before():
    console, now = terminal(live=False), iter([0.0, 10.0])
    with shown(console, clock=lambda: next(now)) as watch:
        watch(Progress("training", 500, 1000))
        watch(Progress("training", 510, 1000))
    assert "1 per s" in console.file.getvalue()


def test_notes_are_printed_as_they_are():
    console = terminal(live=False)
    with shown(console) as watch:
        watch(Note("the checkpoint [500] was damaged", "warning"))
    assert console.file.getvalue() == "warning: the checkpoint [500] was damaged\n"


def test_a_terminal_gets_a_bar_with_values_and_notes():
    console = terminal(live=True)
    with shown(console) as watch:
        watch(Progress("training", 450, 1200, "epoch", {"train_loss": 1.3e-6}))
        watch(Note("[looks like markup]"))
        watch(Progress("training", 1200, 1200, "epoch", {"train_loss": 1e-6}))
    text = console.file.getvalue()
    assert "450/1,200 epochs" in text or "1,200/1,200 epochs" in text
    assert "train loss 1e-6" in text
    assert "[looks like markup]" in text


def test_durations_read_like_clocks():
    assert [duration(s) for s in (0, 41, 61, 3723)] == ["0:00", "0:41", "1:01", "1:02:03"]
