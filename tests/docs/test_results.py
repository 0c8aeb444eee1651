"""Stored Runs are whole, their verdicts are what judging says, and the script that keeps them keeps what it should."""

import json
import shutil
from pathlib import Path

import pytest

from micrographia.core.claims import judge
from micrographia.core.errors import UserError
from micrographia.core.store import load_run, verify

ROOT = Path(__file__).parents[2]
STORED = sorted(path.parent for path in (ROOT / "docs" / "results").glob("*/run.json"))


@pytest.fixture
def keeper(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import keep_run  # a script, no package

    return keep_run


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_a_stored_run_is_as_it_was_kept_and_judged(path):
    assert verify(path) == []
    run = load_run(path)
    for each in run.claims:
        taken = each.measured is not None or each.verdict != "not run"  # what was not asked for has no figure
        again = judge(each.claim, each.measured, preset=taken * run.preset, config=run.config)
        assert again.verdict == each.verdict, each.claim.id


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_a_stored_run_tells_nothing_of_the_machine_but_its_kind(path):
    texts = "".join(each.read_text(encoding="utf-8") for each in path.glob("*.json"))
    assert str(Path.home()) not in texts
    assert "/tmp/" not in texts
    assert str(Path.cwd().parent) + "/" not in texts
    provenance = json.loads((path / "run.json").read_text(encoding="utf-8"))["provenance"]
    assert {"cpu", "dtype", "threads", "torch"} <= provenance.keys()


def test_a_kept_run_has_no_weights_and_no_page_and_is_whole(keeper, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(STORED[0], source)
    (source / "report.html").write_text("a page")
    (source / "snapshots").mkdir()
    (source / "snapshots" / "1.safetensors").write_bytes(b"weights")
    names = keeper.keep(source, tmp_path / "kept")
    assert names == sorted(path.name for path in STORED[0].iterdir() if path.name not in ("manifest.json", ".lock"))
    assert verify(tmp_path / "kept") == []


def test_an_unfinished_run_is_not_kept(keeper, tmp_path):
    shutil.copytree(STORED[0], tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    with pytest.raises(UserError, match="not finished"):
        keeper.keep(tmp_path / "run", tmp_path / "kept")
