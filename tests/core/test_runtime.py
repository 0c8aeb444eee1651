"""Threads, devices and generators: chosen from what is allowed, restored afterwards, the same each time."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core import provenance as provenance_module
from micrographia.core import runtime
from micrographia.core.errors import BadConfig
from micrographia.core.provenance import changed_since
from micrographia.core.runtime import (
    allowed_cores,
    batch_generator,
    busy_warning,
    flushes_denormals,
    generator,
    pick_device,
    provenance,
    settings,
    torch_dtype,
)


@pytest.fixture
def eight_cores(monkeypatch, tmp_path):
    """Eight cores by affinity, and a tree of control groups to be filled."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(runtime, "_CGROUPS", tmp_path)
    monkeypatch.setattr(runtime, "_PROC", tmp_path / "proc")

    def group(text: str, files: dict[str, str]) -> None:
        for name, content in {"proc/self/cgroup": text, **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)

    return group


V1 = "cpu,cpuacct/x/cpu.cfs_"


@pytest.mark.parametrize(
    ("text", "files", "cores"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("4:memory:/\n3:cpu,cpuacct:/x\n", {f"{V1}quota_us": "-1\n", f"{V1}period_us": "100000\n"}, 8),
        ("3:cpu,cpuacct:/x\n", {f"{V1}quota_us": "250000\n", f"{V1}period_us": "100000\n"}, 3),
    ],
)
def test_allowed_cores_follow_affinity_and_quota(text, files, cores, eight_cores):
    eight_cores(text, files)
    assert allowed_cores() == cores


def test_allowed_cores_without_affinity_or_groups_are_those_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(runtime, "_PROC", tmp_path)
    assert allowed_cores() == 6


@pytest.mark.parametrize(
    ("others", "threads", "warned"),
    [(0.0, 4, False), (1.9, 2, False), (2.5, 2, True), (1.0, 4, True), (0.1, 9, False), (None, 4, False)],
)
def test_a_busy_machine_is_told(others, threads, warned, monkeypatch):
    monkeypatch.setattr(runtime, "_affinity", lambda: 4)
    monkeypatch.setattr(runtime, "_busy_with_others", lambda: others)
    told = busy_warning(threads)
    assert (told is not None) == warned
    if warned:
        assert f"{others:.1f} of 4 cores" in told
        assert f"{threads} threads" in told


def test_the_work_of_others_is_what_this_process_did_not_do(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "_PROC", tmp_path)
    monkeypatch.setattr(runtime, "_SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    (tmp_path / "stat").write_text(
        "cpu 9 9 9 9\ncpu0 1 2 3 99 99 4 5 6 0 0\ncpu1 1 0 0 99 99 0 0 0 0 0\ncpu2 7 7 7 7 7 7 7 7\n"
    )
    assert runtime._busy_seconds() * os.sysconf("SC_CLK_TCK") == 22
    assert runtime._busy_with_others() == 0.0


def state() -> tuple:
    return (
        torch.get_num_threads(),
        flushes_denormals(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


def test_settings_hold_inside_and_are_restored_after_an_exception():
    before = state()
    inside = []

    def fail() -> None:
        with settings(threads=2):
            inside.append(state())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [(2, True, True, True, False, "highest", False, before[-1])]
    assert state() == before


def test_settings_can_be_nested():
    with settings(threads=2):
        outer = state()
        with settings(threads=1):
            assert torch.get_num_threads() == 1
        assert state() == outer


def test_the_workspace_of_cublas_is_set_for_cuda_alone(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with settings(threads=1, device="cuda"):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def flushed(size: int = 400_000) -> int:
    """How many of `size` products of denormals, spread over the threads, came out as zero."""
    return int(((torch.full((size,), 1e-40) * 1.0).view(torch.int32) == 0).sum())


@pytest.mark.skipif(not runtime._openmp_libraries(), reason="torch runs without an OpenMP of its own here")
def test_denormals_are_flushed_in_every_thread_even_if_the_pool_was_there_before():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert flushed() == 0  # makes a pool whose threads do not flush
        with settings(threads=2):
            assert flushed() == 400_000
        assert flushed() == 0
    finally:
        torch.set_num_threads(before)


def test_devices_are_picked_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(BadConfig, match="'gpu', unknown to torch"):
        pick_device("gpu")
    with pytest.raises(BadConfig, match=r"'cuda:99'; of cuda devices there are \d"):
        pick_device("cuda:99")
    with pytest.raises(BadConfig, match="meta"):
        pick_device("meta")


def test_dtypes_are_named():
    assert torch_dtype("float64") is torch.float64
    with pytest.raises(BadConfig, match="'int8'; known are float64"):
        torch_dtype("int8")


def test_a_generator_repeats_from_its_seed():
    one, two = (torch.rand(5, generator=generator(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, torch.rand(5, generator=generator(4)))


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1))
def test_a_batch_is_a_function_of_seed_and_step(seed, step):
    draws = [torch.randperm(50, generator=batch_generator(seed, step)).tolist() for _ in range(2)]
    assert draws[0] == draws[1]


def test_no_two_steps_of_a_seed_draw_alike_and_seeds_differ():
    seeds = {batch_generator(0, step).initial_seed() for step in range(20_000)}
    assert len(seeds) == 20_000
    assert max(seeds) < 2**32  # torch would drop higher bits
    assert not seeds >= {batch_generator(1, step).initial_seed() for step in range(100)}


def test_provenance_tells_what_a_result_stood_on():
    told = provenance(7, "cpu", torch.float64, 2)
    assert (told["seed"], told["device"], told["dtype"], told["threads"]) == (7, "cpu", "float64", 2)
    assert told["torch"] == torch.__version__
    assert {"version", "commit", "dirty", "python", "platform", "cpu", "device_name"} <= told.keys()
    assert provenance(7, "cpu", "float64", 2) == told  # no dates


def test_provenance_outside_a_checkout_knows_no_commit(monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(Path(__file__).parent / "absent"))
    told = provenance(7, "cpu", "float32", 1)
    assert (told["commit"], told["dirty"]) == (None, None)
    monkeypatch.setattr(provenance_module.subprocess, "run", _absent)
    assert provenance_module._commit() == {"commit": None, "dirty": None}


def _absent(*arguments, **options):
    raise FileNotFoundError("git")


def test_changes_that_may_change_bits_are_told():
    then = {"torch": "2.11", "device": "cpu", "threads": 2, "python": "3.11"}
    assert changed_since(then, dict(then)) == []
    assert changed_since(then, {**then, "torch": "2.13", "threads": 4, "python": "3.12"}) == ["torch was 2.11, is 2.13"]


def test_settings_raise_no_warning_for_what_training_uses():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with settings(threads=1):
            table = torch.randn(5, 3, requires_grad=True)
            (table[torch.tensor([0, 1, 1])] @ table.T).logsumexp(-1).sum().backward()
            assert table.grad is not None
