"""Every example runs, in a fresh process, at its smallest preset, and shows what its reader is promised."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_shows_what_it_promises(path, tmp_path):
    CHECKS[path.stem](run(path, tmp_path))


def published_stands_beside_measured(told: str) -> None:
    assert "logit-variance: published 0.95, measured" in told


def edits_change_the_loss(told: str) -> None:
    losses = [line.partition(": ")[2].split()[0] for line in told.splitlines()]
    assert "neurons of frequency" in told
    assert len(set(losses)) > 1


CHECKS = {
    "grokking_in_twelve_lines": published_stands_beside_measured,
    "read_a_network": edits_change_the_loss,
}


def run(path: Path, runs: Path) -> str:
    here = {"MICROGRAPHIA_RUNS": str(runs), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), "tiny"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **here},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
