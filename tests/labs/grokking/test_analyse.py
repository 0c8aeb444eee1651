"""`analyse` makes a Run of any network: ours or somebody else's, memorised or not, with a split or without."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from trained import FRACTION, as_lens, as_paper, trained

from micrographia.core.claims import Measured, judge_all, load_claims
from micrographia.core.config import flat, with_fields
from micrographia.core.errors import BadConfig, Corrupt, PickleRefused, RunExists, UnreadableWeights, UserError
from micrographia.core.events import Note
from micrographia.core.store import RunFolder, load_run, read_json, read_metrics, read_tensors, verify
from micrographia.labs.grokking.config import Config, paper, tiny
from micrographia.labs.grokking.identify.run import analyse, judgeable
from micrographia.labs.grokking.measure import CLAIMS
from micrographia.labs.grokking.run import run

SMALL = {"modulus": 11, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 24}
SMALL |= {"epochs": 60, "snapshots": 8, "checkpoint_every": 20}
MEASURES = ("train_loss", "test_loss", "test_accuracy", "restricted_loss", "excluded_loss", "trig_loss")
SPLIT_MEASURES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def smallest(**changes) -> Config:
    return with_fields(tiny(), **{**SMALL, **changes})


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A finished Run of ours."""
    return run(smallest(), out=tmp_path_factory.mktemp("runs") / "own")


@pytest.fixture
def file(tmp_path):
    """A memorised network as somebody else would hand it over."""
    place = tmp_path / "theirs.npz"
    np.savez(place, **{name: x.numpy() for name, x in as_paper(trained().weights).items()})
    return place


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """That network's analysis, with what it takes to find the split, and what was reported on the way."""
    folder = tmp_path_factory.mktemp("analysed")
    save_file(as_lens(trained().weights), folder / "theirs.safetensors")
    notes: list[Note] = []
    out = folder / "out"
    return analyse(folder / "theirs.safetensors", out=out, seed=0, train_fraction=FRACTION, watch=noted(notes)), notes


def noted(notes):
    return lambda event: notes.append(event) if isinstance(event, Note) else None


def test_an_analysis_is_a_finished_run_that_stands_on_its_own(analysed):
    found, _ = analysed
    assert (found.lab, found.preset, found.status) == ("grokking", "analysis", "finished")
    assert verify(found.path) == []
    kept = read_tensors(found.path / "snapshots" / "00000000.safetensors")
    assert all(torch.equal(kept[name], x) for name, x in trained().weights.items())
    assert found.figures


def test_its_results_are_those_of_a_run(analysed, own):
    found, _ = analysed
    assert own.results.keys() - {"measured"} <= found.results.keys()
    assert own.results["measures"].keys() <= found.results["measures"].keys()
    assert set(MEASURES) <= found.results["measures"].keys()
    assert found.results["phases"].keys() == own.results["phases"].keys() - {"intervals"}
    assert not any(found.results["phases"].values())
    assert {judged.verdict for judged in found.claims} == {"not run"}
    assert len(found.claims) == len(own.claims)


def test_a_network_of_the_papers_kind_is_judged_by_what_its_weights_show():
    config = {**flat(paper()), "sha256": "", "train_fraction": None}
    known = {"logit-variance": 0.97, "phases-in-order": []}
    measures = {claim.id: Measured(known.get(claim.id)) for claim in load_claims(CLAIMS)}

    def verdicts(config, accuracy=1.0):
        judged = judge_all(CLAIMS, judgeable(measures, config, accuracy), preset="analysis", config=config)
        return {each.claim.id: each.verdict for each in judged if each.verdict != "not run"}

    assert verdicts(config) == {"logit-variance": "holds"}
    assert verdicts({**config, "modulus": 59}) == {}
    assert verdicts({**config, "d_mlp": 128}) == {}
    assert verdicts(config, accuracy=0.9) == {}, "claims are about networks that have learned the task"


def test_what_was_guessed_is_in_its_config(analysed):
    config = analysed[0].config
    expected = {"modulus": 13, "operation": "add", "act": "relu", "norm": "none", "layout": "TransformerLens"}
    expected |= {"split": "shuffle", "seed": 0, "train_fraction": FRACTION, "credible": True, "d_model": 32}
    assert {name: config[name] for name in expected} == expected
    assert config["source"] == "theirs.safetensors"
    assert len(config["sha256"]) == 64


def test_its_results_hold_no_place_or_date(analysed):
    found, _ = analysed
    text = (found.path / "results.json").read_text()
    assert str(found.path.parent) not in text
    assert "NaN" not in text
    assert found.provenance["source"] == str(found.path.parent / "theirs.safetensors")


def test_every_guess_is_kept_and_reported(analysed):
    found, notes = analysed
    guesses = found.results["guesses"]
    assert [each["act"] for each in guesses if each["chosen"]] == ["relu"]
    assert {each["operation"] for each in guesses} == {"add", "subtract", "multiply", "polynomial"}
    assert {each["split"] for each in found.results["splits"]} == {"shuffle", "randperm"}
    text = " ".join(note.text for note in notes)
    assert f"{next(each['accuracy'] for each in guesses if each['chosen']):.2%}" in text
    assert "Split shuffle" in text
    assert {figure.name for figure in found.figures} >= {"guesses", "splits", "frequencies", "measures"}


def test_its_measures_are_of_the_training_pairs(analysed):
    measures = analysed[0].results["measures"]
    assert measures["train_accuracy"] == 1.0
    assert measures["test_accuracy"] < 0.5
    assert measures["train_loss"] < measures["loss"] < measures["test_loss"]


def test_without_a_split_its_measures_are_empty(file, tmp_path):
    found = analyse(file, out=tmp_path / "out")
    measures = read_json(found.path / "results.json")["measures"]
    assert [measures[name] for name in SPLIT_MEASURES] == [None] * 4
    assert measures["excluded_loss"] is None
    assert measures["loss"] > 0
    assert [found.config[name] for name in ("split", "train_fraction", "seed")] == [None] * 3
    assert np.isnan(read_metrics(found.path)["test_loss"]).all()


def test_a_split_that_is_not_credible_is_as_none(file, tmp_path):
    notes: list[Note] = []
    found = analyse(file, out=tmp_path / "out", split="shuffle", seed=7, train_fraction=FRACTION, watch=noted(notes))
    assert found.config["split"] is None
    assert found.results["measures"]["test_loss"] is None
    assert [each["credible"] for each in found.results["splits"]] == [False]
    assert any(note.level == "warning" for note in notes)


def test_a_split_from_a_file_is_used(file, tmp_path):
    place = tmp_path / "split.json"
    place.write_text(json.dumps(trained().train.nonzero()[:, 0].tolist()))
    found = analyse(file, out=tmp_path / "out", split=str(place))
    assert (found.config["split"], found.config["seed"]) == ("file", None)
    assert found.config["train_fraction"] == pytest.approx(FRACTION, abs=0.01)
    assert found.results["measures"]["train_accuracy"] == 1.0


@pytest.mark.parametrize("operation", ["multiply", "polynomial"])
def test_other_operations_are_analysed_in_their_coordinates(tmp_path, operation):
    save_file(as_paper(trained(operation=operation).weights), tmp_path / "w.safetensors")
    found = analyse(tmp_path / "w.safetensors", out=tmp_path / "out", seed=0, train_fraction=FRACTION)
    assert (found.config["operation"], found.config["split"]) == (operation, "shuffle")
    assert found.results["measures"]["n"] == {"multiply": 12, "polynomial": 13}[operation]


def test_a_network_that_does_none_of_the_tasks_is_analysed_with_a_warning(tmp_path):
    save_file(as_paper(trained(steps=0).weights), tmp_path / "w.safetensors")
    notes: list[Note] = []
    found = analyse(tmp_path / "w.safetensors", out=tmp_path / "out", operation="add", watch=noted(notes))
    assert found.config["operation"] == "add"
    assert not found.config["credible"]
    assert not any(guess["credible"] for guess in found.results["guesses"])
    assert any(note.level == "warning" and note.text == found.summary[0] for note in notes)


def test_the_same_file_gives_the_same_bytes(file, tmp_path):
    first, second = (analyse(file, out=tmp_path / name, seed=0, train_fraction=FRACTION) for name in ("a", "b"))
    for name in ("results.json", "claims.json", "figures.json", "figures.safetensors", "metrics.parquet"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


def test_a_run_that_is_there_is_resumed_or_refused(file, tmp_path):
    out = tmp_path / "out"
    first = analyse(file, out=out)
    with pytest.raises(RunExists):
        analyse(file, out=out)
    again = analyse(file, out=out, resume=True)
    assert again.results == first.results
    with pytest.raises(BadConfig, match="operation"):
        analyse(file, out=out, resume=True, operation="subtract")


def test_an_interrupted_analysis_goes_on(file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            analyse(file, out=out)
    assert load_run(out).status == "interrupted"
    assert analyse(file, out=out, resume=True).status == "finished"
    assert verify(out) == []


def test_our_own_run_is_read_as_it_was_made(own, tmp_path):
    found = analyse(own.path, out=tmp_path / "out")
    expected = {"split": own.config["split"], "seed": 0, "epoch": 60, "layout": "a Run of ours", "act": "relu"}
    assert {name: found.config[name] for name in expected} == expected
    for name in SPLIT_MEASURES:
        assert found.results["measures"][name] == own.results["measures"][name]
    assert found.results["key_frequencies"] == own.results["key_frequencies"]


def test_a_snapshot_and_a_checkpoint_are_read_at_their_epoch(own, tmp_path):
    first = sorted((own.path / "snapshots").glob("*.safetensors"))[0]
    assert analyse(first, out=tmp_path / "a").config["epoch"] == 0
    last = sorted((own.path / "checkpoints").iterdir())[-1]
    by_folder = analyse(last, out=tmp_path / "b")
    by_file = analyse(last / "state.safetensors", out=tmp_path / "c")
    assert by_folder.config["epoch"] == by_file.config["epoch"] == 60
    assert by_folder.results["measures"]["loss"] == own.results["measures"]["loss"]


def test_a_run_is_found_by_its_name(own, tmp_path, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path / "runs"))
    shutil.copytree(own.path, tmp_path / "runs" / "grokking" / "20990101-abc")
    assert analyse(Path("20990101"), out=tmp_path / "out").config["epoch"] == 60


def test_an_unfinished_run_is_read_at_its_newest_snapshot(own, tmp_path):
    config = flat(smallest())
    about = {"threads": 1}
    with RunFolder.open(
        tmp_path / "begun", lab="grokking", preset="custom", config=config, provenance=about, resume=False
    ) as begun:
        for step in (0, 10):
            begun.save_snapshot(step, read_tensors(own.path / "snapshots" / "00000060.safetensors"))
    found = analyse(tmp_path / "begun", out=tmp_path / "out")
    assert (found.config["epoch"], found.config["split"]) == (10, "shuffle")


def test_a_snapshot_without_its_run_is_read_as_anybodys(own, tmp_path):
    shutil.copy(own.path / "snapshots" / "00000060.safetensors", tmp_path / "w.safetensors")
    found = analyse(tmp_path / "w.safetensors", out=tmp_path / "out", act="relu", operation="add")
    assert (found.config["layout"], found.config["epoch"]) == ("TransformerLens", None)
    assert found.results["measures"]["loss"] == own.results["measures"]["loss"]


def test_an_analysis_can_be_analysed(analysed, tmp_path):
    found, _ = analysed
    again = analyse(found.path, out=tmp_path / "out")
    assert again.config["modulus"] == 13
    assert again.results["measures"]["loss"] == found.results["measures"]["loss"]


def test_part_of_a_split_is_completed_from_our_own_run(own, tmp_path):
    found = analyse(own.path, out=tmp_path / "out", seed=1)
    assert found.results["splits"][0]["split"] == "shuffle"
    assert len(found.results["splits"]) == 1


def test_an_altered_snapshot_is_not_analysed(own, tmp_path):
    shutil.copytree(own.path, tmp_path / "altered")
    place = tmp_path / "altered" / "snapshots" / "00000060.safetensors"
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(bytes(content))
    with pytest.raises(Corrupt, match="altered"):
        analyse(tmp_path / "altered", out=tmp_path / "out")


def test_a_contradiction_with_our_own_run_is_refused(own, tmp_path):
    with pytest.raises(BadConfig, match="swiglu"):
        analyse(own.path, out=tmp_path / "out", act="swiglu")
    with pytest.raises(UnreadableWeights, match="modulus 12"):
        analyse(own.path, out=tmp_path / "out", modulus=12)
    assert not (tmp_path / "out").exists()


def test_a_pickle_needs_the_flag(tmp_path):
    content = {"model": as_paper(trained().weights), "train_indices": trained().train.nonzero()[:, 0]}
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(PickleRefused, match="--allow-pickle"):
        analyse(tmp_path / "w.pth", out=tmp_path / "out")
    found = analyse(tmp_path / "w.pth", out=tmp_path / "out", allow_pickle=True)
    assert found.config["split"] == "beside the weights"


def test_what_cannot_be_read_leaves_nothing_behind(tmp_path):
    save_file({"layer.weight": torch.zeros(3, 4)}, tmp_path / "w.safetensors")
    with pytest.raises(UnreadableWeights, match=r"layer\.weight \[3, 4\]"):
        analyse(tmp_path / "w.safetensors", out=tmp_path / "out")
    with pytest.raises(UserError, match="nothing there"):
        analyse(tmp_path / "absent", out=tmp_path / "out")
    with pytest.raises(UserError, match="without snapshots"):
        analyse(tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
