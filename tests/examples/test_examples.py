"""Every example runs, in a fresh process, at its smallest preset, and shows what its reader is promised."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from miniature import save_gpt2

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_shows_what_it_promises(path, tmp_path):
    CHECKS[path.stem](run(path, tmp_path))


def published_stands_beside_measured(told: str) -> None:
    assert "  published 0.95, measured" in told
    assert "['" not in told  # lists are words


def attended(told: str) -> None:
    lines = told.splitlines()
    assert lines[0].startswith("accuracy: ")
    accuracies = {line.partition(": ")[2].split()[0] for line in lines}
    assert len(accuracies) > 1


def exact_stands_beside_estimated(told: str) -> None:
    assert "Effects(denoise, exact" in told
    assert "Pearson" in told


CHECKS = {
    "grokking_in_twelve_lines": published_stands_beside_measured,
    "patch_a_model": exact_stands_beside_estimated,
    "read_a_network": attended,
}


ARGUMENTS = {"patch_a_model": lambda folder: save_gpt2(folder / "gpt2")}  # of all others: the smallest preset


def run(path: Path, runs: Path) -> str:
    here = {"MICROGRAPHIA_RUNS": str(runs), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), str(ARGUMENTS.get(path.stem, lambda folder: "tiny")(runs))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **here},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
