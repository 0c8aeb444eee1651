"""Damage is found before use: altered, truncated, missing and extra files; full and read-only disks keep what was."""

import errno
import os
from pathlib import Path

import pytest
import torch

from micrographia.core.errors import CannotWrite, Corrupt, RunNotFound, StoreError
from micrographia.core.store import RunFolder, atomic, json_bytes, load_run, read_metrics, verify, write_bytes

HEAD = {"lab": "grokking", "preset": "tiny", "config": {"modulus": 7}, "provenance": {}, "resume": True}


def begun(path: Path, *steps: int) -> Path:
    with RunFolder.open(path, **HEAD) as folder:
        for step in steps:
            folder.save_snapshot(step, {"w": torch.ones(3)})
            folder.save_checkpoint(step, {"w": torch.full((50,), float(step))}, {"n": step}, {"epoch": [step]})
    return path


@pytest.fixture
def run(tmp_path) -> Path:
    return begun(tmp_path / "run", 10, 20, 30)


@pytest.fixture
def finished(run) -> Path:
    with RunFolder.open(run, **HEAD) as folder:
        folder.finish({"loss": 0.5}, [], [], {"epoch": [0]})
        folder.add_file("report.html", "<p>")
    return run


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def resumed_at(run: Path) -> tuple[int | None, list[str]]:
    with RunFolder.open(run, **HEAD) as folder:
        found = folder.load_checkpoint()
        return found and found.step, folder.notes


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "rows.parquet", "manifest.json"])
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used(damage, file, run):
    damage(run / "checkpoints/00000030" / file)
    assert [problem.file for problem in verify(run)] == [f"checkpoints/00000030/{file}"]
    step, notes = resumed_at(run)
    assert step == 20
    assert f"checkpoints/00000030/{file}" in notes[0]
    assert notes[-1] == "Work resumes from the last good checkpoint, step 20."
    assert not (run / "checkpoints/00000030").exists()
    assert verify(run) == []
    assert resumed_at(run) == (20, [])


@pytest.mark.parametrize("file", ["checkpoints/00000010/rows.parquet", "snapshots/00000010.safetensors"])
def test_without_a_good_checkpoint_the_run_starts_afresh_and_says_so(file, run):
    flip(run / file)
    assert [problem.file for problem in verify(run)] == [file]
    step, notes = resumed_at(run)
    assert step is None
    assert file in notes[0]
    assert notes[-1] == "No good checkpoint is left, so the run starts afresh."
    assert resumed_at(run) == (None, [])
    begun(run, 10)
    assert verify(run) == []


def test_a_missing_checkpoint_in_the_middle_breaks_the_chain(run):
    atomic.remove(run / "checkpoints/00000020")
    assert verify(run) == [("checkpoints/00000030", "not the one after 10: a checkpoint between is missing")]
    step, notes = resumed_at(run)
    assert step is None
    assert "00000030 is not the one after 10" in notes[0]


def test_both_states_damaged_is_told_for_both(run):
    flip(run / "checkpoints/00000030/state.safetensors")
    cut(run / "checkpoints/00000020/state.safetensors")
    _, notes = resumed_at(run)
    assert ["altered" in notes[0], "cut short" in notes[1], "afresh" in notes[2]] == [True, True, True]


def test_metrics_of_a_damaged_run_end_before_the_damage(run):
    flip(run / "checkpoints/00000030/rows.parquet")
    assert read_metrics(run)["epoch"].tolist() == [10, 20]


def files(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_every_file_of_a_finished_run_is_answered_for(damage, finished):
    assert verify(finished) == []
    for path in files(finished):
        whole = path.read_bytes()
        damage(path)
        found = [problem.file for problem in verify(finished)]
        assert path.relative_to(finished).as_posix() in found, path
        path.write_bytes(whole)
    assert verify(finished) == []


def test_every_byte_of_the_small_files_is_answered_for(finished):
    for name in ("run.json", "manifest.json"):
        whole = (finished / name).read_bytes()
        for place in range(0, len(whole), 11):
            flip(finished / name, place)
            assert verify(finished) != [], (name, place)
            (finished / name).write_bytes(whole)


def test_every_byte_of_a_checkpoints_manifest_is_answered_for(run):
    path = run / "checkpoints/00000020/manifest.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flip(path, place)
        assert verify(run) != [], place
    path.write_bytes(whole)
    assert verify(run) == []


def test_extra_files_are_reported(finished):
    (finished / "snapshots/stray.txt").write_text("?")
    assert verify(finished) == [("snapshots/stray.txt", "extra: not in the manifest")]


def test_verify_needs_a_run(tmp_path):
    with pytest.raises(RunNotFound, match="Give the folder of a Run"):
        verify(tmp_path)


@pytest.mark.parametrize("name", ["results.json", "claims.json", "figures.json", "figures.safetensors", "run.json"])
def test_a_run_that_cannot_be_read_is_corrupt(name, finished):
    (finished / name).write_bytes(b"{}" if name.endswith("json") and name != "results.json" else b"\xff")
    with pytest.raises(Corrupt, match=r"altered|do not|cut short"):
        load_run(finished)


@pytest.mark.parametrize(("number", "advice"), [(errno.ENOSPC, "Free some space"), (errno.EROFS, "you may write to")])
def test_a_full_or_read_only_disk_is_named_with_what_to_do(number, advice, tmp_path, monkeypatch):
    write_bytes(tmp_path / "x.json", json_bytes({"loss": 0.5}))
    before = (tmp_path / "x.json").read_bytes()

    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, "_write", refuse)
    with pytest.raises(CannotWrite, match=rf"x\.json: {os.strerror(number)}.*still there.*{advice}") as caught:
        write_bytes(tmp_path / "x.json", json_bytes({"loss": 0.25}))
    assert caught.value.errno == number
    assert isinstance(caught.value, StoreError)
    assert isinstance(caught.value, OSError)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_bytes() == before
    with pytest.raises(CannotWrite):
        RunFolder.open(tmp_path / "run", **HEAD)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission_refuses(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(CannotWrite, match="Permission denied"):
        RunFolder.open(tmp_path / "closed" / "run", **HEAD)


def test_a_file_where_a_folder_should_be_refuses(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(CannotWrite, match="file"):
        write_bytes(tmp_path / "file" / "x.json", json_bytes({}))
    assert (tmp_path / "file").read_text() == "text"
