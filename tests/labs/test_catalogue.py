"""A row of the catalogue and a lab's own package are all that it takes to run it by name."""

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from micrographia.core.config import Optimiser, flat
from micrographia.core.errors import BadConfig
from micrographia.faces.cli.lab import main
from micrographia.labs import catalogue
from micrographia.labs.catalogue import LABS, Lab, run_by_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A lab of the tests."""

    model: str = ""
    """A pretrained model, if any."""
    optimiser: Optimiser = field(default_factory=Optimiser)


@pytest.fixture
def calls(monkeypatch):
    """What the lab "fake" ran."""
    found = []
    presets = {"quick": Config, "paper": lambda: Config(optimiser=Optimiser(lr=0.5))}
    config = SimpleNamespace(Config=Config, PRESETS=presets)
    run = SimpleNamespace(run=lambda config, **how: found.append((config, how)))
    monkeypatch.setitem(sys.modules, "micrographia.labs.fake.config", config)
    monkeypatch.setitem(sys.modules, "micrographia.labs.fake.run", run)
    monkeypatch.setitem(sys.modules, "micrographia.labs.fake", SimpleNamespace(config=config, run=run))
    monkeypatch.setattr(catalogue, "LABS", (*LABS, Lab("fake", "Does it run?", preset_with_model="paper")))
    return found


def test_a_lab_runs_by_its_name_with_fields_of_inner_parts_changed(calls, tmp_path):
    run_by_name("fake", lr=0.25, out=str(tmp_path / "r"), resume=True)
    ((config, how),) = calls
    assert config == Config(optimiser=Optimiser(lr=0.25))
    assert how == {"out": tmp_path / "r", "resume": True}


def test_a_pretrained_model_takes_the_preset_that_trains_none(calls):
    run_by_name("fake", model="gpt2")
    run_by_name("fake", model="gpt2", preset="quick")
    assert [config.optimiser.lr for config, _ in calls] == [0.5, 1e-3]


@pytest.mark.parametrize(
    ("name", "choices", "says"),
    [
        ("fak", {}, "There is: fake"),
        ("fake", {"preset": "huge"}, "quick, paper"),
        ("fake", {"nothing": 1}, "nothing"),
        ("fake", {"lr": -1.0}, "lr must be positive"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(calls, name, choices, says):
    with pytest.raises(BadConfig, match=says):
        run_by_name(name, **choices)
    assert calls == []


def test_the_command_line_runs_it_too(calls, tmp_path):
    with pytest.raises(AttributeError, match="path"):  # no Run comes back from here
        main(["fake", "--model", "gpt2", "--warmup", "3", "--out", str(tmp_path / "r")])
    ((config, how),) = calls
    assert flat(config) == flat(Config(model="gpt2", optimiser=Optimiser(lr=0.5, warmup=3)))
    assert how["out"] == tmp_path / "r"


@pytest.mark.parametrize("row", LABS, ids=lambda row: row.name)
def test_every_row_has_presets_of_its_config(row):
    assert {"quick", "tiny", row.preset_with_model} <= row.config.PRESETS.keys()
    assert all(isinstance(make(), row.config.Config) for make in row.config.PRESETS.values())


def test_a_field_of_the_wrong_kind_is_refused_and_named():
    with pytest.raises(BadConfig, match="lr takes a number"):
        run_by_name("grokking", preset="tiny", lr="x")
