"""Finding Runs by path, name and prefix."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from micrographia.core.errors import RunNotFound
from micrographia.core.store import RunFolder, find_run, list_runs, load_run, new_run_path, runs_root


def make(root: Path, *names: str) -> list[Path]:
    for name in names:
        RunFolder.open(
            root / name, lab=name.split("/")[0], preset="tiny", config={}, provenance={}, resume=False
        ).close()
    return [root / name for name in names]


def test_the_root_is_the_variable_or_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MICROGRAPHIA_RUNS", raising=False)
    assert runs_root() == tmp_path / "runs"
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path / "elsewhere"))
    assert runs_root() == tmp_path / "elsewhere"


@dataclass(frozen=True)
class Config:
    modulus: int = 7


def test_a_new_path_names_lab_time_and_config_and_is_free(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path))
    path = new_run_path("grokking", Config())
    assert path.parent == tmp_path / "grokking"
    assert not path.exists()
    day, clock, code = path.name.split("-")[:3]
    assert (len(day), len(clock), len(code)) == (8, 6, 8)
    assert new_run_path("grokking", {"modulus": 7}).name.split("-")[2] == code
    assert new_run_path("grokking", {"modulus": 11}).name.split("-")[2] != code


def test_two_new_paths_in_one_second_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path))
    paths = set()
    for _ in range(4):
        path = new_run_path("grokking", {})
        path.mkdir(parents=True)
        paths.add(path)
    assert len(paths) == 4


def test_runs_are_listed_newest_first(tmp_path):
    made = make(tmp_path, "grokking/b", "ioi/a", "grokking/c")
    (tmp_path / "grokking/no-run").mkdir()
    assert list_runs(tmp_path) == made[::-1]
    assert list_runs(tmp_path / "absent") == []


def test_a_run_put_straight_below_the_root_is_listed_and_the_members_of_a_run_are_not(tmp_path):
    run, member, deep = make(tmp_path, "mine", "mine/member", "ioi/a")
    assert list_runs(tmp_path) == [deep, run]
    assert list_runs(run) == [run]
    assert find_run("mine", root=tmp_path) == run
    assert find_run(member) == member


def test_of_many_candidates_ten_are_named_and_the_others_counted(tmp_path):
    make(tmp_path, *(f"ioi/{i:02}" for i in range(12)))
    with pytest.raises(RunNotFound, match=r"\n  ioi/03\n  ioi/02\n  and 2 more$"):
        find_run("x", root=tmp_path)


def test_a_run_is_found_by_path_name_and_unique_beginning(tmp_path, monkeypatch):
    one, two, three = make(tmp_path, "grokking/2025-aa", "grokking/2025-ab", "ioi/2025-aa-2")
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path))
    assert find_run(str(one)) == one
    assert find_run("2025-ab") == two
    assert find_run("grokking/2025-aa") == one
    assert find_run("io") == three
    assert find_run("2025-aa") == one  # a whole name is not a beginning
    monkeypatch.chdir(tmp_path / "ioi")
    assert find_run("2025-aa-2", root=tmp_path / "absent") == three


def test_a_run_that_is_not_found_names_the_candidates(tmp_path):
    make(tmp_path, "grokking/2025-aa", "grokking/2025-ab", "ioi/2026")
    with pytest.raises(RunNotFound, match=r"2 Runs begin so.*:\n  grokking/2025-ab\n  grokking/2025-aa$"):
        find_run("2025", root=tmp_path)
    with pytest.raises(RunNotFound, match=r"no Run begins so.*\n  ioi/2026"):
        find_run("1999", root=tmp_path)
    with pytest.raises(RunNotFound, match="none yet"):
        find_run("x", root=tmp_path / "absent")
    with pytest.raises(RunNotFound, match="3 Runs"):
        find_run("", root=tmp_path)
    with pytest.raises(RunNotFound, match="Give the folder of a Run"):
        load_run(tmp_path)
