"""The store stopped at every write, sync and rename in turn: the old state or the new is there whole, never neither.

A process that dies does nothing more, so from the n-th call of a primitive on, every one raises. Two ways to die: just
before the call (a write is half done), and with the power: whatever was not synced by then is lost.
"""

import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from micrographia.core.claims import Claim, Judged
from micrographia.core.errors import CannotWrite
from micrographia.core.figures import Figure
from micrographia.core.store import (
    RunFolder,
    atomic,
    json_bytes,
    load_run,
    read_json,
    read_metrics,
    read_tensors,
    verify,
    write_bytes,
    write_tensors,
)

PRIMITIVES = ("_make_folder", "_write", "_sync", "_rename", "_remove", "_remove_tree")
DEATHS = ("torn", "power")


class Crash(BaseException):
    """The process is gone. No `except Exception` may catch it."""


class World:
    """The primitives of the store, which stop at the n-th call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int, fail: Callable[..., None]) -> None:
        self.calls: list[str] = []
        self.stop_at, self.fail = stop_at, fail
        for name in PRIMITIVES:
            monkeypatch.setattr(atomic, name, self._wrap(name, getattr(atomic, name)))

    def _wrap(self, name, primitive):
        def called(*arguments):
            self.calls.append(name)
            if len(self.calls) > self.stop_at:
                self.fail(self, name, primitive, arguments)
            return primitive(*arguments)

        return called

    @property
    def first(self) -> bool:
        return len(self.calls) == self.stop_at + 1


def die(how: str) -> Callable[..., None]:
    def fail(world, name, primitive, arguments):
        if world.first and how == "torn" and name == "_write":
            primitive(arguments[0], arguments[1][: len(arguments[1]) // 2])
        raise Crash

    return fail


def refuse(number: int) -> Callable[..., None]:
    """The system refuses the n-th call alone."""

    def fail(world, name, primitive, arguments):
        if world.first:
            raise OSError(number, os.strerror(number))

    return fail


@contextmanager
def unsynced_is_lost(monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[None]:
    """After the block, every file below `root` whose last write was not synced is empty, as after a loss of power."""
    waiting: set[int] = set()
    write, sync = atomic._write, atomic._sync

    def noted_write(descriptor, data):
        waiting.add(os.fstat(descriptor).st_ino)
        write(descriptor, data)

    def noted_sync(descriptor):
        sync(descriptor)
        waiting.discard(os.fstat(descriptor).st_ino)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", noted_write)
        patch.setattr(atomic, "_sync", noted_sync)
        yield
    for path in root.rglob("*"):
        if path.is_file() and path.stat().st_ino in waiting:
            path.write_bytes(b"")


def stop_everywhere(tmp_path, monkeypatch, how, *, prepare, operate, check) -> int:
    """Kill `operate` at its first primitive, its second ... until it gets through; `check` what is there each time."""
    for n in itertools.count():
        place = tmp_path / f"{how}-{n}"
        prepare(place)
        ended = False
        with unsynced_is_lost(monkeypatch, place), monkeypatch.context() as patch, suppress(Crash):
            World(patch, n, die(how))
            operate(place)
            ended = True
        check(place, ended)
        if ended:
            return n
    raise AssertionError


HEAD = {"lab": "grokking", "preset": "tiny", "config": {"modulus": 7}, "provenance": {"threads": 1}}


def open_run(place: Path) -> RunFolder:
    return RunFolder.open(place, resume=True, **HEAD)


def die_open(folder: RunFolder) -> None:
    """Let go of a Run as a dead process does: its lock file stays."""
    os.close(folder._lock.descriptor)
    folder._lock = None


def reopen(place: Path) -> RunFolder:
    folder = open_run(place)
    assert not list(place.rglob(".tmp-*")), "half-written files were left behind"
    assert folder.notes == []
    return folder


def state(step: int) -> dict[str, torch.Tensor]:
    return {"weights": torch.arange(5.0) * step, "moments": torch.full((2, 3), float(step))}


def rows(start: int, stop: int) -> dict[str, list]:
    return {"epoch": list(range(start, stop)), "train_loss": [1 / (1 + epoch) for epoch in range(start, stop)]}


def begin(place: Path, *, steps=(10, 20)) -> None:
    with open_run(place) as folder:
        for before, step in zip((0, *steps), steps, strict=False):
            folder.save_snapshot(step, state(step))
            folder.save_checkpoint(step, state(step), {"best": step / 3}, rows(before, step))


def during(act: Callable[[RunFolder], object]) -> Callable[[Path], None]:
    """`act` on the Run that `prepare` opened, before the world began to fail."""

    return lambda place: act(OPENED[place])


OPENED: dict[Path, RunFolder] = {}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """The calls of `_sync` are counted, and what lacks one is lost; the disk itself need not be waited for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    yield
    OPENED.clear()


def begin_and_stay_open(place: Path, then: Callable[[Path], object] = begin) -> None:
    """A copy of the Run that `then` makes, opened."""
    template = place.parent / "template"
    if not template.exists():
        then(template)
    shutil.copytree(template, place)
    folder = OPENED[place] = open_run(place)
    if folder.status == "running":
        folder.load_checkpoint()


def check_checkpoint(place: Path, *, among: tuple[int, ...]) -> int:
    """A whole checkpoint of one of these steps, and nothing beside it that does not fit."""
    with reopen(place) as folder:
        found = folder.load_checkpoint()
        assert folder.notes == []
        assert found.step in among
        torch.testing.assert_close(found.tensors, state(found.step), rtol=0, atol=0)
        assert found.numbers == {"best": found.step / 3}
        assert found.rows == rows(0, found.step)
        assert verify(place) == []
    return found.step


@pytest.mark.parametrize("how", DEATHS)
def test_a_json_file_is_old_or_new(how, tmp_path, monkeypatch):
    old, new = {"loss": 0.5}, {"loss": 0.25, "names": ["a"] * 100}

    def check(place, ended):
        assert read_json(place / "x.json") in ([new] if ended else [old, new])

    calls = stop_everywhere(
        tmp_path,
        monkeypatch,
        how,
        prepare=lambda place: write_bytes(place / "x.json", json_bytes(old)),
        operate=lambda place: write_bytes(place / "x.json", json_bytes(new)),
        check=check,
    )
    assert calls == 4  # write, sync, rename, sync of the folder


@pytest.mark.parametrize("how", DEATHS)
def test_a_weight_file_is_old_or_new(how, tmp_path, monkeypatch):
    def check(place, ended):
        value = read_tensors(place / "w.safetensors")["w"].tolist()
        assert value in ([[2.0] * 9] if ended else [[1.0] * 4, [2.0] * 9])

    stop_everywhere(
        tmp_path,
        monkeypatch,
        how,
        prepare=lambda place: write_tensors(place / "w.safetensors", {"w": torch.ones(4)}),
        operate=lambda place: write_tensors(place / "w.safetensors", {"w": torch.full((9,), 2.0)}),
        check=check,
    )


@pytest.mark.parametrize("how", DEATHS)
def test_a_run_is_begun_or_not(how, tmp_path, monkeypatch):
    def operate(place):
        OPENED[place] = open_run(place)

    def check(place, ended):
        if ended:
            OPENED[place].close()
        with reopen(place) as folder:
            assert folder.status == "running"
            assert folder.load_checkpoint() is None
            assert verify(place) == []

    calls = stop_everywhere(tmp_path, monkeypatch, how, prepare=lambda place: None, operate=operate, check=check)
    assert calls > 6


@pytest.mark.parametrize("how", DEATHS)
def test_a_checkpoint_is_there_or_the_one_before(how, tmp_path, monkeypatch):
    seen = set()

    def check(place, ended):
        die_open(OPENED[place])
        seen.add(check_checkpoint(place, among=(30,) if ended else (20, 30)))

    calls = stop_everywhere(
        tmp_path,
        monkeypatch,
        how,
        prepare=begin_and_stay_open,
        operate=during(lambda folder: folder.save_checkpoint(30, state(30), {"best": 10.0}, rows(20, 30))),
        check=check,
    )
    assert calls > 12
    assert seen == {20, 30}


@pytest.mark.parametrize("how", DEATHS)
def test_a_snapshot_is_whole_or_absent(how, tmp_path, monkeypatch):
    def check(place, ended):
        die_open(OPENED[place])
        with reopen(place) as folder:
            kept = folder.snapshots()
            assert set(kept) in ([{10, 20, 25}] if ended else [{10, 20}, {10, 20, 25}])
            for step, path in kept.items():
                torch.testing.assert_close(read_tensors(path), state(step), rtol=0, atol=0)
        check_checkpoint(place, among=(20,))

    stop_everywhere(
        tmp_path,
        monkeypatch,
        how,
        prepare=begin_and_stay_open,
        operate=during(lambda folder: folder.save_snapshot(25, state(25))),
        check=check,
    )


@pytest.mark.parametrize("how", DEATHS)
def test_falling_back_over_a_damaged_checkpoint_can_be_stopped_anywhere(how, tmp_path, monkeypatch):
    def prepare(place):
        begin(place, steps=(10, 20, 30))
        (place / "checkpoints/00000030/state.safetensors").write_bytes(b"damaged")

    def operate(place):
        folder = OPENED[place] = open_run(place)
        assert folder.load_checkpoint().step == 20

    def check(place, ended):
        if place in OPENED:
            die_open(OPENED[place])
        with open_run(place) as folder:
            assert folder.load_checkpoint().step == 20
        check_checkpoint(place, among=(20,))

    stop_everywhere(tmp_path, monkeypatch, how, prepare=prepare, operate=operate, check=check)


CLAIM = Claim(id="c", source="s", text="t", published=[1, 2], kind="exact", presets=("tiny",), when={"seed": 0})
JUDGED = Judged(claim=CLAIM, measured=[1, 2], verdict="holds")
FIGURE = Figure(
    name="losses",
    kind="lines",
    title="Losses",
    caption="They fall.",
    data={
        "x": np.arange(3),
        "y": np.eye(3, dtype=np.float32),
        "names": ["a", "b", "c"],
        "x_label": "x",
        "y_label": "y",
    },
)


def finish(folder: RunFolder) -> None:
    folder.finish({"measures": {"train_loss": 0.5}}, [JUDGED], [FIGURE], rows(0, 20))


def check_finished(place: Path) -> None:
    run = load_run(place)
    assert run.results == {"measures": {"train_loss": 0.5}}
    assert run.claims == (JUDGED,)
    np.testing.assert_array_equal(run.figures[0].data["y"], np.eye(3))
    assert read_metrics(place)["epoch"].tolist() == list(range(20))
    assert verify(place) == []


@pytest.mark.parametrize("how", DEATHS)
def test_a_run_is_finished_or_can_be(how, tmp_path, monkeypatch):
    seen = set()

    def check(place, ended):
        die_open(OPENED[place])
        with reopen(place) as folder:
            seen.add(folder.status)
            if folder.status == "running":
                assert not ended
                assert load_run(place).results is None
                assert verify(place) == []
                assert folder.load_checkpoint().step == 20
                finish(folder)
        check_finished(place)

    calls = stop_everywhere(
        tmp_path, monkeypatch, how, prepare=begin_and_stay_open, operate=during(finish), check=check
    )
    assert calls == 30  # seven files, and the state of the checkpoint before the last
    assert seen == {"running", "finished"}


@pytest.mark.parametrize("how", DEATHS)
@pytest.mark.parametrize("old", [None, "<p>old"])
def test_a_report_is_added_or_not(how, old, tmp_path, monkeypatch):
    def begin_and_finish(place):
        begin(place)
        with open_run(place) as folder:
            finish(folder)
            if old:
                folder.add_file("report.html", old)

    def check(place, ended):
        die_open(OPENED[place])
        with reopen(place) as folder:
            check_finished(place)
            report = place / "report.html"
            found = report.read_text() if report.exists() else None
            assert found in (["<p>new"] if ended else [old, "<p>new"])
            folder.add_file("other.html", "<p>")  # and life goes on
            assert verify(place) == []

    operate = during(lambda folder: folder.add_file("report.html", "<p>new"))
    calls = stop_everywhere(
        tmp_path,
        monkeypatch,
        how,
        prepare=lambda place: begin_and_stay_open(place, begin_and_finish),
        operate=operate,
        check=check,
    )
    assert calls == 12


def test_the_harness_catches_a_file_written_in_place(tmp_path, monkeypatch):
    def sloppy(place):
        with (place / "x.json").open("wb") as file:
            atomic._write(file.fileno(), b'{"loss": 0.25}')
            atomic._sync(file.fileno())

    with pytest.raises(Exception, match="altered or cut short"):
        stop_everywhere(
            tmp_path,
            monkeypatch,
            "torn",
            prepare=lambda place: write_bytes(place / "x.json", json_bytes({"loss": 0.5})),
            operate=sloppy,
            check=lambda place, ended: read_json(place / "x.json"),
        )


def test_the_harness_catches_a_rename_before_the_sync(tmp_path, monkeypatch):
    def hasty(place):
        draft = place / ".tmp-x"
        with draft.open("wb") as file:
            atomic._write(file.fileno(), b'{"loss": 0.25}')
            atomic._rename(draft, place / "x.json")
            atomic._sync(file.fileno())

    with pytest.raises(Exception, match="altered or cut short"):
        stop_everywhere(
            tmp_path,
            monkeypatch,
            "power",
            prepare=lambda place: write_bytes(place / "x.json", json_bytes({"loss": 0.5})),
            operate=hasty,
            check=lambda place, ended: read_json(place / "x.json"),
        )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO], ids=errno.errorcode.get)
def test_a_refusal_of_the_system_is_explained_and_keeps_what_was_there(number, tmp_path, monkeypatch):
    for n in itertools.count():
        place = tmp_path / str(n)
        begin_and_stay_open(place)
        with monkeypatch.context() as patch:
            world = World(patch, n, refuse(number))
            try:
                OPENED[place].save_checkpoint(30, state(30), {"best": 10.0}, rows(20, 30))
            except CannotWrite as error:
                told = error
        if len(world.calls) <= n:
            break
        assert told.errno == number
        assert str(place) in str(told)
        assert os.strerror(number) in str(told)
        assert "still there" in str(told)
        OPENED[place].close()
        check_checkpoint(place, among=(20, 30))
    assert n > 12
