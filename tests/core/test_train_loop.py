"""A training that is written down writes the same rows and weights whether it was stopped or not, each on its step."""

import math
import os
import signal

import pytest
import torch

from micrographia.core.errors import Interrupted, NonFiniteLoss
from micrographia.core.events import Note, Progress, silent
from micrographia.core.small.architecture import Architecture
from micrographia.core.store import RunFolder, read_tensors, snapshots
from micrographia.core.train_loop import Record, train_recorded
from micrographia.core.training import AdamW, Layout, LossAndGradient, State

ARCH = Architecture(d_vocab=3, d_vocab_out=3, n_ctx=2, d_model=2, n_heads=1, d_head=2, d_mlp=2)
SIZE = sum(Layout(ARCH.weight_shapes()).sizes)
STEPS = 12


def bowl(weights, step):
    """Half the distance to a point that moves a little with every step."""
    away = weights - torch.linspace(-1, 1, SIZE) - 0.01 * step
    return LossAndGradient(away.pow(2).sum(1) / 2, away)


def square(state: State) -> dict[str, float]:
    return {"size": state.weights.pow(2).sum().item()}


def record(**changes) -> Record:
    chosen = {"steps": STEPS, "loss": "loss", "measured": ("size", "never"), "measure": square, "measure_every": 5}
    chosen |= {"checkpoint_every": 4, "snapshots": (0, 7, STEPS), "unit": "epoch", "shown": {"how large": "size"}}
    return Record(**(chosen | changes))


def trained(path, objective=bowl, watch=silent, resume=False, **changes):
    with RunFolder.open(path, lab="x", preset="x", config={}, provenance={"threads": 1}, resume=resume) as folder:
        return train_recorded(
            record(**changes),
            folder,
            arch=ARCH,
            fresh=lambda: torch.zeros(1, SIZE),
            objective=objective,
            optimiser=AdamW(lr=0.1, warmup=0),
            device="cpu",
            watch=watch,
        )


def weights(path):
    return {step: {k: w.tolist() for k, w in read_tensors(file).items()} for step, file in snapshots(path).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    return path, trained(path)


def test_losses_measures_and_snapshots_fall_on_their_steps(whole):
    path, rows = whole
    assert list(rows) == ["epoch", "loss", "size", "never"]
    assert rows["epoch"] == list(range(STEPS + 1))
    assert rows["loss"][0] == pytest.approx(bowl(torch.zeros(1, SIZE), 0).loss.item())
    assert [epoch for epoch in rows["epoch"] if not math.isnan(rows["size"][epoch])] == [0, 5, 10, STEPS]
    assert math.isnan(rows["loss"][-1])
    assert all(math.isnan(x) for x in rows["never"])
    assert list(snapshots(path)) == [0, 7, STEPS]


def test_what_is_measured_at_the_end_may_fill_the_last_loss(tmp_path):
    rows = trained(tmp_path / "run", measure=lambda state: {"loss": float(state.step), "size": 0.0})
    assert rows["loss"][-1] == STEPS
    assert rows["loss"][5] != 5.0  # the step that follows writes its own


def test_the_bar_shows_the_newest_figure_that_was_measured(tmp_path, whole):
    events = []
    trained(tmp_path / "run", watch=events.append)
    bars = [event for event in events if isinstance(event, Progress)]
    assert [(bar.done, bar.total, bar.unit) for bar in bars] == [(n, STEPS, "epoch") for n in range(1, STEPS + 1)]
    assert bars[7].values == {"how large": whole[1]["size"][5]}


@pytest.mark.parametrize("at", [4, 7])  # on a checkpoint, and between two
def test_stopped_by_request_and_resumed_it_writes_what_it_writes_alone(tmp_path, whole, at):
    def stop(event):
        if isinstance(event, Progress) and event.done == at:
            os.kill(os.getpid(), signal.SIGINT)

    path, notes = tmp_path / "run", []
    with pytest.raises(Interrupted, match=f"epoch {at} of {STEPS}"):
        trained(path, watch=stop)
    rows = trained(path, watch=notes.append, resume=True)
    assert any(isinstance(note, Note) and f"epoch {at}" in note.text for note in notes)
    assert repr(rows) == repr(whole[1])  # NaN is not equal to itself
    assert weights(path) == weights(whole[0])


def test_stopped_dead_it_goes_on_from_its_newest_checkpoint(tmp_path, whole):
    def die(event):
        if isinstance(event, Progress) and event.done == 7:
            raise RuntimeError("power cut")

    path, notes = tmp_path / "run", []
    with pytest.raises(RuntimeError, match="power cut"):
        trained(path, watch=die)
    assert repr(trained(path, watch=notes.append, resume=True)) == repr(whole[1])
    assert any(isinstance(note, Note) and "epoch 4" in note.text for note in notes)
    assert weights(path) == weights(whole[0])


def test_a_finished_training_is_not_trained_again(whole):
    def never(weights, step):
        raise AssertionError("trained again")

    assert repr(trained(whole[0], objective=never, resume=True)) == repr(whole[1])


@pytest.mark.parametrize(("at", "good"), [(2, "No checkpoint is yet"), (6, "that of epoch 4")])
def test_a_loss_that_explodes_names_the_last_good_checkpoint_and_what_to_do(tmp_path, at, good):
    def explode(weights, step):
        loss, gradient = bowl(weights, step)
        return LossAndGradient(loss / (step < at), gradient)

    with pytest.raises(NonFiniteLoss, match=f"step {at}.*{good} in .*Turn it down"):
        trained(tmp_path / "run", objective=explode, advice="Turn it down.")
