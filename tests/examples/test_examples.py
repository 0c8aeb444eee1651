"""Every example runs, in a fresh process, at its smallest preset."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SAYS = {
    "grokking_in_twelve_lines": "published 0.95, measured",
    "read_a_network": "neurons of frequency",
}
"""What a reader is promised to see."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_shows_what_it_promises(path, tmp_path):
    told = run(path, tmp_path)
    assert SAYS[path.stem] in told


def test_a_kept_and_edited_network_is_not_the_network_as_it_is(tmp_path):
    lines = run(ROOT / "examples" / "read_a_network.py", tmp_path).splitlines()
    losses = [line.partition(": ")[2].split()[0] for line in lines]
    assert len(set(losses)) > 1


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
