"""A suite by several processes: workers that train programs side by side, and those of torchrun that train together."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from micrographia.core.claims import Run
from micrographia.core.config import flat, with_fields
from micrographia.core.dictionaries.suite import Suite
from micrographia.core.errors import BadConfig, Interrupted
from micrographia.core.events import Note, Progress
from micrographia.core.sites import Site
from micrographia.core.store import load_run, verify
from micrographia.labs.gemma_scope import train
from micrographia.labs.gemma_scope.config import preset_of, quick
from micrographia.labs.gemma_scope.members import WantedDictionary, shared
from micrographia.labs.gemma_scope.run import run

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def small(config):
    """Two programs, of z with 32 dims and mlp_out with 16, on less text than their steps take: it is worth storing."""
    sizes = {"d_head": 16, "layers": "0", "sites": "z, mlp_out", "widths": "24", "l0s": "3, 6"}
    return with_fields(config, **sizes, tokens=2_000, workers=2)


@pytest.fixture(scope="module")
def one_process(small, run_once) -> Run:
    """The same programs, one after the other in this process, which finds none trained by workers."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train, "_side_by_side", lambda *_, **__: None)
        return run_once(run, small)


def same(one: Run, other: Run) -> bool:
    files = [each.relative_to(one.path) for each in (one.path / "suite").rglob("*.safetensors")]
    assert files
    return all((one.path / each).read_bytes() == (other.path / each).read_bytes() for each in files)


def assert_alike(one: Run, other: Run, tolerance: float) -> None:
    suites = Suite.load(one.path), Suite.load(other.path)
    assert len(suites[0]) == len(suites[1])
    for row in suites[1]:
        wanted = {"site": row.site, "layer": row.layer, "width": row.width, "l0": row.asked}
        ours, theirs = (each.get(**wanted).weights.named() for each in suites)
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def test_workers_train_what_one_process_trains_bit_for_bit(small, one_process, tmp_path):
    told = []
    found = run(small, out=tmp_path / "r", watch=told.append)
    assert same(found, one_process)
    assert found.results == one_process.results
    (plan,) = [each.text for each in told if isinstance(each, Note) and each.text.startswith("Suite:")]
    assert "in 2 programs of equal shape on one harvest, stored in 0 MB" in plan
    assert "In 2 processes side by side." in plan
    steps = [each.stage for each in told if isinstance(each, Progress) and each.unit == "step"]
    assert set(steps) == {"train the language model"}  # programs were trained elsewhere
    assert not list((tmp_path / "r").rglob(train.ACTIVATIONS))  # they were there while it was trained
    assert verify(found.path) == []


def test_workers_that_were_stopped_go_on_and_without_disk_run_the_model(small, one_process, tmp_path):
    def stop(event):
        if isinstance(event, Progress) and (event.stage, event.done) == ("tasks", 1):
            os.kill(os.getpid(), signal.SIGINT)

    bare = with_fields(small, disk_mb=0, untrained=False)
    with pytest.raises(Interrupted, match="of 2 programs are finished"):
        run(bare, out=tmp_path / "r", watch=stop)
    assert load_run(tmp_path / "r").status == "interrupted"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train, "_side_by_side", lambda *_, **__: None)
        alone = run(bare, out=tmp_path / "alone")
    assert same(run(bare, out=tmp_path / "r", resume=True), alone)
    assert_alike(alone, one_process, 1e-5)  # which read stored activations


def test_torchrun_trains_the_suite_of_one_process(config, done, tmp_path):
    given, out = tmp_path / "config.json", tmp_path / "r"
    given.write_text(json.dumps(flat(config)))
    module = ["-m", "micrographia.labs.gemma_scope", str(given), str(out)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *module]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == [str(out)]
    assert verify(out) == []
    assert len((load_run(out).results or {})["untrained"]) == len(done.results["untrained"])
    assert_alike(load_run(out), done, 1e-5)


def test_shares_are_of_whole_sites_and_none_is_empty():
    members = [WantedDictionary(Site("z", layer), width, 3.0) for layer in range(5) for width in (8, 16)]
    for workers in (1, 2, 3, 9):
        found = shared(members, workers)
        assert [each for share in found for each in share] == members
        assert len(found) == min(workers, 5)
        assert all(len(each) >= 2 and len(each) % 2 == 0 for each in found)


def test_workers_share_the_threads_of_the_run(config):
    assert [train.threads_of(with_fields(config, threads=6, workers=n)) for n in (1, 3, 9)] == [6, 2, 1]


def test_how_it_is_carried_out_is_free_and_checked():
    assert preset_of(with_fields(quick(), workers=3, disk_mb=0)) == "quick"
    for name, value in {"workers": 0, "disk_mb": -1}.items():
        with pytest.raises(BadConfig, match=name):
            with_fields(quick(), **{name: value})
