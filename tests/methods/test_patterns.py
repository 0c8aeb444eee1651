"""Patterns are the model's own, padding is left out, grouped heads are named, and what cannot be shown is refused."""

import numpy as np
import pytest
import torch

from micrographia.core.errors import UserError
from micrographia.core.prompts import Pairs
from micrographia.core.tokens import Batch
from micrographia.faces.figures.texts import attention_values
from micrographia.methods import patterns as module
from micrographia.methods.patterns import attention_patterns, pattern_figures
from tiny_families import tiny

IDS = torch.tensor([[1, 4, 2, 6, 3]])


@pytest.fixture(scope="module")
def model():
    return tiny("grouped heads")


def test_the_patterns_of_chosen_heads_are_those_of_a_run(model):
    found = attention_patterns(model, [IDS, IDS.flip(1)], [(1, 3), (0, 0)], sides=["clean", "corrupt"])
    cache = model.run(IDS, keep=["L0.pattern", "L1.pattern"]).cache
    torch.testing.assert_close(found.patterns[0], torch.stack([cache["L1.pattern"][0, 3], cache["L0.pattern"][0, 0]]))
    clean, corrupt = found.figures()
    assert (clean.name, corrupt.name, clean.data["tokens"]) == ("patterns-clean", "patterns-corrupt", list("14263"))
    assert np.abs(attention_values(clean.data) - found.patterns[0].numpy()).max() <= 0.5 / 255 + 1e-6
    assert repr(found) == "AttentionPatterns(2 heads, 5 and 5 tokens)"


def test_grouped_heads_are_named_with_what_they_share_and_all_stand_by_layer(model):
    (figure,) = attention_patterns(model, [IDS]).figures()
    shape = model.shape
    group = shape.n_heads // shape.n_kv_heads
    assert group > 1
    names = [
        f"L{layer}H{head} (kv {head // group})" for layer in range(shape.n_layers) for head in range(shape.n_heads)
    ]
    assert figure.data["panels"] == names
    assert figure.data["groups"][-1] == f"layer {shape.n_layers - 1}"


def test_a_question_shows_the_heads_that_it_names_without_padding(model):
    mask = torch.tensor([[False, False, True, True, True], [True] * 5])
    rows = Batch(IDS.repeat(2, 1), mask)
    pairs = Pairs(rows, rows, torch.tensor([1, 1]))
    (figure,) = pattern_figures(model, pairs, ["L1.z[2]", None, "L0.mlp_out", "L1.z[2]", "L9.z[0]", "L0.q[1]"])
    assert figure.data["panels"] == ["L0H1 (kv 0)", "L1H2 (kv 1)"]
    assert figure.data["tokens"] == ["2", "6", "3"]
    assert pattern_figures(model, pairs, ["L0.mlp_out", "embed"]) == []


def test_what_is_not_there_or_too_much_is_refused(model, monkeypatch):
    with pytest.raises(UserError, match="L7H0, L0H99"):
        attention_patterns(model, [IDS], [(7, 0), (0, 99)])
    monkeypatch.setattr(module, "MOST_CELLS", 10)
    with pytest.raises(UserError, match="Choose layers, or a shorter prompt"):
        attention_patterns(model, [IDS])
    assert pattern_figures(model, Pairs(IDS, IDS, torch.tensor([1])), ["L0.z[0]"]) == []
