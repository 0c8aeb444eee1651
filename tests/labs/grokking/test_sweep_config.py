"""Plans: which networks a sweep consists of, and what a file may hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from micrographia.core.config import flat
from micrographia.core.errors import BadConfig
from micrographia.core.plan import members, settings, varying
from micrographia.faces.cli.sweep import _default_plan
from micrographia.labs.grokking.lottery.config import LotteryConfig
from micrographia.labs.grokking.sweep.config import AXES, SweepConfig, plan_of, read_plan, small


def only(**axes) -> SweepConfig:
    """A plan along these axes alone."""
    return plan_of({name: list(values) if isinstance(values, tuple) else values for name, values in axes.items()})


def test_one_at_a_time_varies_each_axis_around_the_base():
    plan = only(seeds=(0, 1), train_fractions=(0.3, 0.4, 0.6), operations=("add", "multiply"))
    names = [member.name for member in members(plan, AXES) if member.seed == 0]
    assert names[0] == "base_seed-0"
    assert set(names[1:]) == {"train_fraction-0.3_seed-0", "train_fraction-0.6_seed-0", "operation-multiply_seed-0"}
    assert len(members(plan, AXES)) == 8


def test_a_product_takes_every_combination():
    plan = only(combine="product", seeds=(0, 1, 2), layers=(1, 2), norms=("none", "layernorm"), parts=("both", "mlp"))
    assert len(settings(plan, AXES)) == 8
    assert len(members(plan, AXES)) == 24
    assert len({member.name for member in members(plan, AXES)}) == 24
    assert set(varying(plan, AXES)) == {"n_layers", "norm", "parts"}
    last = next(m for m in members(plan, AXES) if m.name == "n_layers-2_norm-layernorm_parts-mlp_seed-1")
    assert tuple(flat(last.config)[name] for name in ("n_layers", "norm", "attention", "mlp")) == (
        2,
        "layernorm",
        False,
        True,
    )
    assert last.config.seed == 1


def test_members_run_on_one_thread_each():
    assert {member.config.machine.threads for member in members(plan_of({"preset": "quick"}), AXES)} == {1}


def test_the_default_plan_is_small_enough_for_several_minutes():
    plan = SweepConfig()
    assert len(members(plan, AXES)) <= 36
    assert plan.base.epochs <= 1_200


def test_where_the_command_line_names_an_axis_only_that_one_is_varied():
    words = ["--seeds", "0", "1", "--operations", "subtract", "--train-fractions=0.5"]
    plan = _default_plan(words)
    assert not any(getattr(plan, axis) for axis in AXES.fields), "what is named is filled in by the flags themselves"
    assert plan.seeds == SweepConfig().seeds
    assert _default_plan(["--seeds", "0", "--base.lr", "0.1"]) == SweepConfig()


def test_a_file_gives_axes_and_fields_of_the_base(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text('preset = "tiny"\nseeds = [4, 5]\nweight_decays = [1, 2.5]\n[base]\nepochs = 7\n', encoding="utf-8")
    plan = read_plan(path)
    assert (plan.base.modulus, plan.base.epochs, plan.seeds) == (29, 7, (4, 5))
    assert [setting["weight_decay"] for setting in settings(plan, AXES)] == [plan.base.optim.weight_decay, 1.0, 2.5]
    assert plan.operations == (), "an axis that the file does not name keeps the base's value"


def test_an_unknown_name_is_refused_with_the_nearest_ones(tmp_path):
    with pytest.raises(BadConfig, match=r"'weight_decay', which is unknown. Nearest: .*weight_decays"):
        plan_of({"weight_decay": [1.0]})
    with pytest.raises(BadConfig, match=r"\[base\] names 'modulo'.*modulus"):
        plan_of({"base": {"modulo": 7}})
    path = tmp_path / "plan.toml"
    path.write_text("seeds = [1,", encoding="utf-8")
    with pytest.raises(BadConfig, match="Cannot read the plan"):
        read_plan(path)
    with pytest.raises(BadConfig, match="Cannot read the plan"):
        read_plan(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"seeds": 3}, "seeds takes a list, each entry a whole number"),
        ({"seeds": []}, "at least one"),
        ({"seeds": [1, 1]}, "twice"),
        ({"operations": ["divide"]}, '"add" or "subtract"'),
        ({"parts": ["none"]}, '"both" or "attention"'),
        ({"moduli": ["many"]}, "moduli takes a list"),
        ({"preset": "huge"}, "known are small, paper"),
        ({"runner": "ray"}, "known are local"),
        ({"combine": "all"}, '"one-at-a-time" or "product"'),
        ({"base": {"lr": "fast"}}, "lr takes a number"),
        ({"base": {"threads": 2}}, "one thread each"),
        ({"base": {"seed": 9}}, "give seeds"),
        (
            {"combine": "product", "moduli": [9], "operations": ["multiply"]},
            "modulus-9_operation-multiply_seed-0 cannot be",
        ),
        ({"train_fractions": [1.5]}, "train_fraction must lie strictly"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(table, message):
    with pytest.raises(BadConfig, match=message):
        plan_of(table)


def test_the_plan_needs_no_tensor_library():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    code = (
        "import sys; from micrographia.labs.grokking.sweep.config import SweepConfig;"
        "from micrographia.labs.grokking.lottery.config import LotteryConfig;"
        "SweepConfig(); LotteryConfig();"
        "import json; print(json.dumps([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == []


def test_the_small_base_is_one_of_the_known_ones():
    assert plan_of({}).base == small()


def test_a_plan_may_name_the_one_runner():
    assert plan_of({"runner": "local"}) == plan_of({})


@pytest.mark.parametrize(("config", "name"), [(SweepConfig(), "sweep-small"), (LotteryConfig(), "lottery-small")])
def test_runs_that_are_stored_go_on(config, name):
    """The stored form of the defaults is that of the Runs kept with the documentation, which name their runner."""
    run = json.loads((Path(__file__).parents[3] / "docs" / "results" / name / "run.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(config.stored)) == run["config"]
