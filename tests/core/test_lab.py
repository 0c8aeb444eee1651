"""Carrying out a Config: begun anew, gone on with, or read where it is finished; and how it stopped is written down."""

import json
import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from micrographia.core import lab as lab_module
from micrographia.core.claims import Measured
from micrographia.core.config import Machine
from micrographia.core.errors import BadConfig, CannotWrite, Interrupted, MicrographiaError, NonFiniteLoss, RunExists
from micrographia.core.events import Note, silent
from micrographia.core.figures import table
from micrographia.core.lab import (
    Findings,
    ending,
    finish,
    first_line,
    for_each_network,
    raise_failed,
    run_in_folder,
    run_lab,
)
from micrographia.core.runtime import provenance
from micrographia.core.store import RunFolder, load_run, read_metrics
from micrographia.core.tasks import Done, Task

CLAIMS = """
[[claim]]
id = "sum"
source = "section 1"
text = "The sum is large."
published = 10
kind = "above"
presets = ["tiny"]
null = "the largest part alone"
holds = "The sum is {measured:.1f} (the largest part: {null:.1f})."
fails = "The sum is only {measured:.1f}."

[[claim]]
id = "elsewhere"
source = "section 2"
text = "It is judged at another preset."
published = 1
kind = "exact"
presets = ["paper"]
holds = "Never seen."
fails = "Never seen."
"""


@dataclass(frozen=True, kw_only=True)
class Config:
    parts: tuple[int, ...] = (5, 7)
    seed: int = 3
    machine: Machine = field(default_factory=Machine)


class Adds:
    """The work of a lab: writes down what it was given; the first try is cut off by `error`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.given: list[Config] = []
        self.error = error

    def __call__(self, config, folder, watch) -> Findings:
        self.given.append(config)
        self.threads = torch.get_num_threads()
        if self.error:
            raise self.error
        total = sum(config.parts)
        return Findings(
            {"n": len(self.given)},
            [table("parts", "The parts", [{"part": part} for part in config.parts], claims=["sum"])],
            {"sum": Measured(total, max(config.parts)), "unclaimed": Measured(1.5)},
            {"part": list(config.parts)},
            opening=["It begins."],
            closing=["It ends."],
        )


@pytest.fixture
def claims(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(CLAIMS, encoding="utf-8")
    return path


def carried(work, out, *, config=None, resume=False, watch=silent, claims=None):
    given = Config() if config is None else config
    return run_lab(
        given, work, lab="x", preset="tiny", claims=claims, dtype="float64", out=out, resume=resume, watch=watch
    )


def with_threads(n: int) -> Config:
    return Config(machine=Machine(threads=n))


def test_the_work_is_done_and_what_it_stood_on_is_kept(tmp_path):
    adds = Adds()
    done = carried(adds, tmp_path / "run", config=with_threads(2))
    assert (done.status, done.lab, done.preset) == ("finished", "x", "tiny")
    assert [done.provenance[name] for name in ("seed", "device", "dtype", "threads")] == [3, "cpu", "float64", 2]
    assert done.config == {"parts": [5, 7], "seed": 3, "device": "cpu", "threads": 2}
    assert adds.given == [with_threads(2)]


def test_what_is_found_is_judged_said_and_stored(tmp_path, claims):
    done = carried(Adds(), tmp_path / "run", claims=claims)
    assert [(each.claim.id, each.verdict, each.measured) for each in done.claims] == [
        ("sum", "holds", 12),
        ("elsewhere", "not run", None),
    ]
    assert done.claims[0].null_measured == 7
    assert done.results["n"] == 1
    assert done.results["config"] == done.config
    assert done.results["claims"] == [each.as_json() for each in done.claims]
    assert done.results["measured"]["sum"] == {"value": 12, "null": 7, "raw": None}
    assert done.results["measured"]["unclaimed"]["value"] == 1.5  # what has no claim is stored all the same
    first, claimed, last = done.summary
    assert (first, last) == ("It begins.", "It ends.")
    assert claimed == done.claims[0].sentence != ""
    [figure] = done.figures
    assert (figure.kind, figure.data["columns"], figure.data["rows"]) == ("table", ["part"], [[5], [7]])
    assert read_metrics(done.path)["part"].tolist() == [5, 7]


def test_without_claims_there_is_no_verdict(tmp_path):
    done = carried(Adds(), tmp_path / "run")
    assert (done.claims, done.results["claims"], done.summary) == ((), [], ["It begins.", "It ends."])


def test_what_is_finished_is_read_and_not_done_again(tmp_path):
    adds = Adds()
    first = carried(adds, tmp_path / "run")
    assert carried(adds, tmp_path / "run", resume=True).results == first.results
    with pytest.raises(RunExists):
        carried(adds, tmp_path / "run")
    assert len(adds.given) == 1


def test_what_was_cut_off_goes_on_with_the_threads_it_began_with(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_module, "allowed_cores", lambda: 2)
    with pytest.raises(RuntimeError, match="power cut"):
        carried(Adds(RuntimeError("power cut")), tmp_path / "run")
    monkeypatch.setattr(lab_module, "allowed_cores", lambda: 5)
    adds = Adds()
    assert carried(adds, tmp_path / "run", resume=True).status == "finished"
    assert adds.given == [with_threads(2)]
    assert adds.threads == 2


@dataclass(frozen=True, kw_only=True)
class NewerConfig(Config):
    doubled: bool = False


def test_a_run_begun_before_a_field_was_there_goes_on_with_its_default_and_with_no_other_value(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        carried(Adds(RuntimeError("power cut")), tmp_path / "run")
    with pytest.raises(BadConfig, match="doubled"):
        carried(Adds(), tmp_path / "run", config=NewerConfig(doubled=True), resume=True)
    adds = Adds()
    assert carried(adds, tmp_path / "run", config=NewerConfig(), resume=True).status == "finished"
    assert not adds.given[0].doubled


def test_another_config_does_not_go_on_there(tmp_path):
    carried(Adds(), tmp_path / "run")
    with pytest.raises(BadConfig):
        carried(Adds(), tmp_path / "run", config=Config(seed=4), resume=True)


def test_a_busy_machine_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_module, "busy_warning", lambda threads: f"Others want the {threads} cores.")
    notes = []
    carried(Adds(), tmp_path / "run", config=with_threads(2), watch=notes.append)
    assert notes == [Note("Others want the 2 cores.", "warning")]


STOPS = [
    (MicrographiaError("no such thing"), "failed"),
    (NonFiniteLoss("at step 7"), "failed"),
    (ZeroDivisionError(), "failed"),
    (Interrupted("on request"), "interrupted"),
    (KeyboardInterrupt(), "interrupted"),
    (SystemExit(3), "interrupted"),
]


@pytest.mark.parametrize(("error", "status"), STOPS, ids=lambda value: type(value).__name__)
def test_work_that_stops_leaves_how_it_stopped_and_goes_on_when_resumed(error, status, tmp_path):
    with pytest.raises(type(error)) as raised:
        carried(Adds(error), tmp_path / "run")
    assert raised.value is error
    assert load_run(tmp_path / "run").status == status
    assert carried(Adds(), tmp_path / "run", resume=True).status == "finished"


@pytest.mark.parametrize(("error", "status"), STOPS, ids=lambda value: type(value).__name__)
def test_what_stops_while_it_is_judged_leaves_how_it_stopped(error, status, tmp_path, claims, monkeypatch):
    def judge(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(lab_module, "judge_all", judge)
    with pytest.raises(type(error)):
        carried(Adds(), tmp_path / "run", claims=claims)
    assert load_run(tmp_path / "run").status == status


@pytest.fixture
def ctrl_c():
    """Ctrl-C as at a terminal: a shell's background job begins with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_the_midst_of_an_analysis_leaves_it_interrupted(tmp_path, ctrl_c):
    """A real signal, not an exception raised by hand."""

    def analyse(config, folder, watch) -> Findings:
        assert load_run(folder.path).status == "running"
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)
        raise AssertionError("the signal did not come")

    with pytest.raises(KeyboardInterrupt):
        carried(analyse, tmp_path / "run")
    assert load_run(tmp_path / "run").status == "interrupted"


def test_being_told_to_end_in_the_midst_of_an_analysis_leaves_it_interrupted(tmp_path):
    def told_to_end(config, folder, watch):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        carried(told_to_end, tmp_path / "run")
    assert load_run(tmp_path / "run").status == "interrupted"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == before


def test_that_the_status_cannot_be_written_does_not_hide_the_error(tmp_path, monkeypatch):
    def full(folder: RunFolder, status: str) -> None:
        raise CannotWrite("the disk is full")

    monkeypatch.setattr(RunFolder, "set_status", full)
    with pytest.raises(ZeroDivisionError):
        carried(Adds(ZeroDivisionError()), tmp_path / "run")


def test_a_config_that_is_a_plain_mapping_has_a_run_too(tmp_path, claims):
    config, about = {"threads": 1, "question": "why"}, provenance(0, "cpu", "float32", 1)
    given = {"lab": "x", "preset": "tiny", "about": about, "out": tmp_path / "run", "claims": claims}
    seen: list[RunFolder] = []

    def work(folder: RunFolder, watch) -> Findings:
        seen.append(folder)
        return Findings({}, [], {"sum": Measured(3)})

    done = run_in_folder(config, work, **given)
    assert done.config == config
    assert [each.verdict for each in done.claims] == ["fails", "not run"]
    assert run_in_folder(config, work, resume=True, **given).results == done.results
    assert len(seen) == 1


def opened(path: Path) -> RunFolder:
    about = provenance(0, "cpu", "float32", 1)
    return RunFolder.open(path, lab="x", preset="tiny", config={"threads": 1}, provenance=about, resume=True)


def test_ending_leaves_work_that_ends_well_alone(tmp_path):
    with opened(tmp_path / "run") as folder:
        with ending(folder):
            pass
        assert folder.status == "running"
        finish(folder, Findings({"n": 1}, []), preset="tiny", claims=None)
    run = load_run(tmp_path / "run")
    assert (run.status, run.results["n"]) == ("finished", 1)
    assert "measured" not in run.results


# For tasks in processes of their own these stand at the top of the module.


def train(config: Config, out: str, *, fails: tuple[int, ...] = ()) -> dict[str, object]:
    """A network: its Run in a folder of its own."""
    if config.seed in fails:
        raise NonFiniteLoss(f"the loss of seed {config.seed} is not finite")
    run_lab(config, Adds(), lab="x", preset="tiny", out=Path(out))
    return {"seed": config.seed, "threads": config.machine.threads}


def networks(*seeds: int) -> dict[str, Config]:
    return {f"seed {seed}": Config(seed=seed, machine=Machine(threads=1)) for seed in seeds}


def test_networks_are_done_in_processes_and_one_that_fails_leaves_the_others(tmp_path):
    notes: list[object] = []
    done = for_each_network(train, networks(3, 1, 2), tmp_path, workers=1, watch=notes.append, fails=(1,))
    assert list(done) == ["seed 3", "seed 1", "seed 2"]
    assert done["seed 3"].result == {"seed": 3, "threads": 1}
    assert first_line(done["seed 1"]) == "NonFiniteLoss: the loss of seed 1 is not finite"
    assert {load_run(tmp_path / name).status for name in ("seed 3", "seed 2")} == {"finished"}
    assert [note.level for note in notes if isinstance(note, Note)] == ["warning"]
    with pytest.raises(NonFiniteLoss, match="seed 1: the loss of seed 1"):
        raise_failed(done)


def given(*errors: str | None):
    """Tasks that end with these errors, in the opposite order of that in which they were given."""

    def run_tasks(tasks, **options):
        ended = [Done(task, None if error else task.name, error) for task, error in zip(tasks, errors)]
        yield from reversed(ended)

    return run_tasks


def test_what_networks_gave_comes_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_module, "run_tasks", given(None, None))
    done = for_each_network(train, networks(1, 2), tmp_path)
    assert {name: each.result for name, each in done.items()} == {"seed 1": "seed 1", "seed 2": "seed 2"}
    assert list(done) == ["seed 1", "seed 2"]
    assert done["seed 2"].task.arguments == {"config": networks(2)["seed 2"], "out": str(tmp_path / "seed 2")}
    raise_failed(done)


def test_a_network_that_was_stopped_stops_all_and_is_no_failure(tmp_path, monkeypatch):
    notes: list[object] = []
    monkeypatch.setattr(lab_module, "run_tasks", given("Interrupted: at step 7\n\n...", None, None))
    with pytest.raises(Interrupted, match="2 of 3 networks are finished"):
        for_each_network(train, networks(1, 2, 3), tmp_path, watch=notes.append)
    assert notes == []


def test_ctrl_c_among_networks_is_an_interruption(tmp_path, monkeypatch):
    def run_tasks(tasks, **options):
        yield Done(tasks[0], 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(lab_module, "run_tasks", run_tasks)
    with pytest.raises(Interrupted, match="1 of 2 networks are finished"):
        for_each_network(train, networks(1, 2), tmp_path)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ("NonFiniteLoss: at step 7\n\ntraceback", NonFiniteLoss, "two: at step 7"),
        ("BadConfig: no: such choice", BadConfig, "two: no: such choice"),
        ("ZeroDivisionError: division by zero", MicrographiaError, "two: division by zero"),
        ("Its process was killed by SIGKILL.", MicrographiaError, "two: Its process was killed by SIGKILL."),
    ],
)
def test_the_first_failure_is_raised_as_what_it_was(error, kind, said):
    done = {"one": Done(Task("one", train), 1), "two": Done(Task("two", train), None, error)}
    with pytest.raises(kind) as raised:
        raise_failed(done)
    assert type(raised.value) is kind
    assert str(raised.value) == said
