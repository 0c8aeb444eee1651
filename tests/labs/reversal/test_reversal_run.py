"""The reversal lab from Config to Run: whole, resumed, refused."""

import math

import pytest
import torch

from micrographia.core.claims import load_claims
from micrographia.core.config import with_fields
from micrographia.core.errors import BadConfig, Interrupted, UnknownModel
from micrographia.core.events import Progress
from micrographia.core.store import read_tensors, snapshots, verify
from micrographia.labs.reversal import train
from micrographia.labs.reversal.arms import ARMS, BILINEAR
from micrographia.labs.reversal.config import PRESETS, Config, preset_of
from micrographia.labs.reversal.measure import CLAIMS
from micrographia.labs.reversal.run import run
from micrographia.labs.reversal.train import make_program, trained

INDEX = {"weights-one-way", "logits-one-way", "gradient-one-way"}
"""Claims about a share of what stands in the forward map."""


def test_every_claim_has_a_figure_and_a_null(done):
    measured = done.results["measured"]
    assert {claim.id for claim in load_claims(CLAIMS) if "real" not in claim.presets} == set(measured)
    without = {name for name, each in measured.items() if each["value"] is None or each["null"] is None}
    assert without <= INDEX, "so few steps leave no fact in the weights, of which there would be a share"
    assert {judged.verdict for judged in done.claims} == {"not run"}


def test_every_arm_is_in_the_table_with_its_cost(done):
    arms = {row["arm"]: row for row in done.results["arms"]}
    assert set(arms) == {arm.name for arm in (*ARMS, *BILINEAR)}
    for row in arms.values():
        assert min(row["rows"], row["flops"], row["seconds"]) > 0
        assert row["forward"]["low"] <= row["forward"]["value"] <= row["forward"]["high"]
    assert arms["masked objective"]["own"] is not None
    assert arms["plain"]["own"] is None


def test_the_run_is_whole_and_says_what_was_measured(done):
    assert not verify(done.path)
    assert {figure.name for figure in done.figures} >= {"arms", "both-ways", "maps", "indices", "edits", "on-the-way"}
    assert "answered in it" in done.summary[0]


def test_a_program_that_was_stopped_ends_with_the_same_weights(config, tmp_path, monkeypatch):
    how = {"lab": "reversal", "preset": "custom"}
    whole = trained(config, "tied", tmp_path / "whole", **how, watch=lambda event: None)

    class Request:
        asked = False

    class Stop:
        def __enter__(self):
            return Request

        def __exit__(self, *_):
            Request.asked = False

    def stop(event):
        Request.asked = isinstance(event, Progress) and event.done >= 2

    monkeypatch.setattr(train, "interruptible", Stop)
    with pytest.raises(Interrupted, match="resume"):
        trained(config, "tied", tmp_path / "parts", **how, watch=stop)
    assert not snapshots(tmp_path / "parts")
    parts = trained(config, "tied", tmp_path / "parts", **how, watch=lambda event: None)
    assert torch.equal(whole.weights, parts.weights)
    timed = {"seconds"}
    for name in whole.curve.keys() - timed:
        same = [a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(whole.curve[name], parts.curve[name])]
        assert all(same)
        assert len(whole.curve[name]) == len(parts.curve[name])


def test_a_batch_is_a_function_of_the_step_and_draws_rows_by_their_weight(config):
    objective = make_program(config, "composed").objective
    one, again, other = (objective.batches(step).tokens for step in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    lengths = [bool((objective.batches(step).targets[0, :, 1] >= 0).any()) for step in range(20)]
    bridges = sum(int((objective.batches(step).targets[0, :, 1] >= 0).sum()) for step in range(50))
    assert any(lengths)
    assert 0.09 < bridges / (50 * config.batch) < 0.2  # a sixth of the facts' weight: 1/7 of the rows


def test_stored_weights_are_those_of_all_networks(done, config):
    kept = snapshots(done.path / "networks" / "tied")
    weights = read_tensors(kept[max(kept)])["weights"]
    assert len(weights) == len(make_program(config, "tied").learners)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_known_by_its_choices(name):
    assert preset_of(with_fields(PRESETS[name](), seed=5, threads=1)) == name


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"relations": 1}, "at least 2"),
        ({"shared": 1.0}, "shared"),
        ({"entities": 10}, "at least 40"),
        ({"shared": 0.0}, "shared"),
        ({"relations": 2, "shared": 0.99}, "enough is held out"),
        ({"norm": "layernorm"}, "norm"),
        ({"identity_weight": 0.0}, "identity_weight"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(choice, says):
    with pytest.raises(BadConfig, match=says):
        with_fields(Config(), **choice)


def test_a_model_that_is_not_there_is_told_and_one_that_is_given_has_its_own_preset(tmp_path):
    with pytest.raises(UnknownModel):
        run(with_fields(Config(), model=str(tmp_path / "none.gguf")), out=tmp_path / "run")
    assert preset_of(with_fields(Config(), model="gpt2", seed=3)) == "real"
    assert preset_of(with_fields(Config(), model="gpt2", tune_steps=3)) == "custom"
    assert preset_of(Config()) == "quick"
