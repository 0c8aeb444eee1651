"""A Config is carried out once: anew, gone on with, or read where it is finished, on the threads that it began with."""

from dataclasses import dataclass

import pytest

from micrographia.core import running
from micrographia.core.errors import BadConfig, RunExists
from micrographia.core.events import Note, silent
from micrographia.core.running import carry_out


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 3
    device: str = "cpu"
    threads: int | None = None


class Lab:
    """Writes down what it was asked to do; the first try is cut off where `fails`."""

    def __init__(self, *, fails: bool = False) -> None:
        self.asked: list[Config] = []
        self.fails = fails

    def __call__(self, config, folder, watch) -> None:
        self.asked.append(config)
        if self.fails:
            raise RuntimeError("power cut")
        folder.finish({"n": len(self.asked)}, [], [], {})


def carried(work, out, *, config=None, resume=False, watch=silent):
    chosen = Config() if config is None else config
    return carry_out(chosen, work, lab="x", preset="tiny", dtype="float64", out=out, resume=resume, watch=watch)


def test_the_work_is_done_and_what_it_stood_on_is_kept(tmp_path):
    lab = Lab()
    done = carried(lab, tmp_path / "run", config=Config(threads=2))
    assert (done.status, done.lab, done.preset) == ("finished", "x", "tiny")
    assert [done.provenance[name] for name in ("seed", "device", "dtype", "threads")] == [3, "cpu", "float64", 2]
    assert lab.asked == [Config(threads=2)]


def test_what_is_finished_is_read_and_not_done_again(tmp_path):
    lab = Lab()
    first = carried(lab, tmp_path / "run")
    assert carried(lab, tmp_path / "run", resume=True).results == first.results == {"n": 1}
    with pytest.raises(RunExists):
        carried(lab, tmp_path / "run")
    assert len(lab.asked) == 1


def test_what_was_cut_off_goes_on_with_the_threads_it_began_with(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "allowed_cores", lambda: 2)
    with pytest.raises(RuntimeError, match="power cut"):
        carried(Lab(fails=True), tmp_path / "run")
    monkeypatch.setattr(running, "allowed_cores", lambda: 5)
    lab = Lab()
    assert carried(lab, tmp_path / "run", resume=True).status == "finished"
    assert lab.asked == [Config(threads=2)]


def test_another_config_does_not_go_on_there(tmp_path):
    carried(Lab(), tmp_path / "run")
    with pytest.raises(BadConfig):
        carried(Lab(), tmp_path / "run", config=Config(seed=4), resume=True)


def test_a_busy_machine_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "busy_warning", lambda threads: f"Others want the {threads} cores.")
    notes = []
    carried(Lab(), tmp_path / "run", config=Config(threads=2), watch=notes.append)
    assert notes == [Note("Others want the 2 cores.", "warning")]
