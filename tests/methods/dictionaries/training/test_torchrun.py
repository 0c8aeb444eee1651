"""Two processes as torchrun starts them, on gloo: the same state in both, and that of one process up to rounding."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from one_of_torchrun import DEAD_AFTER, STEPS, gone_on, stepped
from safetensors.torch import load_file

from micrographia.core.distributed import ALONE, current_group, joined

HERE = Path(__file__).parent
FLOAT32 = 1e-6


def two_processes(tmp_path: Path, stop_at: str = "") -> list[dict[str, torch.Tensor]]:
    """What each wrote. Started by torchrun itself, which sets the environment and finds a free port."""
    paths = os.pathsep.join([*sys.path, str(HERE)])
    given = [str(HERE / "one_of_torchrun.py"), str(tmp_path / "run"), str(tmp_path / "{rank}.safetensors"), stop_at]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *given]
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1)]


def test_two_processes_keep_one_state_which_is_that_of_one_process(tmp_path):
    first, second = two_processes(tmp_path)
    alone = stepped()
    assert first.keys() == second.keys() == alone.keys()
    assert [name for name in alone if not torch.equal(first[name], second[name])] == []
    torch.testing.assert_close(first, alone, atol=FLOAT32, rtol=FLOAT32)
    assert bool((first["1.silent"] >= DEAD_AFTER).any())  # so that there are dead latents to agree on
    assert len(first["losses"]) == 3 * STEPS


def test_what_two_processes_began_one_goes_on_with(tmp_path):
    first, second = two_processes(tmp_path, stop_at="20")
    assert torch.equal(first["losses"], second["losses"])
    assert len(first["losses"]) == 20  # only the first was asked to stop: both do, after the same step
    found, alone = gone_on(tmp_path / "run"), gone_on(tmp_path / "alone")
    torch.testing.assert_close(found, alone, atol=FLOAT32, rtol=FLOAT32)


def test_without_torchrun_a_process_is_alone(monkeypatch):
    with joined() as group:
        assert group == current_group() == ALONE
        group.wait()
        assert group.any(True)
        assert not group.any(False)
    monkeypatch.setenv("WORLD_SIZE", "2")  # as some schedulers set it, with nobody to meet
    with joined() as group:
        assert group == ALONE
