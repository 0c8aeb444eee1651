"""The choices of one grokking run: what is refused, what the presets are, what they are called."""

import ast
import dataclasses
import inspect
import json
import math
import subprocess
import sys
import typing

import pytest

from micrographia.core.config import flat, hints_of, with_fields
from micrographia.core.errors import BadConfig
from micrographia.labs.grokking.config import FREE, PRESETS, Config, is_prime, paper, preset_of, quick, tiny


def test_the_paper_preset_is_the_published_mainline():
    """Nanda et al. (2023), section 3 and appendix A."""
    config = paper()
    assert (config.modulus, config.operation, config.train_fraction) == (113, "add", 0.3)
    net, optim = config.network, config.optim
    assert (net.n_layers, net.d_model, net.n_heads, net.d_head, net.d_mlp) == (1, 128, 4, 32, 512)
    assert (net.act, net.norm, net.positions, net.tied) == ("relu", "none", "learned", False)
    assert (net.attn_bias, net.mlp_bias, net.attention, net.mlp) == (False, True, True, True)
    assert (optim.lr, optim.weight_decay, optim.beta1, optim.beta2) == (1e-3, 1.0, 0.9, 0.98)
    assert (optim.eps, optim.warmup, config.epochs, config.seed, config.split) == (1e-8, 10, 40_000, 0, "shuffle")


def test_the_quick_preset_is_the_papers_problem_and_network():
    same = {"modulus", "operation", "train_fraction", "split", "network"}
    assert all(getattr(quick(), name) == getattr(paper(), name) for name in same)
    assert quick().epochs < paper().epochs


def test_tiny_takes_one_thread():
    assert tiny().machine.threads == 1


@pytest.mark.parametrize("make", PRESETS.values(), ids=PRESETS)
def test_a_config_survives_json_and_is_a_value(make):
    config = make()
    again = with_fields(paper(), **json.loads(json.dumps(flat(config))))
    assert again == config
    assert hash(again) == hash(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    with pytest.raises(TypeError):
        Config(113)


@pytest.mark.parametrize("make", PRESETS.values(), ids=PRESETS)
def test_a_preset_keeps_its_name_whatever_is_free(make):
    name = make.__name__
    free = {"seed": 3, "split_seed": 4, "plan": "plain", "device": "cuda", "threads": 7, "eval_every": 9}
    free |= {"snapshots": 11, "checkpoint_every": 13}
    assert free.keys() == set(FREE)
    assert preset_of(make()) == preset_of(with_fields(make(), **free)) == name


@pytest.mark.parametrize("field", sorted(flat(paper()).keys() - set(FREE)))
def test_any_other_choice_makes_it_custom(field):
    value = flat(paper())[field]
    if isinstance(value, str):
        other = next(word for word in typing.get_args(hints_of(Config)[field]) if word != value)
    else:
        other = not value if isinstance(value, bool) else value / 2 if isinstance(value, float) else value + 2
    assert preset_of(with_fields(paper(), **{field: other})) == "custom"


@pytest.mark.parametrize(
    ("epochs", "name"),
    [(19_999, "custom"), (20_000, "paper-short"), (39_999, "paper-short"), (40_000, "paper"), (50_000, "custom")],
)
def test_the_papers_run_stopped_after_its_frequencies_settled_has_a_name(epochs, name):
    assert preset_of(dataclasses.replace(paper(), epochs=epochs, seed=2)) == name


@pytest.mark.parametrize(
    "choice",
    [
        {"modulus": 2},
        {"train_fraction": 0.0},
        {"train_fraction": 1.0},
        {"train_fraction": math.nan},
        {"modulus": 3, "train_fraction": 0.1},
        {"n_layers": 0},
        {"d_mlp": -1},
        {"lr": 0.0},
        {"lr": math.nan},
        {"weight_decay": -1.0},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"eps": 0.0},
        {"warmup": -1},
        {"epochs": 0},
        {"eval_every": 0},
        {"snapshots": 0},
        {"checkpoint_every": 0},
        {"threads": 0},
        {"attention": False, "mlp": False},
        {"operation": "multiply", "modulus": 15},
        {"positions": "rotary", "d_head": 5},
    ],
    ids=str,
)
def test_a_choice_out_of_range_is_refused_by_name(choice):
    with pytest.raises(BadConfig, match="|".join(choice)):
        with_fields(paper(), **choice)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(BadConfig, match=r"lr must be positive; eps must be positive"):
        with_fields(paper(), lr=-1.0, eps=-1.0)


def test_every_field_is_documented():
    (tree,) = ast.parse(inspect.getsource(Config)).body
    for field, text in zip(tree.body, tree.body[1:]):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(text, ast.Expr), ast.unparse(field)


def test_primes():
    assert [n for n in range(30) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    assert is_prime(113)
    assert not is_prime(113 * 113)


def test_a_config_is_made_without_a_tensor_library():
    code = "import sys; import micrographia.labs.grokking.config; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
