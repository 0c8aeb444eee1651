"""The command line: help without weight, codes and messages, one object with --json."""

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake import CLAIMS, fake_claims, fake_results

from micrographia.core.config import Machine, Optimiser, flat
from micrographia.core.errors import Interrupted, RunNotFound
from micrographia.core.events import Progress
from micrographia.core.store import RunFolder, load_run
from micrographia.faces.cli import carry_out as around
from micrographia.faces.cli import claims as claims_command
from micrographia.faces.cli.commands import COMMANDS, find, help_text, nearest
from micrographia.faces.cli.main import main
from micrographia.faces.cli.options import Deciding, Destination, Folder, only, parse, read_run_arguments
from micrographia.labs.catalogue import LABS
from micrographia.labs.grokking.config import PRESETS, Config, tiny


def finished_run(path, *, claims=None, figures=()):
    config = {"modulus": 11, "seed": 0, "threads": 1}
    about = {"threads": 1, "version": "0"}
    with RunFolder.open(path, lab="grokking", preset="quick", config=config, provenance=about, resume=False) as folder:
        folder.finish(fake_results(), fake_claims() if claims is None else claims, figures, {"epoch": [0, 1]})
    return load_run(path)


def test_the_top_level_help_imports_nothing_heavy(helped):
    assert not {"torch", "numpy", "tyro", "rich", "plotly"} & helped[""].modules


@pytest.mark.parametrize("words", ["grok", "grok sweep", "report"])
def test_the_help_of_a_command_imports_no_torch(words, helped):
    assert helped[words].code == 0
    assert "usage: micrographia" in helped[words].told
    assert "torch" not in helped[words].modules


@pytest.mark.parametrize("words", [["grok"], ["grok", "sweep"], ["grok", "lottery"], ["attribute"], ["lens"]])
def test_help_asks_for_no_none_and_puts_presets_first(words, capsys):
    assert main([*words, "--help"]) == 0
    told = capsys.readouterr().out
    assert "None}" not in told
    assert told.index("--preset") < min(told.index("--seed"), told.index("--out")) if "--preset" in told else True
    assert told.index("--out") > told.index("--seed") if words[0] == "grok" and words != ["grok", "lottery"] else True


@pytest.mark.parametrize("words", [["grok", "sweep"], ["grok", "lottery"]])
def test_the_help_of_many_networks_leaves_the_fields_of_one_to_grok(words, capsys):
    assert main([*words, "--help"]) == 0
    told = capsys.readouterr().out
    assert "--base.beta1" not in told
    assert "grok --help" in told
    assert len(told.splitlines()) < 80


def test_help_names_every_command_and_fits_80_columns(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command.name in text and command.line in text for command in COMMANDS)
    assert "grokking" in text
    assert max(map(len, help_text().splitlines())) <= 80


def test_no_words_at_all_are_wrong_usage(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


def test_two_words_win_over_one():
    command, rest = find(["grok", "analyse", "file"])
    assert (command.name, rest) == ("grok analyse", ["file"])
    command, rest = find(["grok", "--seed", "1"])
    assert (command.name, rest) == ("grok", ["--seed", "1"])


def test_an_unknown_command_gets_the_nearest_names(capsys):
    assert main(["claim"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "'claims'" in said.err
    assert nearest("swep") == ["grok sweep"]


def test_every_command_has_a_module_with_main():
    from importlib import util

    for command in COMMANDS:
        assert util.find_spec(f"micrographia.faces.cli.{command.module}") is not None, command


def parsed(*words):
    return read_run_arguments(Config, words, presets=PRESETS, preset="quick", prog="p", description="d")


def test_every_field_is_a_flag_over_the_preset():
    config, output = parsed("--preset", "tiny", "--weight-decay", "0.5", "--no-mlp-bias", "--act", "gelu", "--json")
    wanted = {"weight_decay": 0.5, "act": "gelu", "mlp_bias": False}
    assert flat(config) == {**flat(tiny()), **wanted}
    assert output.json


def test_the_preset_may_stand_after_the_flags():
    config, _ = parsed("--seed", "3", "--preset=paper")
    assert (config.seed, config.epochs) == (3, PRESETS["paper"]().epochs)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Nested:
    """A Config of parts."""

    modulus: int = 113
    """p."""
    optimiser: Optimiser = dataclasses.field(default_factory=lambda: Optimiser(lr=3e-3))
    machine: Machine = dataclasses.field(default_factory=Machine)
    seed: int = 0
    """Of the weights."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Many:
    """Many networks."""

    base: Nested = dataclasses.field(default_factory=Nested)
    seeds: tuple[int, ...] = (0, 1)
    """A network each."""


def nested(*words):
    presets = {"quick": Nested, "tiny": lambda: Nested(modulus=29, optimiser=Optimiser(warmup=3))}
    return read_run_arguments(Nested, words, presets=presets, preset="quick", prog="p", description="d")[0]


def test_the_fields_of_inner_parts_are_flags_without_their_names_and_with_their_help(capsys):
    assert nested("--lr", "0.5", "--threads", "2") == Nested(optimiser=Optimiser(lr=0.5), machine=Machine(threads=2))
    assert nested("--preset", "tiny", "--lr", "0.5").optimiser == Optimiser(lr=0.5, warmup=3)
    with pytest.raises(SystemExit):
        nested("--help")
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in ("--modulus INT p. (default: 113)", "--lr FLOAT Peak learning rate of AdamW. (default: 0.003)"):
        assert part in shown
    assert "--optimiser" not in shown


def test_a_base_keeps_its_name_before_its_fields_and_leaves_their_help_to_the_command_of_one(capsys):
    found = parse(Many, ["--base.lr", "0.5", "--seeds", "3"], prog="p", description="d")
    assert found == Many(base=Nested(optimiser=Optimiser(lr=0.5)), seeds=(3,))
    with pytest.raises(SystemExit):
        parse(Many, ["--help"], prog="p", description="d")
    assert "lr" not in capsys.readouterr().out


def test_a_value_that_an_inner_part_refuses_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as leaving:
        nested("--lr", "-1")
    assert leaving.value.code == 2
    assert "lr must be positive" in capsys.readouterr().err


def test_resuming_a_config_of_parts_takes_what_is_stored_flat(tmp_path):
    stored = flat(Nested(modulus=31, optimiser=Optimiser(lr=0.25), machine=Machine(threads=1)))
    made = {"lab": "x", "preset": "custom", "config": stored, "provenance": {"threads": 1}, "resume": False}
    RunFolder.open(tmp_path / "r", **made).close()
    assert flat(nested("--resume", "--out", str(tmp_path / "r"))) == stored


@pytest.mark.parametrize(
    "words", [["--modulu", "3"], ["--preset", "huge"], ["--modulus", "x"], ["--train-fraction", "2"]]
)
def test_a_wrong_flag_or_value_is_wrong_usage(words, capsys):
    assert main(["grok", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip()


ASKED = "patch --model m --clean a --corrupt b --answer c"


@pytest.mark.parametrize(
    "words",
    [
        "grok --lr inf", "grok --weight-decay inf", "grok --eps nan", "grok --seed 99999999999999999999",
        "lab ioi --lr inf", "circuit --model m --clean a --corrupt b --answer c --threshold nan",
        f"{ASKED} --seed 99999999999999999999", f"{ASKED} --threads 99999", f"{ASKED} --threads 0",
    ],
)  # fmt: skip
def test_a_number_that_nothing_can_be_computed_with_is_wrong_usage(words, capsys):
    assert main(words.split()) == 2
    told = capsys.readouterr().err
    assert words.split()[-2].removeprefix("--").replace("-", "_") in told.replace("-", "_")
    assert "Traceback" not in told


def test_what_does_not_fit_into_memory_is_said_on_every_device(monkeypatch, capsys):
    def refused(words):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 8 bytes")

    monkeypatch.setattr("micrographia.faces.cli.doctor.main", refused)
    assert main(["doctor"]) == 1
    told = capsys.readouterr().err
    assert "does not fit" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("words", "says"),
    [(["grok", "--resume"], "--out"), (["grok", "sweep", "--resume"], "--out"), (["patch", "--resume"], "--"),
     (["report", "RUN", "--json", "--terminal"], "Leave one out")],
)  # fmt: skip
def test_a_flag_that_would_have_no_effect_is_wrong_usage(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path / "runs"))
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in " ".join(said.err.split())
    assert not (tmp_path / "runs").exists()


def test_resuming_needs_no_flags_but_the_folder(tmp_path):
    stored = flat(dataclasses.replace(tiny(), modulus=31))
    about = {"threads": 1}
    RunFolder.open(
        tmp_path / "r", lab="grokking", preset="custom", config=stored, provenance=about, resume=False
    ).close()
    config, _ = parsed("--resume", "--out", str(tmp_path / "r"))
    assert flat(config) == stored
    assert parsed("--resume", "--out", str(tmp_path / "absent"))[0] == PRESETS["quick"]()
    assert parsed("--resume", "--preset", "tiny", "--out", str(tmp_path / "r"))[0] == tiny()


def test_flags_are_found_and_taken_out_in_both_manners():
    assert only(Folder, ["--a", "1", "--out=x"]) == (Folder(out=Path("x")), ["--a", "1"])
    assert only(Folder, ["--out", "x", "--seed", "1", "--resume"]) == (
        Folder(out=Path("x"), resume=True),
        ["--seed", "1"],
    )
    assert only(Folder, ["--output", "x"])[0].out is None
    assert only(Deciding, ["--preset=tiny", "--plan", "p.toml", "--help"])[1] == ["--help"]


def use(monkeypatch, make):
    """Let `micrographia doctor` be this function, to see what main makes of it."""
    module = SimpleNamespace(main=make)
    monkeypatch.setitem(sys.modules, "micrographia.faces.cli.doctor", module)


def raising(error):
    def command(words):
        raise error

    return command


def test_an_error_of_ours_is_a_paragraph_and_code_1(monkeypatch, capsys):
    use(monkeypatch, raising(RunNotFound("Asked for a, found b, do c.")))
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "micrographia: Asked for a, found b, do c.\n"


def test_a_defect_keeps_its_traceback_and_says_how_to_report(monkeypatch, capsys):
    use(monkeypatch, raising(KeyError("lost")))
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert "Traceback" in said.err
    assert "report" in said.err
    assert said.out == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("Stopped at epoch 5.")])
def test_an_interruption_is_code_75(monkeypatch, capsys, error):
    use(monkeypatch, raising(error))
    assert main(["doctor"]) == 75
    assert "Traceback" not in capsys.readouterr().err


def carried_out(path, make, **output):
    return around.carry_out(
        lambda out, resume, watch: make(out, watch),
        output=Destination(out=path, **output),
        lab="grokking",
        identity={},
        command="grok",
        words=["--seed", "0", "--json"],
    )


def test_a_command_prints_one_object_and_writes_the_report(tmp_path, capsys):
    def make(out, watch):
        watch(Progress("training", 1, 1))
        return finished_run(out)

    assert carried_out(tmp_path / "r", make, json=True) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert list(found)[:2] == ["run", "report"]
    assert found["run"] == str(tmp_path / "r")
    assert (tmp_path / "r" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert found["report"] == str(tmp_path / "r" / "report.html")
    assert found["losses"]["gini_W_E"] is None
    assert {"id", "source", "published", "measured", "tolerance", "verdict"} <= found["claims"][0].keys()
    assert "training" in said.err
    assert main(["verify", str(tmp_path / "r")]) == 0


def test_a_finished_run_is_printed_again_and_its_report_kept(tmp_path, capsys):
    finished_run(tmp_path / "r")
    assert carried_out(tmp_path / "r", lambda out, watch: load_run(out), json=True) == 0
    first, stamp = capsys.readouterr().out, (tmp_path / "r" / "report.html").stat().st_mtime_ns
    assert carried_out(tmp_path / "r", lambda out, watch: load_run(out), json=True) == 0
    assert capsys.readouterr().out == first
    assert (tmp_path / "r" / "report.html").stat().st_mtime_ns == stamp


def test_without_a_report_none_is_written(tmp_path, capsys):
    assert carried_out(tmp_path / "r", lambda out, watch: finished_run(out), json=True, report=False) == 0
    assert json.loads(capsys.readouterr().out)["report"] is None
    assert not (tmp_path / "r" / "report.html").exists()


def test_an_interrupted_command_says_exactly_how_to_go_on(tmp_path):
    def make(out, watch):
        raise Interrupted("Stopped by request at epoch 5 of 9; all is saved.")

    with pytest.raises(Interrupted) as stop:
        carried_out(tmp_path / "a b", make)
    assert f"micrographia grok --seed 0 --json --resume --out '{tmp_path}/a b'" in str(stop.value)
    assert "epoch 5" in str(stop.value)


def test_in_words_the_end_names_run_and_report(tmp_path, capsys):
    assert carried_out(tmp_path / "r", lambda out, watch: finished_run(out)) == 0
    out = capsys.readouterr().out
    assert "Claims: 2 hold" in out
    assert "The claims" not in out
    assert str(tmp_path / "r" / "report.html") in out


def test_verify_names_what_was_altered(tmp_path, capsys):
    finished_run(tmp_path / "r")
    results = tmp_path / "r" / "results.json"
    results.write_text(results.read_text(encoding="utf-8").replace("11", "12"), encoding="utf-8")
    assert main(["verify", str(tmp_path / "r"), "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["file"] == "results.json"
    assert main(["verify", str(tmp_path / "r")]) == 1
    assert "results.json" in capsys.readouterr().out


def test_verify_of_nothing_is_an_error(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert "Asked to verify" in capsys.readouterr().err


def test_report_draws_the_page_anew(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path))
    finished_run(tmp_path / "grokking" / "20250101-abc")
    assert main(["report", "2025", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == []
    assert main(["verify", found["run"]]) == 0
    assert main(["report", "2025", "--terminal"]) == 0
    assert "Losses" in capsys.readouterr().out


@pytest.fixture
def stated(monkeypatch):
    monkeypatch.setattr(claims_command, "stated_claims", lambda lab: CLAIMS if lab.name == "grokking" else ())


def test_claims_come_from_the_newest_run_that_judged_them(tmp_path, capsys, monkeypatch, stated):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path))
    finished_run(tmp_path / "grokking" / "1-old")
    newer = [
        dataclasses.replace(each, measured=0.5, verdict="fails")
        for each in fake_claims()
        if each.claim.id == "variance"
    ]
    finished_run(tmp_path / "grokking" / "2-new", claims=newer)
    assert main(["claims", "--json"]) == 0
    found = {each["id"]: each for each in json.loads(capsys.readouterr().out)["claims"]}
    assert list(found) == [claim.id for claim in CLAIMS]
    assert (found["variance"]["verdict"], found["variance"]["measured"]) == ("fails", 0.5)
    assert found["variance"]["run"].endswith("2-new")
    assert found["order"]["verdict"] == "holds"
    assert found["order"]["run"].endswith("1-old")
    assert (found["keys"]["verdict"], found["keys"]["run"]) == ("not run", None)


def test_claims_without_any_run_are_all_not_run(tmp_path, capsys, monkeypatch, stated):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path))
    assert main(["claims"]) == 0
    told = capsys.readouterr().out
    assert "grokking: 4 claims, no Run that judges them" in told
    assert len(told.splitlines()) == len(LABS) + 1  # a line a lab
    assert main(["claims", "--verbose"]) == 0
    assert "4 not run" in capsys.readouterr().out


def test_claims_of_a_folder_that_is_not_there_are_an_error(tmp_path, capsys, stated):
    assert main(["claims", "--root", str(tmp_path / "nowhere")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "no such folder" in " ".join(said.err.split())


def test_the_stated_claims_of_every_lab_can_be_read():
    assert all(claims_command.stated_claims(lab) for lab in LABS)


def test_doctor_reports_versions_cores_and_what_is_missing(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path))
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"]
    assert found["machine"]["cores"] >= 1
    assert found["runs"] == {"root": str(tmp_path), "writable": True}
    assert main(["doctor"]) == 0
    assert "runs go to" in capsys.readouterr().out


def test_the_lab_command_lists_labs_and_refuses_others(capsys):
    assert main(["lab", "--help"]) == 0
    assert "grokking" in capsys.readouterr().out
    assert main(["lab", "groking"]) == 2
    assert "grokking" in capsys.readouterr().err


def test_help_shows_a_switch_by_the_one_word_that_changes_it(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    shown = (
        "--json Print",
        "--no-report Turn off: write report.html",
        "--attn-bias Biases",
        "--no-mlp Attention only.",
    )
    assert [words for words in shown if words not in text] == []
    hidden = ("--no-json", "--no-resume", "--report", "--no-attn-bias", "--mlp-bias")
    assert [word for word in hidden if word in text.split()] == []
    assert "None)" not in text
    assert "True)" not in text
    assert "False)" not in text


@pytest.mark.parametrize(("flag", "value", "told"), [
    ("--epochs", "1e3", "'1e3' is not a whole number"), ("--lr", "fast", "'fast' is not a number"),
    ("--threads", "x", "'x' is not a whole number"),
])  # fmt: skip
def test_what_is_no_number_is_told_in_words(flag, value, told, capsys):
    with pytest.raises(SystemExit) as left:
        parsed(flag, value)
    text = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert (left.value.code, told in text, "literal" in text) == (2, True, False)


def test_both_words_of_a_switch_are_understood():
    assert [parsed(word)[1].report for word in ("--no-report", "--report")] == [False, True]
    assert [parsed(word)[1].verbose for word in ("--no-verbose", "--verbose")] == [False, True]


def test_the_labs_are_listed_within_80_columns(capsys):
    assert main(["lab", "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
