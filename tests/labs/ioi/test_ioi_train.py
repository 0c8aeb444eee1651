"""A training is a function of its config: stopped and resumed, or on either plan, it writes what it writes alone."""

import os
import signal
from pathlib import Path

import pytest
import torch

from micrographia.core.config import flat, with_fields
from micrographia.core.errors import Interrupted, NonFiniteLoss
from micrographia.core.events import Note, Progress, silent
from micrographia.core.lab import for_each_network, raise_failed
from micrographia.core.runtime import settings
from micrographia.core.small.trained import load_trained
from micrographia.core.small.weights import init_weights
from micrographia.core.store import RunFolder, load_run, read_metrics, read_tensors
from micrographia.core.store.checkpoints import snapshots
from micrographia.labs.ioi.config import Config, tiny
from micrographia.labs.ioi.grammar import WORDS
from micrographia.labs.ioi.task import BEHAVIOURS
from micrographia.labs.ioi.train import architecture, snapshot_steps, train, train_network


def smallest(**changes) -> Config:
    small = {"rows": 4, "steps": 24, "eval_every": 8, "checkpoint_every": 8, "prompts": 4, "seeds": 1}
    return with_fields(tiny(), **{**small, **changes})


def folder_of(path: Path, config: Config, *, resume: bool = False) -> RunFolder:
    stored = flat(config)
    return RunFolder.open(path, lab="ioi", preset="custom", config=stored, provenance={"threads": 1}, resume=resume)


def trained(path: Path, config: Config, *, resume: bool = False, watch=silent):
    with settings(1), folder_of(path, config, resume=resume) as folder:
        return train_network(config, folder, watch)


def weights(path: Path) -> dict[int, dict[str, torch.Tensor]]:
    return {step: read_tensors(file) for step, file in snapshots(path).items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(
        a[step].keys() == b[step].keys() and all(torch.equal(a[step][k], b[step][k]) for k in a[step]) for step in a
    )


def as_text(rows) -> str:  # NaN is not equal to itself
    return repr(rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    return path, trained(path, smallest())


def test_rows_snapshots_and_measures_fall_on_their_steps(whole):
    path, rows = whole
    assert rows["step"] == list(range(25))
    measured = [step for step, value in zip(rows["step"], rows["ioi_accuracy"]) if value == value]
    assert measured == [0, 8, 16, 24]
    assert all(loss == loss for loss in rows["loss_nats"][:-1])
    assert list(snapshots(path)) == snapshot_steps(smallest())


def test_the_loss_falls(whole):
    losses = whole[1]["loss_nats"]
    assert losses[23] < losses[0]


def test_the_first_snapshot_is_the_untrained_network(whole):
    expected = init_weights(architecture(smallest()), torch.Generator().manual_seed(0))
    assert all(torch.equal(read_tensors(snapshots(whole[0])[0])[name], expected[name]) for name in expected)


def test_the_run_opens_as_a_model_with_its_words(whole):
    model = load_trained(whole[0])
    assert model.tokenizer is not None
    assert model.tokenizer.encode("When Mary and John") == [WORDS.index(w) for w in ["When", "Mary", "and", "John"]]
    kept = weights(whole[0])
    assert torch.equal(kept[max(kept)]["embed.W_E"], model.weights.W_E)
    assert not torch.equal(kept[0]["embed.W_E"], model.weights.W_E)


@pytest.mark.parametrize("at", [8, 13])
def test_a_request_to_stop_saves_and_resumes_to_the_same_bytes(whole, tmp_path, at):
    def stop(event):
        if isinstance(event, Progress) and event.done == at:
            os.kill(os.getpid(), signal.SIGINT)

    path, notes = tmp_path / "stopped", []
    with pytest.raises(Interrupted, match=f"step {at} of 24"):
        trained(path, smallest(), watch=stop)
    rows = trained(path, smallest(), resume=True, watch=notes.append)
    assert any(isinstance(note, Note) and f"step {at}" in note.text for note in notes)
    assert as_text(rows) == as_text(whole[1])
    assert same(weights(path), weights(whole[0]))


def test_a_run_stopped_dead_between_checkpoints_resumes_to_the_same_bytes(whole, tmp_path):
    def die(event):
        if isinstance(event, Progress) and event.done == 21:
            raise RuntimeError("power cut")

    path = tmp_path / "dead"
    with pytest.raises(RuntimeError, match="power cut"):
        trained(path, smallest(), watch=die)
    assert as_text(trained(path, smallest(), resume=True)) == as_text(whole[1])
    assert same(weights(path), weights(whole[0]))


def test_the_comparison_sees_another_seed(whole, tmp_path):
    rows = trained(tmp_path / "other", smallest(seed=1))
    assert as_text(rows) != as_text(whole[1])
    assert not same(weights(tmp_path / "other"), weights(whole[0]))


def test_the_plain_plan_takes_the_same_steps_until_rounding_spreads(whole, tmp_path):
    rows = trained(tmp_path / "plain", smallest(plan="plain"))
    assert rows["loss_nats"][:-1] == pytest.approx(whole[1]["loss_nats"][:-1], rel=1e-3)


def test_a_loss_that_explodes_names_the_step_and_the_last_good_checkpoint(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"[Ss]tep \d+.*checkpoint.*Lower lr"):
        trained(tmp_path / "hot", smallest(lr=1e38, warmup=0, norm="none"))


def test_a_seed_is_a_finished_run_of_its_own(tmp_path):
    out = tmp_path / "seed"
    config = smallest(seed=3)
    assert train(config, str(out)) == str(out)
    done = load_run(out)
    assert (done.status, done.lab, done.config["seed"]) == ("finished", "ioi", 3)
    assert {f"{behaviour}_accuracy" for behaviour in BEHAVIOURS} <= set(done.results)
    assert len(read_metrics(out)["step"]) == 25
    assert train(config, str(out)) == str(out)  # not trained again


def test_networks_train_in_processes_and_are_what_they_are_alone(whole, tmp_path):
    configs = {f"seed-{seed}": smallest(seed=seed) for seed in (0, 1)}
    raise_failed(for_each_network(train, configs, tmp_path, workers=1))
    assert same(weights(tmp_path / "seed-0"), weights(whole[0]))
    assert not same(weights(tmp_path / "seed-1"), weights(whole[0]))
