"""The benchmarks stay runnable, and their statistics can say no. Nothing is timed here."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = ["grokking_epoch", "ensemble", "startup", "analysis", "command", "patching_sweep", "attribution", "hooks"]


@pytest.fixture
def paired(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import paired  # a script's neighbour, no package

    monkeypatch.setattr(paired, "PAUSE", 0.0)
    return paired


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_runs(name, paired, tmp_path, monkeypatch):
    result = tmp_path / "result.json"
    words = ["--smoke", "--threads", "1", "--out", str(result)]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    found = json.loads(result.read_text())
    assert found["smoke"]
    assert found["machine"]["torch"]


def contender(paired, clock, name, seconds, monkeypatch):
    """A program whose unit takes `seconds` on a clock of our own."""
    monkeypatch.setattr(paired.time, "perf_counter", lambda: clock[0])

    def run(units):
        clock[0] += units * seconds

    return paired.Contender(name, run)


def test_a_program_that_takes_three_times_as_long_has_ratio_three(paired, monkeypatch):
    clock = [0.0]
    ours, theirs = (contender(paired, clock, name, x, monkeypatch) for name, x in (("ours", 1.0), ("theirs", 3.0)))
    found = paired.compare(ours, theirs, unit="step", rounds=4, seconds=6.0, target=4.0)
    assert found.ratio == pytest.approx(3)
    assert found.low == pytest.approx(3)
    assert not found.met
    assert paired.compare(theirs, ours, unit="step", rounds=4, seconds=6.0, target=0.3).met


def test_a_drift_of_the_machine_hits_both_alike(paired, monkeypatch):
    clock, slowness = [0.0], [1.0]
    monkeypatch.setattr(paired.time, "perf_counter", lambda: clock[0])

    def program(seconds):
        def run(units):
            clock[0] += units * seconds * slowness[0]
            slowness[0] *= 1.02

        return run

    found = paired.compare(
        paired.Contender("ours", program(1.0)),
        paired.Contender("theirs", program(2.0)),
        unit="step",
        rounds=20,
        seconds=2.0,
    )
    assert found.ratio == pytest.approx(2, rel=0.05)


def test_an_interval_of_scattered_values_is_wide_and_holds_the_median(paired):
    values = np.random.default_rng(0).lognormal(size=25)
    low, high = paired.interval(values)
    assert low < np.median(values) < high
    assert paired.interval(np.ones(25)) == (1.0, 1.0)


def test_programs_with_other_first_losses_are_not_compared(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from grokking_epoch import check_same_work

    check_same_work({"micrographia": 4.7, "peer": 4.7001})
    with pytest.raises(SystemExit, match="same work"):
        check_same_work({"micrographia": 4.7, "peer": 4.8})


def test_a_round_in_which_others_were_busy_is_taken_again(paired, monkeypatch):
    clock, busy = [0.0], iter([0.0, 1.0, 0.9, *[0.01] * 20])
    monkeypatch.setattr(paired.Others, "cores", lambda self: next(busy))
    ours, theirs = (contender(paired, clock, name, x, monkeypatch) for name, x in (("ours", 1.0), ("theirs", 2.0)))
    found = paired.compare(ours, theirs, unit="step", rounds=6, seconds=2.0, busy=0.05)
    assert found.rounds_dropped == 2
    assert found.cores_of_others == [0.0, *[0.01] * 5]
    assert len(found.ours_seconds) == len(found.theirs_seconds) == 6


def test_a_machine_that_is_never_quiet_is_not_measured(paired, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(paired.Others, "cores", lambda self: 1.0)
    ours, theirs = (contender(paired, clock, name, 1.0, monkeypatch) for name in ("ours", "theirs"))
    with pytest.raises(SystemExit, match="0 were so quiet"):
        paired.compare(ours, theirs, unit="step", rounds=6, seconds=1.0, busy=0.05)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="what others do is known on Linux only")
def test_the_work_of_our_own_children_is_not_that_of_others(paired):
    import others

    def work():
        subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)

    before, began = others.family_seconds(os.getpid()), others.busy_seconds()
    work()
    own, all_of_it = others.family_seconds(os.getpid()) - before, others.busy_seconds() - began
    assert 0.05 < own <= all_of_it + 0.1
