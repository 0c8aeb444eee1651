"""Two processes, each on half of every batch, train what one trains: batch-level top-k and counters over both."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from one_of_two import trained
from safetensors.torch import load_file

HERE = Path(__file__).parent


def started(rank, folder):
    paths = os.pathsep.join([*sys.path, str(HERE)])
    output = folder / f"{rank}.safetensors"
    command = [sys.executable, str(HERE / "one_of_two.py"), str(rank), str(folder / "meeting"), str(output)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}), output


def test_two_processes_train_what_one_trains(tmp_path):
    both = [started(rank, tmp_path) for rank in (0, 1)]
    alone = trained()
    for process, _ in both:
        assert process.wait(timeout=240) == 0
    first, second = (load_file(output) for _, output in both)
    assert first.keys() == second.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(first[name], second[name], atol=0, rtol=0, msg=name)
        torch.testing.assert_close(first[name], value, atol=1e-9, rtol=1e-9, msg=name)
    assert len(alone["losses"]) == 8
