"""Splits in files: every form that a script may write is read, and what is no split is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from micrographia.core.errors import PickleRefused, UnreadableWeights, UserError
from micrographia.core.splits import as_mask, read_mask, shuffle_split

TRAIN = shuffle_split(169, 0.5, 0)


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
    file = written(tmp_path, f"{place} {form}", TRAIN)
    assert torch.equal(read_mask(file, 13), TRAIN)


def test_a_pickled_split_needs_the_flag(tmp_path):
    file = written(tmp_path, "pth pairs", TRAIN)
    with pytest.raises(PickleRefused):
        read_mask(file, 13)
    assert torch.equal(read_mask(file, 13, allow_pickle=True), TRAIN)


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
    with pytest.raises(UserError, match="shuffle, none, a file"):
        read_mask(Path("shufle"), 13, known=("shuffle", "none"))


def test_a_file_of_other_things_names_them(tmp_path):
    np.savez(tmp_path / "s.npz", first=np.arange(3), second=np.arange(3))
    with pytest.raises(UnreadableWeights, match="first, second"):
        read_mask(tmp_path / "s.npz", 13)
    (tmp_path / "s.json").write_text("{broken")
    with pytest.raises(UnreadableWeights, match="no JSON"):
        read_mask(tmp_path / "s.json", 13)
