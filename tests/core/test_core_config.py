"""What a config is held to, which preset it is, and how it comes from a file or a command line's words."""

import json
import math
import runpy
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from micrographia.core.claims import Run
from micrographia.core.config import (
    Blocks,
    Machine,
    Optimiser,
    Schedule,
    flat,
    hints_of,
    nearest_preset,
    positive,
    read_config,
    read_object,
    validate,
    with_fields,
)
from micrographia.core.errors import BadConfig
from micrographia.core.lab import run_words


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


@pytest.mark.parametrize(
    ("part", "choice"),
    [
        (Optimiser, {"lr": 0.0}),
        (Optimiser, {"lr": math.nan}),
        (Optimiser, {"weight_decay": -0.1}),
        (Optimiser, {"beta1": 1.0}),
        (Optimiser, {"beta2": -0.1}),
        (Optimiser, {"eps": 0.0}),
        (Optimiser, {"warmup": -1}),
        (Machine, {"threads": 0}),
    ],
    ids=str,
)
def test_each_choice_of_a_training_is_held_to_its_range(part, choice):
    assert part(**{"lr": 1e-4, "warmup": 0} if part is Optimiser else {"threads": 2})
    with pytest.raises(BadConfig, match="|".join(choice)):
        part(**choice)


def test_everything_that_is_wrong_is_told_at_once_with_what_was_given():
    config = Config(steps=0, seed=-1)
    with pytest.raises(BadConfig, match=r"steps must be positive; seed must be positive\. Found steps 0, seed -1\.$"):
        validate(config, positive(config, ["steps", "seed"]))


def test_a_preset_is_known_by_its_fixed_choices_whatever_is_free():
    assert nearest_preset(Config(), PRESETS, ()) == "short"
    assert nearest_preset(Config(steps=100), PRESETS, ("threads",)) == "long"
    assert nearest_preset(Config(steps=100), PRESETS, ()) == "custom"
    assert nearest_preset(replace(Config(), seed=4), PRESETS, ("seed", "threads")) == "short"


@dataclass(frozen=True, kw_only=True)
class Nested:
    """A Config of parts, one of them not as it is by default."""

    n: int = 3
    blocks: Blocks = field(default_factory=lambda: Blocks(n_layers=2))
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        validate(self, positive(self, ["n"]))


def test_a_config_of_parts_is_flat_where_it_is_stored():
    stored = flat(Nested())
    assert (stored["n"], stored["n_layers"], stored["lr"], stored["threads"]) == (3, 2, 1e-3, None)
    assert not {"blocks", "optimiser", "machine"} & stored.keys()
    names = [name for part in (Blocks, Optimiser, Schedule, Machine) for name in flat(part())]
    assert list(stored) == ["n", *names]
    assert len(set(names)) == len(names)  # so that none hides another


def test_fields_of_parts_are_replaced_by_their_own_names_and_checked_anew():
    changed = with_fields(Nested(), n=4, lr=0.5, threads=2)
    assert changed == Nested(n=4, optimiser=Optimiser(lr=0.5), machine=Machine(threads=2))
    assert changed.blocks.n_layers == 2  # what is not named stays
    assert with_fields(Nested()) == Nested()
    for wrong in ({"lr": 0.0}, {"n": 0}, {"n_heads": 0}, {"threads": 0}, {"snapshots": 0}):
        with pytest.raises(BadConfig, match="|".join(wrong)):
            with_fields(Nested(), **wrong)
    with pytest.raises(BadConfig, match=r"Nested has no field depth\. It has n, n_layers"):
        with_fields(Nested(), depth=3)


@pytest.mark.parametrize(
    ("part", "wrong", "said"),
    [
        (Blocks, {"n_layers": 0}, "n_layers must be positive"),
        (Blocks, {"positions": "rotary", "d_head": 3}, "d_head must be even"),
        (Blocks, {"attention": False, "mlp": False}, "attention, an MLP, or both"),
        (Optimiser, {"lr": math.nan}, "lr must be positive"),
        (Optimiser, {"beta1": 1.0}, "beta1 and beta2"),
        (Optimiser, {"eps": 0.0}, "eps must be positive"),
        (Optimiser, {"weight_decay": -1.0}, "weight_decay"),
        (Optimiser, {"warmup": -1}, "warmup"),
        (Schedule, {"checkpoint_every": 0}, "checkpoint_every must be positive"),
        (Machine, {"threads": 0}, "threads must be positive"),
    ],
    ids=str,
)
def test_each_part_is_held_to_its_range(part, wrong, said):
    part()
    with pytest.raises(BadConfig, match=said):
        part(**wrong)


def test_a_preset_is_known_whatever_part_a_field_stands_in():
    presets = {"wide": lambda: Nested(blocks=Blocks(n_layers=2, d_model=256)), "short": Nested}
    assert nearest_preset(Nested(), presets, ()) == "short"
    assert nearest_preset(with_fields(Nested(), d_model=256, threads=3), presets, ("threads",)) == "wide"
    assert nearest_preset(with_fields(Nested(), d_model=255), presets, ("threads",)) == "custom"


def test_annotations_of_parts_are_found_by_their_own_names():
    hints = hints_of(Nested)
    assert hints.keys() == flat(Nested()).keys()
    assert (hints["n"], hints["lr"], hints["threads"]) == (int, float, int | None)


def test_a_file_gives_the_fields_of_parts_flat_and_leaves_the_others_as_they_are(written):
    default = with_fields(Nested(), d_model=64, lr=0.25)
    found = read_config(written({"lr": 2, "n_heads": 8, "threads": None}), default)
    assert found == with_fields(default, lr=2, n_heads=8)
    assert read_config(written(flat(found)), Nested()) == found  # what is stored is read back
    assert read_config(written({}), default) == default


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"blocks": {"n_layers": 1}}, r"holds \['blocks'\]\. A Config is a JSON object of these fields: n, n_layers"),
        ({"lr": "high"}, "lr takes a number"),
        ({"lr": True}, "lr takes a number"),
        ({"n_layers": 1.5}, "n_layers takes a whole number"),
        ({"act": "swish"}, 'act takes "relu" or'),
        ({"lr": -1.0}, "lr must be positive"),
        ([1], "holds a list"),
    ],
    ids=str,
)
def test_a_file_that_does_not_fit_a_config_of_parts_is_refused(written, content, said):
    with pytest.raises(BadConfig, match=said):
        read_config(written(content), Nested())


@dataclass(frozen=True, kw_only=True)
class Choices:
    n: int = 1
    rate: float = 0.5
    kind: Literal["plain", "fused"] = "plain"
    threads: int | None = None
    severed: bool = True

    def __post_init__(self) -> None:
        if self.n < 1:
            raise BadConfig(f"n must be positive. Got {self.n}.")


@pytest.fixture
def written(tmp_path):
    def write(content: object) -> Path:
        path = tmp_path / "config.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_fields_that_are_left_out_have_their_defaults(written):
    assert read_config(written({"n": 3, "rate": 2, "threads": None}), Choices()) == Choices(n=3, rate=2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", r"cannot be read: .*Give a JSON file"),
        ([1], r"holds a list\. Write a JSON object"),
        ({"no_such_field": 1}, r"no_such_field.*these fields: n, rate, kind, threads, severed"),
        ({"n": "3"}, r"\{'n': '3'\}\. n takes a whole number\."),
        ({"n": True}, "n takes a whole number"),
        ({"rate": False}, "rate takes a number"),
        ({"kind": "quick"}, 'kind takes "plain" or "fused"'),
        ({"kind": ["plain"]}, 'kind takes "plain" or "fused"'),
        ({"threads": 1.5}, "threads takes a whole number or null"),
        ({"severed": 1}, "severed takes true or false"),
        ({"n": 0}, "n must be positive"),
    ],
)
def test_a_file_that_is_no_config_is_told_why(written, content, told):
    with pytest.raises(BadConfig, match=told):
        read_config(written(content), Choices())


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadConfig, match=r"absent\.json"):
        read_object(tmp_path / "absent.json")


def ran(seen: list[object]):
    def run(config: object, *, out: Path | None, resume: bool) -> Run:
        seen.append((config, out, resume))
        return Run(path=out or Path("new"), lab="x", preset="x", config={}, provenance={}, status="finished")

    return run


def test_a_run_goes_on_where_a_folder_is_given_and_is_new_where_none_is():
    seen: list[object] = []
    assert run_words(["config.json"], str, ran(seen)) == Path("new")
    assert run_words(["config.json", "there"], str, ran(seen)) == Path("there")
    assert seen == [("config.json", None, False), ("config.json", Path("there"), True)]


@pytest.mark.parametrize("words", [[], ["config.json", "there", "more"]])
def test_too_few_and_too_many_words_end_with_a_sentence(words):
    with pytest.raises(SystemExit, match=r"micrographia: Asked for .*Give a config\.json"):
        run_words(words, str, ran([]))


def test_errors_that_are_the_programs_own_are_not_hidden():
    def broken(config: object, *, out: Path | None, resume: bool) -> Run:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_words(["config.json"], str, broken)


@pytest.mark.parametrize("lab", ["grokking", "ioi", "workbench"])
def test_each_lab_reads_its_own_config_from_the_command_line(lab, written, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-m", str(written({"no_such_field": 1, "question": "patch"}))])
    with pytest.raises(SystemExit, match=r"^micrographia: .*no_such_field"):
        runpy.run_module(f"micrographia.labs.{lab}", run_name="__main__")


def test_each_lab_prints_the_folder_of_its_run_and_nothing_else(written, monkeypatch, capsys):
    """The lab's run is stood in for: what `__main__` adds is what is tested here."""
    from micrographia.labs.ioi import run as module

    monkeypatch.setattr(module, "run", lambda config, **choices: SimpleNamespace(path=Path("runs") / config.plan))
    monkeypatch.setattr(sys, "argv", ["-m", str(written({"plan": "plain"}))])
    runpy.run_module("micrographia.labs.ioi", run_name="__main__")
    assert capsys.readouterr().out == f"{Path('runs') / 'plain'}\n"
