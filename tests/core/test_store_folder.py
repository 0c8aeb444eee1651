"""RunFolder: what is begun, resumed, refused, locked and finished."""

import dataclasses
import errno
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from micrographia.core.claims import Claim, Judged
from micrographia.core.errors import BadConfig, CannotWrite, RunExists, RunLocked, UserError
from micrographia.core.figures import Figure
from micrographia.core.store import RunFolder, add_file, atomic, load_run, lock, read_metrics, read_tensors, verify

CONFIG = {"modulus": 7, "lr": 1e-3, "threads": None, "layers": (1, 2)}


def open_run(path: Path, *, resume: bool = True, config=CONFIG, lab="grokking", **provenance) -> RunFolder:
    told = {"threads": 3, "torch": "2.13", **provenance}
    return RunFolder.open(path, lab=lab, preset="tiny", config=config, provenance=told, resume=resume)


def numbers(step: int) -> dict:
    return {"best": math.inf, "pair": (step, None)}


def fill(folder: RunFolder, *steps: int) -> None:
    before = folder.last_step or 0
    for step in steps:
        folder.save_snapshot(step, {"w": torch.full((2,), float(step))})
        rows = {"epoch": list(range(before, step)), "loss": [1 / (1 + epoch) for epoch in range(before, step)]}
        folder.save_checkpoint(step, {"w": torch.full((2,), float(step))}, numbers(step), rows)
        before = step


def finished(path: Path) -> Path:
    with open_run(path) as folder:
        fill(folder, 10, 20)
        folder.finish({"loss": math.nan, "list": [1, 2]}, [], [], {"epoch": [0, 1]})
    return path


def test_a_fresh_run_stores_what_it_was_given(tmp_path):
    with open_run(tmp_path / "a" / "b", resume=False) as folder:
        assert folder.load_checkpoint() is None
        assert folder.notes == []
        assert (folder.status, folder.last_step) == ("running", None)
    run = load_run(tmp_path / "a" / "b")
    assert (run.lab, run.preset) == ("grokking", "tiny")
    assert run.config == {"modulus": 7, "lr": 1e-3, "threads": 3, "layers": [1, 2]}
    assert run.provenance == {"threads": 3, "torch": "2.13"}
    assert run.results is None


def test_threads_left_open_are_those_the_run_was_begun_with(tmp_path):
    open_run(tmp_path / "run").close()
    with open_run(tmp_path / "run", threads=64) as folder:
        assert folder.config["threads"] == 3
    with open_run(tmp_path / "run", config={**CONFIG, "threads": 3}) as folder:
        assert folder.config["threads"] == 3
    with pytest.raises(BadConfig, match="threads is 3 there, 2 asked"):
        open_run(tmp_path / "run", config={**CONFIG, "threads": 2})


def test_another_config_is_refused_and_the_fields_are_named(tmp_path):
    open_run(tmp_path / "run").close()
    before = (tmp_path / "run/run.json").read_bytes()
    other = {"modulus": 11, "threads": None, "layers": [1, 2], "new": 1}
    with pytest.raises(BadConfig, match=r"lr is 0.001 there, '\(absent\)' asked; modulus is 7 there, 11 asked; new is"):
        open_run(tmp_path / "run", config=other)
    with pytest.raises(BadConfig, match="one of 'grokking'"):
        open_run(tmp_path / "run", lab="ioi")
    assert (tmp_path / "run/run.json").read_bytes() == before
    open_run(tmp_path / "run").close()  # and the refusals left no lock


def test_a_checkpoint_brings_back_state_numbers_and_all_rows(tmp_path):
    with open_run(tmp_path / "run") as folder:
        fill(folder, 10, 20, 30)
    with open_run(tmp_path / "run") as folder:
        found = folder.load_checkpoint()
        assert found.step == 30
        assert found.tensors["w"].tolist() == [30.0, 30.0]
        assert found.numbers == numbers(30)
        assert found.rows == {"epoch": list(range(30)), "loss": [1 / (1 + epoch) for epoch in range(30)]}
        assert folder.notes == []
        fill(folder, 40)
    assert read_metrics(tmp_path / "run")["epoch"].tolist() == list(range(40))
    assert verify(tmp_path / "run") == []


def test_only_the_last_two_states_are_kept_but_every_row(tmp_path):
    with open_run(tmp_path / "run") as folder:
        fill(folder, 10, 20, 30, 40)
    kept = sorted(path.parent.name for path in tmp_path.rglob("state.safetensors"))
    assert kept == ["00000030", "00000040"]
    assert len(list(tmp_path.rglob("rows.parquet"))) == 4


def test_rows_with_a_new_column_are_nan_before_it(tmp_path):
    with open_run(tmp_path / "run") as folder:
        folder.save_checkpoint(1, {}, {}, {"epoch": [0]})
        folder.save_checkpoint(2, {}, {}, {"epoch": [1], "norm": [2.0]})
        rows = folder.load_checkpoint().rows
    assert rows["epoch"] == [0, 1]
    assert math.isnan(rows["norm"][0])
    assert rows["norm"][1] == 2.0


def test_checkpoints_rise(tmp_path):
    with open_run(tmp_path / "run") as folder:
        fill(folder, 10)
        with pytest.raises(UserError, match="step 10, but there is one at step 10"):
            folder.save_checkpoint(10, {}, {}, {})


def test_what_is_later_than_the_checkpoint_is_removed_when_it_is_loaded(tmp_path):
    with open_run(tmp_path / "run") as folder:
        fill(folder, 10, 20)
        folder.save_snapshot(25, {"w": torch.ones(1)})
    with open_run(tmp_path / "run") as folder:
        folder.load_checkpoint()
        assert list(folder.snapshots()) == [10, 20]


def test_an_existing_run_is_refused_without_resume(tmp_path):
    finished(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(RunExists, match="--resume"):
        open_run(tmp_path / "run", resume=False)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("resume", [True, False])
def test_an_absent_an_empty_and_a_barely_begun_folder_are_begun_afresh(resume, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/.lock").write_text('{"pid": 1')
    (tmp_path / "killed/.tmp-99-run.json").write_text('{"conf')
    for name in ("absent", "empty", "killed"):
        with open_run(tmp_path / name, resume=resume) as folder:
            assert folder.load_checkpoint() is None
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["run.json"]


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_of_other_things_is_refused_and_untouched(resume, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunExists, match=r"thesis\.tex.*Nothing was touched"):
        open_run(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunExists, match="is a file"):
        open_run(tmp_path / "thesis.tex", resume=resume)


def test_half_written_temporaries_are_removed_on_opening(tmp_path):
    with open_run(tmp_path / "run") as folder:
        fill(folder, 10)
    (tmp_path / "run/snapshots/.tmp-7-x").write_text("half")
    (tmp_path / "run/checkpoints/.tmp-7-00000020").mkdir()
    (tmp_path / "run/checkpoints/.tmp-7-00000020/state.json").write_text("half")
    with open_run(tmp_path / "run") as folder:
        assert folder.load_checkpoint().step == 10
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_resumed_run_says_what_changed_below_it(tmp_path):
    open_run(tmp_path / "run").close()
    with open_run(tmp_path / "run", torch="2.14") as folder:
        assert folder.notes == ["Bit-identity with an uninterrupted run is lost: torch was 2.13, is 2.14."]
        assert folder.provenance["torch"] == "2.13"


CLAIM = Claim(
    id="exact",
    source="paper, section 1",
    text="It is so.",
    published=[1, 2],
    kind="within",
    tolerance=0.1,
    relative=True,
    presets=("tiny", "paper"),
    when={"seed": 0},
    null="noise",
)
JUDGED = (
    Judged(claim=CLAIM, measured=[1, 2], verdict="holds", null_measured=0.5),
    Judged(claim=dataclasses.replace(CLAIM, id="other", published="word"), measured=None, verdict="not run"),
)
FIGURES = (
    Figure(
        name="map",
        kind="heatmap",
        title="Map",
        caption="Look.",
        source="fig. 1",
        claims=("exact",),
        data={
            "z": np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3),
            "panels": ["one"],
            "x_label": "x",
            "y_label": "y",
            "x_names": np.array(["a", "b", "c"]),
            "midpoint": math.nan,
        },
        frames=("start", "end"),
        framed=("z",),
        group="Weights",
    ),
    Figure(
        name="table",
        kind="table",
        title="Table",
        caption="",
        data={"columns": ["a"], "rows": [["x"], [1], [0.1], [True], [None], [math.inf]], "highlight": (0, 1)},
    ),
)


def same_figures(one: tuple[Figure, ...], other: tuple[Figure, ...]) -> bool:
    """Equal in every field, arrays in dtype and bits, NaN equal to NaN."""

    def same(a, b):
        if isinstance(a, np.ndarray):
            equal = np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            return isinstance(b, np.ndarray) and a.dtype == b.dtype and equal
        if isinstance(a, float) and isinstance(b, float):
            return a == b or (a != a and b != b)
        return type(a) is type(b) and a == b

    def heads(figures):
        return [dataclasses.replace(figure, data=dict.fromkeys(figure.data, 0), framed=()) for figure in figures]

    framed = [figure.framed for figure in one] == [figure.framed for figure in other]
    data = all(same(a.data[key], b.data.get(key)) for a, b in zip(one, other) for key in a.data)
    return heads(one) == heads(other) and framed and data


def test_a_finished_run_comes_back_whole(tmp_path):
    with open_run(tmp_path / "run") as folder:
        fill(folder, 10, 20)
        folder.finish({"loss": math.nan, "freq": [1, 2]}, JUDGED, FIGURES, {"epoch": [0, 1], "loss": [0.5, math.nan]})
        assert folder.status == "finished"
    run = load_run(tmp_path / "run")
    assert run.status == "finished"
    assert run.results == {"loss": None, "freq": [1, 2]}
    assert run.claims == JUDGED
    assert same_figures(run.figures, FIGURES)
    metrics = read_metrics(tmp_path / "run")
    assert metrics["epoch"].tolist() == [0, 1]
    assert np.isnan(metrics["loss"][1])
    assert verify(tmp_path / "run") == []


def test_the_comparison_of_figures_can_fail():
    first, second = FIGURES
    assert same_figures(FIGURES, FIGURES)
    assert not same_figures(FIGURES, (first,))
    assert not same_figures(FIGURES, (dataclasses.replace(first, title="Other"), second))
    for key, value in {"z": first.data["z"].astype(float), "midpoint": 0.0, "panels": ("one",)}.items():
        assert not same_figures((first,), (dataclasses.replace(first, data={**first.data, key: value}),))


def test_a_finished_run_is_returned_as_it_is_and_takes_nothing_more(tmp_path):
    finished(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with open_run(tmp_path / "run", torch="9.9") as folder:
        assert folder.status == "finished"
        for write in (
            lambda: folder.save_checkpoint(30, {}, {}, {}),
            lambda: folder.save_snapshot(30, {}),
            lambda: folder.finish({}, [], [], {}),
            lambda: folder.set_status("failed"),
            lambda: folder.load_checkpoint(),
        ):
            with pytest.raises(RunExists, match="finished"):
                write()
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_finished_run_can_be_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    finished(tmp_path / "run")

    def refuse(*arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(atomic, "_write", refuse)
    with open_run(tmp_path / "run") as folder:
        assert folder.status == "finished"
        with pytest.raises(CannotWrite, match=r"report\.html.*Choose a folder you may write to|manifest\.json"):
            folder.add_file("report.html", "<p>")


def test_files_written_by_two_equal_runs_are_equal(tmp_path):
    for name in ("one", "two"):
        with open_run(tmp_path / name) as folder:
            fill(folder, 10, 20)
            folder.finish({"loss": 0.1}, JUDGED, FIGURES, {"epoch": [0, 1]})

    def content(root):
        files = (path for path in sorted(root.rglob("*")) if path.is_file())
        return {str(path.relative_to(root)): path.read_bytes() for path in files}

    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == ["manifest.json", "run.json"]  # run.json holds dates


def test_an_interrupted_run_finishes_with_the_weight_files_of_one_left_alone(tmp_path):
    for name, steps in {"alone": (10, 20, 30), "stopped": (10, 20, 23, 30)}.items():
        with open_run(tmp_path / name) as folder:
            fill(folder, *steps[:-1])
        with open_run(tmp_path / name) as folder:
            folder.load_checkpoint()
            fill(folder, steps[-1])
            if 23 in folder.snapshots():
                folder.snapshots()[23].unlink()
            folder.finish({}, [], [], {})
    weights = {name: sorted((tmp_path / name).rglob("*.safetensors")) for name in ("alone", "stopped")}
    names = {name: [path.relative_to(tmp_path / name) for path in paths] for name, paths in weights.items()}
    assert names["alone"] == names["stopped"]


def test_status_tells_running_interrupted_and_failed(tmp_path):
    with open_run(tmp_path / "run") as folder:
        assert load_run(tmp_path / "run").status == "running"
        folder.set_status("failed")
        assert load_run(tmp_path / "run").status == "failed"
        folder.set_status("running")
        with pytest.raises(UserError, match="Call `finish`"):
            folder.set_status("finished")
    assert load_run(tmp_path / "run").status == "interrupted"  # nobody runs it any more


def test_a_report_joins_the_manifest(tmp_path):
    finished(tmp_path / "run")
    add_file(tmp_path / "run", "report.html", "<p>one")
    assert verify(tmp_path / "run") == []
    add_file(tmp_path / "run", "report.html", "<p>two")
    add_file(tmp_path / "run", "figure.png", b"\x89PNG")
    assert verify(tmp_path / "run") == []
    (tmp_path / "run/report.html").write_text("<p>owt")
    assert verify(tmp_path / "run") == [("report.html", "altered")]


def test_dictionaries_of_a_run_have_folders_of_their_own(tmp_path):
    with open_run(tmp_path / "run") as folder:
        folder.add_file("dictionaries/L0.neurons/cfg.json", "{}")
        folder.finish({}, [], [], {})
    add_file(tmp_path / "run", "dictionaries/L0.neurons/notes.json", "{}")
    assert verify(tmp_path / "run") == []
    (tmp_path / "run/dictionaries/L0.neurons/cfg.json").unlink()
    assert verify(tmp_path / "run") == [("dictionaries/L0.neurons/cfg.json", "missing")]


OWN = ["run.json", "manifest.json", "results.json", "../x", "a/b", ".lock", "figures.json"]
OWN += ["dictionaries/../x", "dictionaries/.x", "dictionaries//x", "checkpoints/x"]


@pytest.mark.parametrize("name", OWN)
def test_a_file_of_the_runs_own_is_not_overwritten(name, tmp_path):
    finished(tmp_path / "run")
    with pytest.raises(UserError, match="Choose another"):
        add_file(tmp_path / "run", name, "text")
    assert verify(tmp_path / "run") == []


def lock_of(pid: int, **changed) -> str:
    return json.dumps({**lock._me(), "pid": pid, "start": lock._start(pid), **changed})


def test_two_handles_do_not_write_to_one_run(tmp_path):
    with open_run(tmp_path / "run"), pytest.raises(RunLocked, match=f"process {os.getpid()}"):
        open_run(tmp_path / "run")
    open_run(tmp_path / "run").close()


def test_the_lock_of_a_live_process_refuses_and_of_a_dead_one_does_not(tmp_path):
    (tmp_path / "run").mkdir()
    place = tmp_path / "run/.lock"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        alive = lock_of(other.pid)
        reused = lock_of(other.pid, start="long ago")
        place.write_text(alive)
        with pytest.raises(RunLocked, match=f"process {other.pid}"):
            open_run(tmp_path / "run")
        place.write_text(reused)  # the same id, given to a later process
        open_run(tmp_path / "run").close()
        other.communicate(b"\n")
    place.write_text(alive)
    open_run(tmp_path / "run").close()
    place.write_text('{"pid": ')  # its owner died while writing it
    open_run(tmp_path / "run").close()
    assert not place.exists()


@pytest.mark.skipif(shutil.which("ps") is None, reason="asks ps, as on macOS")
def test_a_process_is_told_from_a_later_one_without_proc_too(monkeypatch):
    monkeypatch.setattr(lock.sys, "platform", "darwin")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        owner = {**lock._me(), "pid": other.pid, "start": lock._start(other.pid)}
        assert lock._lives(owner)
        assert not lock._lives({**owner, "start": "long ago"})
        other.communicate(b"\n")
    assert not lock._lives(owner)


CHILD_HEAD = {"lab": "grokking", "preset": "tiny", "config": {"modulus": 7}, "provenance": {}, "resume": True}
CHILD = """
import sys, torch
from micrographia.core.store import RunFolder
head = dict(lab="grokking", preset="tiny", config={"modulus": 7}, provenance={}, resume=True)
sys.stdin.readline() or sys.exit()
with RunFolder.open(sys.argv[1], **head) as run:
    found = run.load_checkpoint()
    step = found.step if found else 0
    print("opened", step, flush=True)
    while True:
        step += 1
        run.save_snapshot(step, {"w": torch.full((1000,), float(step))})
        run.save_checkpoint(step, {"w": torch.full((1000,), float(step))}, {"step": step}, {"epoch": [step - 1]})
        print(step, flush=True)
"""


def test_a_process_killed_while_writing_leaves_a_run_that_goes_on(tmp_path):
    path, last = tmp_path / "run", 0
    words, piped = [sys.executable, "-c", CHILD, str(path)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **piped) as one, subprocess.Popen(words, text=True, **piped) as other:
        for child, more in ((one, 3), (other, 9)):  # both load torch before either begins
            child.stdin.write("begin\n")
            child.stdin.flush()
            assert child.stdout.readline() == f"opened {last}\n"
            with pytest.raises(RunLocked):
                RunFolder.open(path, **CHILD_HEAD)
            told = last
            while told < last + more:
                told = int(child.stdout.readline())
            child.kill()
            told = max([told, *(int(line) for line in child.stdout if line.endswith("\n"))])
            child.wait()
            with RunFolder.open(path, **CHILD_HEAD) as folder:
                found = folder.load_checkpoint()
                assert folder.notes == []
                assert found.step >= told  # what was said to be saved is saved
                assert found.tensors["w"].tolist() == [float(found.step)] * 1000
                assert found.rows == {"epoch": list(range(found.step))}
                assert list(folder.snapshots()) == list(range(1, found.step + 1))
                for step, snapshot in folder.snapshots().items():
                    assert read_tensors(snapshot)["w"][0] == step
                last = found.step
            assert verify(path) == []
            assert not list(path.rglob(".tmp-*"))
