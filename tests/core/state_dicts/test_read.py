"""Files of others are read without running what is in them; a pickle only where the user allows it."""

import collections
import dataclasses
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from micrographia.core.errors import Corrupt, PickleRefused, UnreadableWeights, UserError
from micrographia.core.state_dicts.pickles import Inert, load_pickle
from micrographia.core.state_dicts.read import read_state_dict

STATE = {"embed.W_E": torch.arange(6.0).reshape(2, 3), "blocks.0.attn.mask": torch.ones(3, 3).tril()}


@dataclasses.dataclass
class Settings:
    """Stands for the config class of somebody's project."""

    lr: float = 1e-3
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))


class Losses(list):
    """Stands for a container class of somebody's project."""


class Armed:
    """Unpickled in the usual way, it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def assert_state(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_safetensors_and_npz_hold_the_same(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **{name: x.numpy() for name, x in STATE.items()})
    assert_state(read_state_dict(tmp_path / "w.safetensors").tensors)
    assert_state(read_state_dict(tmp_path / "w.npz").tensors)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "W.PTH"])
def test_a_pickle_is_refused_and_the_flag_is_named(tmp_path, name):
    torch.save(STATE, tmp_path / name)
    with pytest.raises(PickleRefused, match="--allow-pickle"):
        read_state_dict(tmp_path / name)
    assert_state(read_state_dict(tmp_path / name, allow_pickle=True).tensors)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_would_run_something_is_read_without_running_it(tmp_path, new_format):
    file, trap = tmp_path / "w.pth", tmp_path / "made by a pickle"
    torch.save({"model": STATE, "trap": Armed(trap)}, file, _use_new_zipfile_serialization=new_format)
    found = read_state_dict(file, allow_pickle=True)
    assert_state(found.tensors)
    assert isinstance(found.aside["trap"], Inert)
    assert not trap.exists()
    torch.load(file, weights_only=False)
    assert trap.exists()  # so the trap works


def test_classes_that_are_not_installed_do_not_matter(tmp_path):
    content = {
        "state_dicts": [STATE],
        "config": Settings(),
        "numbers": np.arange(3),
        "when": collections.Counter("aab"),
    }
    torch.save(content, tmp_path / "w.pth")
    assert_state(read_state_dict(tmp_path / "w.pth", allow_pickle=True).tensors)


def test_a_list_of_an_unknown_class_becomes_inert(tmp_path):
    torch.save({"model": STATE, "losses": Losses([1.0, 2.0])}, tmp_path / "w.pth")
    assert isinstance(load_pickle(tmp_path / "w.pth", allowed=True)["losses"], Inert)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
def test_weights_in_a_mapping_are_found_and_the_rest_is_handed_on(tmp_path, key):
    torch.save({key: STATE, "epoch": 7, "train_indices": torch.arange(3)}, tmp_path / "w.pth")
    found = read_state_dict(tmp_path / "w.pth", allow_pickle=True)
    assert_state(found.tensors)
    assert found.aside["epoch"] == 7
    assert found.aside["train_indices"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("many", [lambda old, new: [old, new], lambda old, new: {0: old, 100: new}])
@pytest.mark.parametrize("wrap", [lambda many: many, lambda many: {"state_dicts": many, "epochs": [0, 100]}])
def test_of_many_epochs_the_last_is_taken_and_said(tmp_path, many, wrap):
    old = {name: torch.zeros_like(x) for name, x in STATE.items()}
    torch.save(wrap(many(old, STATE)), tmp_path / "w.pth")
    found = read_state_dict(tmp_path / "w.pth", allow_pickle=True)
    assert_state(found.tensors)
    assert "2 sets of weights" in found.notes[0]


def test_nested_modules_are_joined_by_dots(tmp_path):
    torch.save({"embed": {"W_E": STATE["embed.W_E"]}, "epoch": 3}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth", allow_pickle=True).tensors.keys() == {"embed.W_E"}


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_state_dict(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["w.bin", "w.pkl", "w"])
def test_an_unknown_ending_names_those_that_are_known(tmp_path, name):
    (tmp_path / name).write_bytes(b"1234")
    with pytest.raises(UnreadableWeights, match=r"\.safetensors, \.npz, \.pth"):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize(("name", "error"), [("w.safetensors", Corrupt), ("w.npz", UnreadableWeights)])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_refused(tmp_path, name, error, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04 cut short", pickle.dumps([1, 2])])
def test_a_damaged_pickle_is_refused(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UnreadableWeights, match=r"w\.pth"):
        read_state_dict(tmp_path / "w.pth", allow_pickle=True)


def test_a_truncated_archive_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", **{name: x.numpy() for name, x in STATE.items()})
    whole = (tmp_path / "w.npz").read_bytes()
    (tmp_path / "w.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableWeights):
        read_state_dict(tmp_path / "w.npz")


def test_pickled_objects_in_an_npz_are_refused(tmp_path):
    np.savez(tmp_path / "w.npz", W_E=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UnreadableWeights, match="plain arrays"):
        read_state_dict(tmp_path / "w.npz")


def test_a_pickle_without_tensors_is_refused(tmp_path):
    torch.save({"config": {"lr": 1.0}}, tmp_path / "w.pth")
    with pytest.raises(UnreadableWeights, match="without a named tensor"):
        read_state_dict(tmp_path / "w.pth", allow_pickle=True)


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "is empty"), (b"version https://git-lfs.github.com/spec/v1", "git lfs pull")]
)
def test_of_a_pickle_that_is_none_no_permission_is_asked(tmp_path, content, found):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UnreadableWeights, match=found):
        read_state_dict(tmp_path / "w.pt")
