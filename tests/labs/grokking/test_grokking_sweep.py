"""Sweeps: rows, groups and figures hold what happened, and nothing is run twice."""

import math

import pytest
from fake_members import FakeRuns, smallest

from micrographia.core.errors import BadConfig, Interrupted, RunExists
from micrographia.core.events import Note
from micrographia.core.store import load_run, read_metrics, verify
from micrographia.faces.figures.draw import DRAW, draw
from micrographia.labs.grokking.sweep.config import SweepConfig
from micrographia.labs.grokking.sweep.run import group_of, milestones, sweep


def plan(**changes) -> SweepConfig:
    nothing = {"operations": (), "train_fractions": (), "weight_decays": (), "acts": (), "parts": ()}
    return SweepConfig(base=smallest(), **{**nothing, "seeds": (0, 1, 2), **changes})


@pytest.fixture
def fake(monkeypatch):
    return FakeRuns().stand_in(monkeypatch, "sweep")


def test_a_sweep_has_a_row_for_each_network_and_a_group_for_each_setting(fake, tmp_path):
    run = sweep(plan(train_fractions=(0.5, 0.7), operations=("multiply",)), out=tmp_path / "sweep")
    assert (run.status, run.lab, run.preset) == ("finished", "grokking", "sweep")
    assert len(run.results["members"]) == 12
    assert run.results["groups"][0]["group"] == "base"
    assert {group["networks"] for group in run.results["groups"]} == {3}
    assert {row["status"] for row in run.results["members"]} == {"finished"}
    row = run.results["members"][0]
    assert (row["epochs_to_memorise"], row["epochs_to_grok"], row["restricted_loss"]) == (10, 20, 0.2)
    assert len(read_metrics(run.path)["epochs_to_grok"]) == 12
    assert verify(run.path) == []


def test_a_network_that_never_groks_is_counted_not_dropped(fake, tmp_path):
    fake.grok = {1: None, 2: None}
    run = sweep(plan(), out=tmp_path / "sweep")
    (group,) = run.results["groups"]
    assert (group["grokked"]["count"], group["grokked"]["of"]) == (1, 3)
    assert (group["epochs_to_grok"]["median"], group["epochs_to_grok"]["never"]) == (None, 2)
    assert group["epochs_to_grok"]["low"] == 20
    assert group["epochs_to_memorise"]["median"] == 10
    assert any("1 of 3 networks" in sentence for sentence in run.summary)


def test_a_failed_member_stands_in_the_table_and_ends_nothing(fake, tmp_path):
    fake.broken = {"base_seed-1"}
    events = []
    run = sweep(plan(), out=tmp_path / "sweep", watch=events.append)
    row = run.results["members"][1]
    assert (row["status"], row["error"]) == ("failed", "NonFiniteLoss: The loss is NaN at step 7.")
    (group,) = run.results["groups"]
    assert (group["failed"], group["grokked"]["of"]) == (1, 2)
    assert run.results["failures"] == [{"member": "base_seed-1", "error": row["error"]}]
    assert any(isinstance(event, Note) and "base_seed-1 failed" in event.text for event in events)
    assert math.isnan(read_metrics(run.path)["epochs_to_grok"][1])
    for figure in run.figures:
        if figure.kind in DRAW:
            draw(figure)


def test_a_sweep_whose_members_all_failed_is_still_a_run(fake, tmp_path):
    fake.broken = {f"base_seed-{seed}" for seed in range(3)}
    run = sweep(plan(), out=tmp_path / "sweep")
    assert len(run.results["failures"]) == 3
    assert run.results["groups"][0]["grokked"]["of"] == 0


def test_an_interrupted_sweep_goes_on_where_it_was(fake, tmp_path):
    fake.stop_after = 2
    with pytest.raises(Interrupted, match="2 of 3 networks are finished"):
        sweep(plan(), out=tmp_path / "sweep")
    assert load_run(tmp_path / "sweep").status == "interrupted"
    with pytest.raises(RunExists):
        sweep(plan(), out=tmp_path / "sweep")
    fake.stop_after = None
    run = sweep(plan(), out=tmp_path / "sweep", resume=True)
    assert run.status == "finished"
    assert fake.begun == ["base_seed-0", "base_seed-1", "base_seed-2"], "each member was trained once"
    again = sweep(plan(), out=tmp_path / "sweep", resume=True)
    assert again.results == run.results
    assert len(fake.begun) == 3


def test_a_member_that_was_stopped_is_no_failure(fake, tmp_path):
    fake.stopped = {"base_seed-1"}
    with pytest.raises(Interrupted, match="2 of 3 networks are finished"):
        sweep(plan(), out=tmp_path / "sweep")
    fake.stopped = set()
    assert sweep(plan(), out=tmp_path / "sweep", resume=True).results["failures"] == []


def test_another_plan_does_not_go_on_with_this_one(fake, tmp_path):
    sweep(plan(), out=tmp_path / "sweep")
    with pytest.raises(BadConfig, match="seeds"):
        sweep(plan(seeds=(0, 1)), out=tmp_path / "sweep", resume=True)


def test_the_polynomial_is_not_asked_for_frequencies(fake, tmp_path):
    run = sweep(plan(operations=("polynomial",), seeds=(0,)), out=tmp_path / "sweep")
    row = next(row for row in run.results["members"] if row["operation"] == "polynomial")
    assert row["fourier"]["shown"] is None
    assert "no characters" in row["fourier"]["reason"]
    group = next(group for group in run.results["groups"] if group["operation"] == "polynomial")
    assert group["fourier"]["of"] == 0


def test_the_criterion_is_put_to_the_networks_own_logits(fake, tmp_path):
    """The fakes claim to have grokked with key frequencies, but their weights are those of the start."""
    run = sweep(plan(seeds=(0,)), out=tmp_path / "sweep")
    assert run.results["members"][0]["fourier"]["shown"] is False


@pytest.mark.parametrize("combine", ["one-at-a-time", "product"])
def test_every_figure_of_a_sweep_can_be_drawn(fake, tmp_path, combine):
    fake.grok = {1: None}
    chosen = plan(combine=combine, train_fractions=(0.5, 0.7), weight_decays=(1.0, 3.0), seeds=(0, 1))
    run = sweep(chosen, out=tmp_path / "sweep")
    names = {figure.name for figure in run.figures}
    assert {"time_to_grok", "grok_by_train_fraction", "grok_by_weight_decay", "phase_boundaries"} <= names
    assert {"fourier_shares", "end_losses", "key_frequencies", "groups", "members"} <= names
    for figure in run.figures:
        if figure.kind in DRAW:
            assert draw(figure)["data"]
        else:
            assert all(len(row) == len(figure.data["columns"]) for row in figure.data["rows"])


def test_milestones_are_first_epochs_and_none_when_never():
    nan = math.nan
    metrics = {
        "epoch": [0, 1, 2, 3, 4],
        "train_loss": [4.0, 0.02, 0.009, 0.02, 0.001],
        "test_accuracy": [0.0, nan, 0.98, nan, 0.99],
        "test_loss": [4.0, nan, 3.0, nan, 0.02],
    }
    found = milestones(metrics)
    assert found == {"epochs_to_memorise": 2, "epochs_to_grok": 4, "epochs_to_low_test_loss": None}


def test_medians_over_seeds_say_how_much_they_cover():
    rows = [
        {
            "status": "finished",
            "fourier": {"shown": True, "null": 0.0},
            "epochs_to_memorise": 10 + seed,
            "epochs_to_grok": 100 * (seed + 1) if seed < 5 else None,
            "epochs_to_low_test_loss": None,
            "phases": dict.fromkeys(("memorised", "circuit", "cleanup", "settled")),
            "key_frequencies": [1, 2],
            **dict.fromkeys(
                ("train_loss", "test_loss", "test_accuracy", "restricted_loss", "excluded_loss", "trig_loss"), 0.5
            ),
            "logit_variance_explained": None,
        }
        for seed in range(6)
    ]
    group = group_of("base", {"modulus": 7}, rows)
    assert group["epochs_to_grok"] == {
        "median": 350, "low": 100, "high": None, "coverage": 1 - 2 / 2**6, "n": 6, "never": 1,
    }  # fmt: skip
    assert group["phases"]["settled"]["never"] == 6
    assert group["logit_variance_explained"]["n"] == 0
    assert (group["fourier"]["count"], group["fourier"]["of"], group["null_passes"]) == (6, 6, 0.0)


def test_members_train_in_processes_of_their_own(tmp_path):
    """The one test that really trains: two networks of p = 7, one worker."""
    base = smallest(modulus=7, epochs=10, checkpoint_every=5)
    chosen = SweepConfig(
        base=base, seeds=(0, 1), operations=(), train_fractions=(), weight_decays=(), acts=(), parts=()
    )
    run = sweep(chosen, out=tmp_path / "sweep", workers=1)
    assert [row["error"] for row in run.results["members"]] == [None, None]
    assert load_run(tmp_path / "sweep" / "members" / "base_seed-1").config["seed"] == 1
    assert verify(run.path) == []
