"""The training pairs of a network: a credible split is found by the ranks of its losses, and none is made up."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Generator
from trained import FRACTION, trained

from micrographia.core.errors import BadConfig, PickleRefused, UnreadableWeights, UserError
from micrographia.core.events import Note, silent
from micrographia.core.intervals import rank_z
from micrographia.core.splits import as_mask, read_mask
from micrographia.core.state_dicts.foreign import Candidate
from micrographia.labs.grokking.identify.guess import check
from micrographia.labs.grokking.identify.split import SplitChoice, find_split
from micrographia.labs.grokking.task import SPLITS
from micrographia.methods.training_rows import Z

RECORDED = SplitChoice("shuffle", FRACTION, 0)


def losses_of(network):
    candidate = Candidate(network.arch, network.weights, {"layout": "ours", "norm": "none"})
    return check(candidate, network.modulus, [network.operation])[0].losses


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


@given(st.integers(0, 10_000))
def test_random_splits_are_standard_normal_for_any_losses(seed):
    generator = Generator().manual_seed(seed)
    losses = torch.randn(400, generator=generator).exp().double()
    z = [rank_z(losses, torch.rand(400, generator=generator) < 0.3) for _ in range(40)]
    assert max(map(abs, z)) < Z + 1
    assert 0.5 < np.std(z) < 1.7


def test_ties_do_not_count():
    losses = torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert rank_z(losses, torch.tensor([True, True, False, False])) == 0.0
    assert rank_z(torch.arange(4.0), torch.tensor([True, True, True, True])) == 0.0


def test_the_rank_sum_is_that_of_scipy():
    from scipy.stats import mannwhitneyu

    generator = Generator().manual_seed(0)
    losses = torch.randint(0, 30, (200,), generator=generator).double()
    chosen = torch.rand(200, generator=generator) < 0.4
    expected = mannwhitneyu(
        losses[chosen], losses[~chosen], method="asymptotic", use_continuity=False, alternative="less"
    )
    p_value = torch.special.ndtr(torch.tensor(rank_z(losses, chosen)))
    assert p_value.item() == pytest.approx(expected.pvalue, rel=1e-3)


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


def written(folder, kind, train):
    """The same split in every form that a script may write."""
    p = round(len(train) ** 0.5)
    rows = train.nonzero()[:, 0]
    pairs = torch.stack([rows // p, rows % p], 1)
    forms = {
        "mask": train,
        "square": train.reshape(p, p),
        "numbers": train.float(),
        "indices": rows,
        "pairs": pairs,
        "triples": torch.cat([pairs, torch.full((len(rows), 1), p)], 1),
    }
    place, form = kind.split()
    value = forms[form]
    file = folder / f"split.{place}"
    if place == "safetensors":
        save_file({"train": value.contiguous(), "other": torch.zeros(3)}, file)
    elif place == "npz":
        np.savez(file, value.numpy())
    elif place == "json":
        file.write_text(json.dumps(value.tolist() if form != "pairs" else {"pairs": value.tolist()}))
    else:
        torch.save({"train_data": [tuple(pair) for pair in value.tolist()]}, file)
    return file


@pytest.mark.parametrize("place", ["safetensors", "npz", "json"])
@pytest.mark.parametrize("form", ["mask", "square", "numbers", "indices", "pairs", "triples"])
def test_a_split_is_read_from_any_file(tmp_path, place, form):
    train = trained().train
    file = written(tmp_path, f"{place} {form}", train)
    assert torch.equal(read_mask(file, 13), train)


def test_a_file_is_believed_only_when_it_is_credible(tmp_path):
    network = trained()
    good = find(SplitChoice(str(written(tmp_path, "json indices", network.train))), losses_of(network))[0]
    assert good is not None
    assert good.name == "file"
    assert find(SplitChoice(str(written(tmp_path, "json indices", ~network.train))), losses_of(network))[0] is None


def test_a_pickled_split_needs_the_flag(tmp_path):
    train = trained().train
    file = written(tmp_path, "pth pairs", train)
    with pytest.raises(PickleRefused):
        read_mask(file, 13)
    assert torch.equal(read_mask(file, 13, allow_pickle=True), train)


@pytest.mark.parametrize(
    "value",
    [
        [0, 1, 169],
        [[0, 13]],
        5,
        [[[0]]],
        [0.5, 1.5],
        ["a", "b"],
        [],
        [[0, 1], [2]],
        [True] * 5,
        [True] * 169,
    ],
)
def test_what_is_no_split_is_refused(value):
    with pytest.raises(UnreadableWeights, match="'train'"):
        as_mask(value, 13, "train")


def test_a_file_that_is_not_there_names_what_else_there_is():
    with pytest.raises(UserError, match="shuffle, randperm, none"):
        find(SplitChoice("shufle"), torch.zeros(169))


def test_a_file_of_other_things_names_them(tmp_path):
    np.savez(tmp_path / "s.npz", first=np.arange(3), second=np.arange(3))
    with pytest.raises(UnreadableWeights, match="first, second"):
        read_mask(tmp_path / "s.npz", 13)
    (tmp_path / "s.json").write_text("{broken")
    with pytest.raises(UnreadableWeights, match="no JSON"):
        read_mask(tmp_path / "s.json", 13)
