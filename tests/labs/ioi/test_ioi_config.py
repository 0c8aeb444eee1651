"""The choices of one run of the ioi lab."""

import ast
import dataclasses
import inspect
import json
import math
import subprocess
import sys

import pytest

from micrographia.core.config import flat, with_fields
from micrographia.core.errors import BadConfig
from micrographia.core.runtime import generator
from micrographia.labs.ioi.config import (
    FREE,
    LONGEST_PROMPT,
    PRESETS,
    Config,
    paper,
    preset_of,
    quick,
    tiny,
)
from micrographia.labs.ioi.task import BEHAVIOURS, prompt_pairs


@pytest.mark.parametrize("make", PRESETS.values(), ids=PRESETS)
def test_a_config_survives_json_and_is_a_value(make):
    config = make()
    again = with_fields(quick(), **json.loads(json.dumps(flat(config))))
    assert again == config
    assert hash(again) == hash(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


def test_the_paper_preset_studies_gpt2_small_and_the_others_train():
    assert paper().model == "gpt2"
    assert quick().model == tiny().model == ""
    assert quick().seeds >= 3


@pytest.mark.parametrize("make", PRESETS.values(), ids=PRESETS)
def test_a_preset_keeps_its_name_whatever_is_free(make):
    free = {"seed": 3, "device": "cuda", "threads": 7}
    training = {"plan": "plain", "eval_every": 9, "snapshots": 11, "checkpoint_every": 13, "seeds": 5}
    assert free.keys() | training.keys() == set(FREE)
    free |= {} if make().model else training
    assert preset_of(make()) == preset_of(with_fields(make(), **free)) == make.__name__


def test_fewer_networks_than_the_preset_has_are_not_judged_as_it():
    assert preset_of(with_fields(quick(), seeds=quick().seeds - 1)) == "custom"
    assert preset_of(with_fields(quick(), seeds=quick().seeds + 1)) == "quick"


def test_any_other_choice_makes_it_custom():
    assert preset_of(with_fields(quick(), lr=1e-3)) == "custom"
    assert preset_of(with_fields(quick(), model="gpt2-medium", seeds=1)) == "custom"


@pytest.mark.parametrize(
    "choice",
    [
        *({name: 0} for name in ("seeds", "n_layers", "d_model", "n_heads", "d_head", "d_mlp", "rows", "steps")),
        *({name: 0} for name in ("prompts", "eval_every", "snapshots", "checkpoint_every", "threads")),
        {"n_ctx": 8},
        {"lr": 0.0},
        {"lr": math.nan},
        {"weight_decay": -1.0},
        {"beta1": 1.0},
        {"eps": 0.0},
        {"warmup": -1},
        {"positions": "rotary", "d_head": 5},
        {"model": "gpt2", "seeds": 2},
        {"model": "gpt2", "seeds": 1, "lr": 1e-4},
        {"model": "gpt2", "seeds": 1, "norm": "rmsnorm"},
        {"attention": False},
        {"mlp": False},
    ],
    ids=str,
)
def test_a_choice_out_of_range_is_refused_by_name(choice):
    with pytest.raises(BadConfig, match="|".join(choice)):
        with_fields(Config(), **choice)


def test_what_trains_a_network_is_refused_by_name_beside_a_pretrained_model():
    with pytest.raises(BadConfig, match="not trained: leave out d_model, steps"):
        with_fields(Config(), model="gpt2", seeds=1, steps=10, d_model=8)


@pytest.mark.parametrize(
    "name", sorted(flat(Config()).keys() - {*FREE, "model", "prompts", "pairs", "places", "seeds"})
)
def test_every_choice_about_training_is_refused_beside_a_model(name):
    value = flat(Config())[name]
    others = {"act": "relu", "norm": "none", "positions": "learned", "plan": "plain"}
    other = others.get(
        name, not value if isinstance(value, bool) else value * 0.5 if isinstance(value, float) else 2 * value
    )
    with pytest.raises(BadConfig, match=f"pretrained model is not trained: leave out {name}"):
        with_fields(paper(), **{name: other})


@pytest.mark.parametrize(
    "choice", [{"least": 0.5}, {"plan": "plain"}, {"eval_every": 9}, {"snapshots": 3}, {"checkpoint_every": 9}], ids=str
)
def test_what_follows_a_training_is_refused_beside_a_pretrained_model(choice):
    with pytest.raises(BadConfig, match=f"leave out {next(iter(choice))}"):
        with_fields(paper(), **choice)


@pytest.mark.parametrize(
    ("words", "preset"),
    [(["--model", "gpt2"], "paper"), (["--model=gpt2"], "paper"), ([], "quick"), (["--seed", "3"], "quick")],
    ids=str,
)
def test_a_model_that_is_named_takes_the_preset_that_trains_none(words, preset, monkeypatch):
    from micrographia.faces.cli import lab

    monkeypatch.setattr(lab, "read_run_arguments", lambda *config, preset, **how: (PRESETS[preset](), None))
    monkeypatch.setattr(lab, "carry_out", lambda make, *, identity, **how: identity["model"])
    assert lab.main(["ioi", *words]) == PRESETS[preset]().model


def test_the_longest_prompt_is_as_long_as_said():
    lengths = [prompt_pairs(name, 1, generator(0)).clean.shape[1] for name in BEHAVIOURS]
    assert max(lengths) == LONGEST_PROMPT


def test_every_field_is_documented():
    (tree,) = ast.parse(inspect.getsource(Config)).body
    for field, text in zip(tree.body, tree.body[1:]):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(text, ast.Expr), ast.unparse(field)


def test_a_config_is_made_without_a_tensor_library():
    code = "import sys; import micrographia.labs.ioi.config; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
