"""Nanda's autoencoders of a one-layer model: four tensors beside their config, and what the code published computes."""

import json

import pytest
import torch

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import PickleRefused, UnreadableWeights
from micrographia.core.runtime import generator

SHAPES = {"W_enc": (6, 20), "W_dec": (20, 6), "b_enc": (20,), "b_dec": (6,)}
CFG = {"model_name": "gelu-1l", "act_name": "blocks.0.mlp.hook_post", "l1_coeff": 3e-4}


@pytest.fixture
def written(tmp_path):
    draw = generator(0)
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
    for run in ("25", "47"):
        torch.save(tensors, tmp_path / f"{run}.pt")
        (tmp_path / f"{run}_cfg.json").write_text(json.dumps(CFG))
    return tmp_path, tensors


def test_latents_and_output_are_those_of_the_published_code(written):
    folder, t = written
    found = Dictionary.load(folder / "25.pt", allow_pickle=True)
    x = torch.randn(3, 6, generator=generator(1))
    latents = ((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]).relu()
    torch.testing.assert_close(found.encode(x), latents)
    torch.testing.assert_close(found.reconstruct(x), latents @ t["W_dec"] + t["b_dec"])
    assert (found.about.layout, found.about.model, str(found.about.site)) == ("one_layer", "gelu-1l", "L0.neurons")


def test_a_pickle_is_refused_unless_allowed(written):
    with pytest.raises(PickleRefused):
        Dictionary.load(written[0] / "25.pt")


def test_a_missing_tensor_is_named(written):
    torch.save({"W_enc": torch.ones(6, 20)}, written[0] / "25.pt")
    with pytest.raises(UnreadableWeights, match="W_dec"):
        Dictionary.load(written[0] / "25.pt", allow_pickle=True)
