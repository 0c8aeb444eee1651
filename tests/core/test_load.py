"""A model by its name: a Run of ours, a folder, or a module in hand."""

from importlib import import_module

import pytest
import torch

from micrographia.core.errors import BadConfig, MissingExtra, UserError
from micrographia.core.load import load_any
from miniature import CLEAN, save_gpt2, save_run


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return save_gpt2(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "ioi" / "trained")


def test_a_run_is_found_by_its_folder_and_by_its_name(trained, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(trained.parents[1]))
    models = [load_any(trained), load_any("trained")]
    first, second = (model.run(model.to_tokens(CLEAN)).logits for model in models)
    assert torch.equal(first, second)


def test_a_model_that_comes_with_the_package_is_loaded_by_its_name():
    model = load_any("othello", dtype="float64")
    assert model.weights.W_E.dtype == torch.float64
    assert model.to_str_tokens([0, 1, 32]) == ["<pad>", "a1", "f6"]
    with pytest.raises(BadConfig, match="lies on this machine"):
        load_any("othello", revision="main")


def test_a_folder_of_hugging_face_is_loaded_with_its_dtype(gpt2):
    assert load_any(gpt2, dtype=torch.float64).weights.W_E.dtype == torch.float64


def test_a_module_in_hand_is_taken_as_it_is(gpt2):
    from transformers import GPT2LMHeadModel

    module = GPT2LMHeadModel.from_pretrained(gpt2)
    model = load_any(module)
    tokens = torch.tensor([[2, 3, 7]])
    assert torch.equal(model.run(tokens).logits, module(tokens).logits)


def test_a_setting_that_nothing_reads_is_refused(trained, gpt2):
    for folder in (trained, gpt2):
        with pytest.raises(BadConfig, match=r"revision 'main' of .* on this machine"):
            load_any(folder, revision="main")
    with pytest.raises(UserError, match="device_map"):
        load_any(trained, device_map="auto")


def test_without_transformers_the_extra_is_named(gpt2, monkeypatch):
    pretrained = import_module("micrographia.core.pretrained.load")

    def missing(*words, **choices):
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr(pretrained, "load", missing)
    with pytest.raises(MissingExtra, match=r"micrographia\[hf\]"):
        load_any(gpt2)
