"""The benchmarks stay runnable, and their statistics can say no. Nothing is timed here."""

import json
import math
import os
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = {
    "grokking_epoch": [],
    "ensemble": [],
    "startup": [],
    "analysis": [],
    "command": [],
    "patching_sweep": ["--task", "resid_pre", "heads"],
    "attribution": [],
    "attribution_check": [],
    "hooks": [],
    "formats_with_tools": [],
    "dictionary_training": [],
    "feature_bundle": [],
    "othello_engine": [],
    "othello_training": [],
    "lookup": [],
    "read_places": [],
    "reversal_training": [],
    "browser": [],
}
OTHER_SHAPES = [(name, shape) for name in ("patching_sweep", "attribution", "hooks") for shape in ("xl", "7b")]
OTHER_SHAPES += [("patching_sweep", "smollm2")]
FAKE_PEER = """
import sys
from pathlib import Path
import numpy as np
print("a library says something")
print("ready", 1.5, "torch-of-theirs")
given = np.load(Path(sys.argv[1]) / "tokens.npz")["x"]
for line in sys.stdin:
    if line.startswith("end"):
        break
    np.savez(Path(sys.argv[1]) / "theirs.npz", x=given + int(line.split()[1]))
    print("and again")
    print("done", line.strip())
"""


@pytest.fixture
def scripts(monkeypatch):
    """The folder of the scripts on the path: they are neighbours, no package."""
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def paired(scripts, monkeypatch):
    import paired

    monkeypatch.setattr(paired, "PAUSE", 0.0)
    return paired


@pytest.fixture
def run(paired, tmp_path, monkeypatch):
    """A script run to its end, and what it left."""

    def of(name, *words):
        result = tmp_path / "result.json"
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--smoke", "--threads", "1", "--out", str(result), *words])
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
        return json.loads(result.read_text())

    return of


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_runs(name, run):
    found = run(name, *SCRIPTS[name])
    assert found["smoke"]
    assert found["finished"]
    assert found["machine"]["torch"]


@pytest.mark.parametrize(("name", "shape"), OTHER_SHAPES)
def test_a_benchmark_runs_at_other_shapes_and_in_bfloat16(name, shape, run):
    """On a GPU it is the same path with another word after --device."""
    found = run(name, "--shape", shape, "--dtype", "bfloat16", "--device", "cpu")
    assert found["shape"] == shape
    assert found["machine"]["dtype"] == "bfloat16"
    assert {"alone", "memory"} & set(found)


def contender(paired, clock, name, seconds, monkeypatch):
    """A program whose unit takes `seconds` on a clock of our own."""
    monkeypatch.setattr(paired.time, "perf_counter", lambda: clock[0])

    def run(units):
        clock[0] += units * seconds

    return paired.Contender(name, run)


def last(paired, *matches, **flags):
    """The comparisons after the last round."""
    return list(paired.compare(matches, **flags))[-1]


def test_a_program_that_takes_three_times_as_long_has_ratio_three(paired, monkeypatch):
    clock = [0.0]
    ours, theirs = (contender(paired, clock, name, x, monkeypatch) for name, x in (("ours", 1.0), ("theirs", 3.0)))
    there, back = paired.Match(ours, theirs, "step", 4.0), paired.Match(theirs, ours, "step", 0.3)
    found, other = last(paired, there, back, rounds=4, seconds=6.0)
    assert found.ratio == pytest.approx(3)
    assert found.low == pytest.approx(3)
    assert (found.ours_chunk, found.theirs_chunk, found.n) == (6, 2, 4)
    assert not found.met
    assert other.met


def test_a_drift_of_the_machine_hits_both_alike(paired, monkeypatch):
    clock, slowness = [0.0], [1.0]
    monkeypatch.setattr(paired.time, "perf_counter", lambda: clock[0])

    def program(seconds):
        def run(units):
            clock[0] += units * seconds * slowness[0]
            slowness[0] *= 1.02

        return run

    match = paired.Match(paired.Contender("ours", program(1.0)), paired.Contender("theirs", program(2.0)), "step")
    (found,) = last(paired, match, rounds=20, seconds=2.0)
    assert found.ratio == pytest.approx(2, rel=0.05)


def test_a_contender_of_two_matches_is_timed_once_a_round(paired):
    calls = []
    ours, one, other = (paired.Contender(x, lambda n, x=x: calls.append((x, n)), chunk=3) for x in ("ours", "1", "2"))
    rounds = list(
        paired.compare([paired.Match(ours, one, "step"), paired.Match(ours, other, "step")], rounds=2, seconds=0)
    )
    assert [[each.n for each in found] for found in rounds] == [[1, 1], [2, 2]]
    timed = [name for name, units in calls if units == 3]
    assert timed == ["ours", "1", "2", "2", "1", "ours"]


def test_no_round_is_begun_that_would_end_after_the_deadline(paired, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(paired.time, "monotonic", lambda: clock[0])
    ours, theirs = (contender(paired, clock, name, 1.0, monkeypatch) for name in ("ours", "theirs"))
    match = paired.Match(*(paired.Contender(each.name, each.run, chunk=4) for each in (ours, theirs)), "step")
    flags = {"rounds": 30, "seconds": 1.0}
    assert last(paired, match, **flags, deadline=35.0)[0].n == 3  # ten seconds a round, with the warm-ups
    clock[0] = 0.0
    assert last(paired, match, **flags, deadline=1.0)[0].n == 1


def test_a_run_that_is_cut_off_keeps_its_rounds(paired, tmp_path):
    from recording import Record

    def third_time_is_the_last(n, calls=[]):  # noqa: B006  it counts its calls
        calls.append(n)
        if len(calls) == 6:  # each chunk comes after a warm-up
            raise KeyboardInterrupt

    chosen = Namespace(
        out=tmp_path / "deep" / "result.json",
        smoke=False,
        threads=1,
        rounds=9,
        seconds=0.0,
        busy=math.inf,
        deadline=math.inf,
    )
    ours, theirs = paired.Contender("ours", third_time_is_the_last, chunk=1), paired.Contender("theirs", int, chunk=1)
    record = Record("some", chosen)
    with pytest.raises(KeyboardInterrupt):
        record.compare([paired.Match(ours, theirs, "step", about={"task": "this"})])
    found = json.loads(chosen.out.read_text())
    assert not found["finished"]
    assert found["rounds_asked"] == 9
    assert (found["comparisons"][0]["n"], found["comparisons"][0]["task"]) == (2, "this")
    assert [path.name for path in chosen.out.parent.iterdir()] == ["result.json"]


def test_a_peer_is_asked_and_answers_past_what_its_libraries_print(scripts, tmp_path):
    from peer import peer

    (tmp_path / "fake.py").write_text(FAKE_PEER)
    given = {"tokens": {"x": np.arange(3)}}
    with peer(sys.executable, str(tmp_path / "fake.py"), {}, given) as other:
        assert other.ready == ["1.5", "torch-of-theirs"]
        assert other.ask("heads", 7) == ["heads", "7"]
        assert other.arrays("theirs")["x"].tolist() == [7, 8, 9]
        with pytest.raises(SystemExit, match="process ended"):
            other.ask("end")


def test_a_part_of_a_peers_patches_is_scaled_to_all_of_them(scripts, paired):
    import patching_sweep

    match = patching_sweep.Task.match(
        SimpleNamespace(name="heads", whole=2160, contender=lambda: paired.Contender("ours", int, chunk=2160)),
        SimpleNamespace(ask=lambda name, n: None, ready=["4.3.0"]),
        60,
    )
    assert (match.ours.chunk, match.theirs.chunk) == (2160, 60)
    found = SimpleNamespace(about=match.about, ours_seconds=[0.02, 0.02, 9.0], theirs_seconds=[0.3])
    assert patching_sweep.scaled(found) == pytest.approx({"ours": 43.2, "theirs_scaled": 648.0})
    assert match.about["part"]["theirs_patched"] == 60


def test_every_tool_is_given_each_kind_that_its_format_holds_and_a_difference_is_seen(scripts):
    import formats_with_tools as tools

    todo = tools.cases()
    assert {tool: len(each) > 6 for tool, each in todo.items()} == dict.fromkeys(todo, True)
    one, _ = todo["saelens"]["gated"]
    latents = one.encode(tools.inputs(one))
    assert tools.difference(latents, latents.numpy()) == 0
    assert tools.difference(latents, latents.numpy() * (1 + 1e-5)) > tools.LIMIT


def test_scores_that_differ_are_not_timed(scripts):
    from attribution import agreement

    mine, theirs = {"L0.z": np.array([1.0, -2.0]), "L0.neurons": np.ones(2)}, {"L0.z": np.array([1.0, -2.1])}
    assert agreement(mine, theirs, judged=False) == pytest.approx({"z": 0.1 / 2.1})
    with pytest.raises(SystemExit, match="Nothing was timed"):
        agreement(mine, theirs, judged=True)


def test_an_interval_of_scattered_values_is_wide_and_holds_the_median(paired):
    values = np.random.default_rng(0).lognormal(size=25)
    low, high = paired.interval(values)
    assert low < np.median(values) < high
    assert paired.interval(np.ones(25)) == (1.0, 1.0)


def test_programs_with_other_first_losses_are_not_compared(scripts):
    from grokking_epoch import check_same_work

    check_same_work({"micrographia": 4.7, "peer": 4.7001})
    with pytest.raises(SystemExit, match="same work"):
        check_same_work({"micrographia": 4.7, "peer": 4.8})


def test_a_round_in_which_others_were_busy_is_taken_again(paired, monkeypatch):
    clock, busy = [0.0], iter([0.0, 1.0, 0.9, *[0.01] * 20])
    monkeypatch.setattr(paired.Others, "cores", lambda self: next(busy))
    ours, theirs = (contender(paired, clock, name, x, monkeypatch) for name, x in (("ours", 1.0), ("theirs", 2.0)))
    (found,) = last(paired, paired.Match(ours, theirs, "step"), rounds=6, seconds=2.0, busy=0.05)
    assert found.rounds_dropped == 2
    assert found.cores_of_others == [0.0, *[0.01] * 5]
    assert len(found.ours_seconds) == len(found.theirs_seconds) == 6


def test_a_machine_that_is_never_quiet_is_not_measured(paired, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(paired.Others, "cores", lambda self: 1.0)
    ours, theirs = (contender(paired, clock, name, 1.0, monkeypatch) for name in ("ours", "theirs"))
    with pytest.raises(SystemExit, match="0 were so quiet"):
        last(paired, paired.Match(ours, theirs, "step"), rounds=6, seconds=1.0, busy=0.05)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="what others do is known on Linux only")
def test_the_work_of_our_own_children_is_not_that_of_others(paired):
    import others

    def work():
        subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)

    before, began = others.family_seconds(os.getpid()), others.busy_seconds()
    work()
    own, all_of_it = others.family_seconds(os.getpid()) - before, others.busy_seconds() - began
    assert 0.05 < own <= all_of_it + 0.1
