"""The training pairs of a network: a credible split is found by the ranks of its losses, and none is made up."""

import json

import pytest
import torch
from trained import FRACTION, trained

from micrographia.core.errors import BadConfig, UserError
from micrographia.core.events import Note, silent
from micrographia.core.state_dicts.foreign import Candidate
from micrographia.labs.grokking.identify.guess import check
from micrographia.labs.grokking.identify.source import RowFormat
from micrographia.labs.grokking.identify.split import SplitChoice, find_split
from micrographia.labs.grokking.task import SPLITS
from micrographia.methods.training_rows import Z

RECORDED = SplitChoice("shuffle", FRACTION, 0)


def losses_of(network):
    candidate = Candidate(network.arch, network.weights, {"layout": "ours", "norm": "none"})
    return check(candidate, RowFormat(network.modulus, (network.modulus,)), [network.operation])[0].losses


def find(given, losses, *, extra=None, recorded=None, watch=silent):
    return find_split(given, losses, extra=extra or {}, recorded=recorded, allow_pickle=False, watch=watch)


@pytest.mark.parametrize(("name", "seed"), [("shuffle", 0), ("randperm", 3)])
def test_of_the_two_known_splits_the_credible_one_is_named(name, seed):
    network = trained(split=name, seed=seed)
    found, tried = find(SplitChoice(None, FRACTION, seed), losses_of(network))
    assert found is not None
    assert found.name == name
    assert torch.equal(found.train, network.train)
    assert {each.name: each.credible for each in tried} == {each: each == name for each in SPLITS}


def test_a_split_of_another_seed_is_not_credible():
    notes: list[Note] = []
    found, tried = find(SplitChoice("shuffle", FRACTION, 1), losses_of(trained()), watch=notes.append)
    assert found is None
    assert not tried[0].credible
    assert any(note.level == "warning" for note in notes)


@pytest.mark.parametrize("fraction", [0.4, 0.6])
def test_a_wrong_fraction_of_the_right_order_is_not_credible(fraction):
    found, tried = find(SplitChoice("shuffle", fraction, 0), losses_of(trained(31, steps=150)))
    assert found is None
    assert ("too large" if fraction > FRACTION else "too small") in tried[0].evidence.fault
    assert tried[0].evidence.z < -Z  # its ranks alone would have passed


def test_without_a_description_nothing_is_guessed():
    notes: list[Note] = []
    assert find(SplitChoice(), losses_of(trained()), watch=notes.append) == (None, [])
    assert notes[-1].level == "info"


def test_none_asks_for_none_even_where_it_is_recorded():
    network = trained()
    assert find(SplitChoice("none"), losses_of(network), recorded=RECORDED) == (None, [])


def test_a_recorded_split_needs_no_evidence():
    untrained = trained(steps=0)
    found, _ = find(SplitChoice(), losses_of(untrained), recorded=RECORDED)
    assert found is not None
    assert found.known
    assert torch.equal(found.train, untrained.train)


@pytest.mark.parametrize(
    ("given", "lacks"),
    [
        (SplitChoice("shuffle"), "--train-fraction and --seed"),
        (SplitChoice("shuffle", 0.3), "--seed"),
        (SplitChoice("randperm", None, 0), "--train-fraction"),
        (SplitChoice("randperm", 1.5, 0), "strictly between"),
    ],
)
def test_half_a_description_is_refused(given, lacks):
    with pytest.raises(BadConfig, match=lacks):
        find(given, losses_of(trained()))


def test_a_split_beside_the_weights_is_tried():
    network = trained()
    indices = network.train.nonzero()[:, 0]
    found, _ = find(SplitChoice(), losses_of(network), extra={"train_indices": indices})
    assert found is not None
    assert torch.equal(found.train, network.train)


def test_a_file_is_believed_only_when_it_is_credible(tmp_path):
    network, file = trained(), tmp_path / "split.json"
    file.write_text(json.dumps(network.train.nonzero()[:, 0].tolist()))
    good = find(SplitChoice(str(file)), losses_of(network))[0]
    assert good is not None
    assert good.name == "file"
    file.write_text(json.dumps((~network.train).nonzero()[:, 0].tolist()))
    assert find(SplitChoice(str(file)), losses_of(network))[0] is None


def test_a_file_that_is_not_there_names_what_else_there_is():
    with pytest.raises(UserError, match="shuffle, randperm, none"):
        find(SplitChoice("shufle"), torch.zeros(169))
