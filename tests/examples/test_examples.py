"""Every example runs, in a fresh process, at its smallest preset, and shows what its reader is promised.

They run side by side: most of their time goes into loading libraries.
"""

import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from miniature import save_gpt2

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folders = {path.stem: tmp_path_factory.mktemp(path.stem) for path in EXAMPLES}
    arguments = {name: ARGUMENTS.get(name, lambda folder: "tiny")(folder) for name, folder in folders.items()}
    started = {path.stem: start(path, str(arguments[path.stem]), folders[path.stem]) for path in EXAMPLES}
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_shows_what_it_promises(path, running):
    told, errors = running[path.stem].communicate(timeout=300)
    assert running[path.stem].returncode == 0, errors
    CHECKS[path.stem](told)


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


def latents_are_places(told: str) -> None:
    gap = float(told.partition("logits differ by ")[2].split()[0])
    assert gap < 1e-4
    assert "Effects(denoise, exact" in told
    assert "Effects(denoise, estimated by atp" in told
    assert "latent " in told
    assert told.count("logit of Mary") == 2


CHECKS = {
    "grokking_in_twelve_lines": published_stands_beside_measured,
    "latents": latents_are_places,
    "patch_a_model": exact_stands_beside_estimated,
    "read_a_network": attended,
}


ARGUMENTS = {  # of all others: the smallest preset
    "latents": lambda folder: save_gpt2(folder / "gpt2"),
    "patch_a_model": lambda folder: save_gpt2(folder / "gpt2"),
}


def start(path: Path, argument: str, runs: Path) -> Popen[str]:
    here = {"MICROGRAPHIA_RUNS": str(runs), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "error", str(path), argument]
    return Popen(words, stdout=PIPE, stderr=PIPE, text=True, env={**os.environ, **here})
