"""Choices out of range are told all at once and by name; a preset is known whatever is free."""

import math
from dataclasses import dataclass, replace

import pytest

from micrographia.core.choices import nearest_preset, positive, refuse_broken, training
from micrographia.core.errors import BadConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 10
    lr: float = 1e-3
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    warmup: int = 5
    threads: int | None = None
    seed: int = 0


PRESETS = {"long": lambda: Config(steps=100, threads=1), "short": Config}


def test_choices_in_range_pass():
    refuse_broken(Config(), {**positive(Config(), ["steps"]), **training(Config(warmup=0, threads=2))})


@pytest.mark.parametrize(
    "choice",
    [
        {"lr": 0.0},
        {"lr": math.nan},
        {"weight_decay": -0.1},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"eps": 0.0},
        {"warmup": -1},
        {"threads": 0},
    ],
    ids=str,
)
def test_each_choice_of_a_training_is_held_to_its_range(choice):
    with pytest.raises(BadConfig, match="|".join(choice)):
        refuse_broken(Config(), training(Config(**choice)))


def test_everything_that_is_wrong_is_told_at_once_with_what_was_given():
    config = Config(steps=0, lr=-1.0, threads=0)
    with pytest.raises(BadConfig, match=r"steps must be positive; lr must be positive; threads .*Got Config\(steps=0"):
        refuse_broken(config, {**positive(config, ["steps"]), **training(config)})


def test_a_preset_is_known_by_its_fixed_choices_whatever_is_free():
    assert nearest_preset(Config(), PRESETS, ()) == "short"
    assert nearest_preset(Config(steps=100), PRESETS, ("threads",)) == "long"
    assert nearest_preset(Config(steps=100), PRESETS, ()) == "custom"
    assert nearest_preset(replace(Config(), seed=4), PRESETS, ("seed", "threads")) == "short"
