"""Progress on standard error: a bar in a terminal, lines elsewhere."""

import io

from rich.console import Console

from micrographia.core.events import Note, Progress
from micrographia.faces.cli.progress import duration, shown


def terminal(*, live):
    return Console(file=io.StringIO(), width=100, force_terminal=live, no_color=True)


def test_lines_come_first_and_last_and_ever_fewer_between():
    console, now = terminal(live=False), iter(range(2000))
    with shown(console, clock=lambda: float(next(now))) as watch:
        for done in range(1001):
            watch(Progress("training", done, 1000, "epoch", {"train_loss": 0.5}))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "training: 0/1,000 epochs, train loss 0.5"
    assert lines[1] == "training: 5/1,000 epochs, 1 per s, 16:35 left, train loss 0.5"
    assert lines[-1] == "training: 1,000/1,000 epochs, 1 per s, train loss 0.5"
    told = [int(line.split()[1].split("/")[0].replace(",", "")) for line in lines[:-1]]
    assert told == [0, 5, 10, 20, 40, 80, 160, 320, 620, 920]


def test_a_resumed_stage_does_not_count_what_was_done_before():
    console, now = terminal(live=False), iter([0.0, 10.0])
    with shown(console, clock=lambda: next(now)) as watch:
        watch(Progress("training", 500, 1000))
        watch(Progress("training", 510, 1000))
    assert "1 per s" in console.file.getvalue()


def test_a_stage_that_begins_anew_is_timed_from_there():
    """The second direction begins where the first has long been."""
    console, now = terminal(live=False), iter([0.0, 10.0, 20.0, 21.0, 27.0])
    with shown(console, clock=lambda: next(now)) as watch:
        for done in (20, 100, 60, 70, 90):
            watch(Progress("patching", done, 100, "patch"))
    assert "patching: 90/100 patches, 4.286 per s, 0:02 left" in console.file.getvalue().splitlines()


def test_slow_items_are_told_in_seconds_and_a_single_one_without_a_count():
    console, now = terminal(live=False), iter([0.0, 11.0, 11.0, 12.0, 12.0, 34.0])
    with shown(console, clock=lambda: next(now)) as watch:
        for done in (0, 1):
            watch(Progress("load the model", done, 1, "model"))
        for done in (0, 1):
            watch(Progress("write the report", done, 1, "file"))
        for done in (0, 10):
            watch(Progress("check", done, 20, "reader"))
    assert console.file.getvalue().splitlines() == [
        "load the model",
        "load the model: took 0:11",
        "write the report",
        "check: 0/20 readers",
        "check: 10/20 readers, 2.2 s per reader, 0:22 left",
    ]


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
