"""`micrographia.load` takes a Run of our own where it takes a model of Hugging Face."""

from pathlib import Path

import pytest
import torch

import micrographia
from micrographia.core.errors import UnknownModel, UserError
from micrographia.core.small.trained import describe_model
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import RunFolder
from micrographia.core.tokens import Vocabulary
from small import A_FEW, small_model, some_tokens

ARCH = A_FEW["modern"]
WORDS = Vocabulary(tuple("abcdefg"), bos=0)


def a_run(path: Path, *, described: bool = True) -> Path:
    with RunFolder.open(path, lab="ioi", preset="tiny", config={}, provenance={"threads": 1}, resume=False) as folder:
        if described:
            describe_model(folder, ARCH, WORDS)
        folder.save_snapshot(3, small_model(ARCH).state)
        folder.finish({}, [], [], {"step": [0.0]})
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return a_run(tmp_path_factory.mktemp("runs") / "trained")


@pytest.mark.parametrize("spelled", [Path, str])
def test_a_runs_folder_gives_the_network_that_it_trained(run, spelled):
    model, tokens = micrographia.load(spelled(run)), some_tokens(ARCH)
    assert isinstance(model, Transformer)
    assert torch.equal(model.run(tokens).logits, small_model(ARCH).run(tokens).logits)
    assert model.to_tokens("c b").tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("dtype", [torch.float64, "float64"])
def test_dtype_and_device_are_those_asked_for(run, dtype):
    weights = micrographia.load(run, dtype=dtype, device="cpu").weights
    assert weights.W_E.dtype == torch.float64
    assert micrographia.load(run, dtype="auto").weights.W_E.dtype == torch.float32


@pytest.mark.parametrize("setting", [{"revision": "main"}, {"device_map": "auto"}, {"tokenizer": "gpt2"}])
def test_what_a_run_knows_nothing_of_is_not_ignored(run, setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        micrographia.load(run, **setting)


def test_a_dtype_that_is_none_says_so(run):
    with pytest.raises(UserError, match="'floaty'"):
        micrographia.load(run, dtype="floaty")


def test_a_run_without_a_network_says_so(tmp_path):
    with pytest.raises(UnknownModel, match=r"no model\.json"):
        micrographia.load(a_run(tmp_path / "bare", described=False))
