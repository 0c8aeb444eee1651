"""What a new lab needs: a package with its Config, measures, claims and one orchestrator, and a row of the catalogue.

`projection` beside this file is one, in some sixty lines. Everything else that a user meets comes of itself.
"""

import json
from importlib import import_module
from pathlib import Path

import pytest

import micrographia.labs
from micrographia.core.errors import BadConfig, Interrupted
from micrographia.core.store import load_run, verify
from micrographia.faces.cli import claims as claims_command
from micrographia.faces.cli import commands
from micrographia.faces.cli import lab as lab_command
from micrographia.faces.cli.main import main
from micrographia.labs import catalogue

HERE = Path(__file__).parent
ROW = catalogue.Lab("projection", "Does a random projection keep the distances between points?")
GROWTH = "distances-are-kept"


@pytest.fixture(autouse=True)
def lab(monkeypatch, tmp_path):
    """The lab where labs are, and its row in the catalogue."""
    monkeypatch.setattr(micrographia.labs, "__path__", [*micrographia.labs.__path__, str(HERE)])
    labs = (*catalogue.LABS, ROW)
    for module in (catalogue, claims_command, commands, lab_command):
        monkeypatch.setattr(module, "LABS", labs)
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path / "runs"))
    return import_module("micrographia.labs.projection.run")


def test_it_gives_a_finished_run_with_judged_claims_a_headline_and_a_table():
    run = catalogue.run_by_name("projection", seed=1)
    assert (run.status, run.lab, run.preset, run.config["seed"]) == ("finished", "projection", "quick", 1)
    assert verify(run.path) == []
    [kept, mean] = run.claims
    assert (kept.claim.id, kept.verdict, mean.verdict) == (GROWTH, "holds", "holds")
    assert kept.measured < kept.claim.published < kept.null_measured
    assert run.summary == [kept.sentence, mean.sentence]
    [figure] = run.figures
    assert (figure.kind, figure.data["columns"], figure.claims) == ("table", ["share", "growth at most"], (GROWTH,))
    growth = [row[1] for row in figure.data["rows"]]
    assert growth == sorted(growth)
    assert run.results["n_pairs"] == 40 * 39 / 2


def test_a_claim_is_judged_at_its_presets_alone():
    tiny = catalogue.run_by_name("projection", preset="tiny")
    assert [each.verdict for each in tiny.claims] == ["not run", "holds"]
    assert len(tiny.summary) == 1
    assert catalogue.run_by_name("projection", d_out=2).preset == "custom"


def test_a_claim_fails_where_what_it_says_is_not_so(lab, monkeypatch):
    monkeypatch.setattr(lab, "preset_of", lambda config: "quick")
    narrow = catalogue.run_by_name("projection", d_out=2)
    assert narrow.claims[0].verdict == "fails"
    assert narrow.summary[0] == narrow.claims[0].sentence


def test_every_field_is_a_flag_and_the_run_is_printed_and_reported(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["lab", "projection", "--n-points", "8", "--threads", "1", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    run = load_run(out)
    assert run.config["n_points"] == 8
    assert "growth at most" in told  # the table
    assert all(sentence in " ".join(told.split()) for sentence in run.summary)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "growth at most" in page
    assert "How distances change" in page


def test_it_prints_one_object(tmp_path, capsys):
    assert main(["lab", "projection", "--json", "--no-report", "--out", str(tmp_path / "run")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["summary"] == load_run(tmp_path / "run").summary
    assert {each["id"]: each["verdict"] for each in found["claims"]} == {GROWTH: "holds", "the-mean-is-one": "holds"}
    assert found["measured"][GROWTH]["value"] == found["claims"][0]["measured"]


def test_the_help_lists_it_and_its_claims_are_told_with_the_newest_run(capsys):
    assert main(["lab", "--help"]) == main(["--help"]) == 0
    assert capsys.readouterr().out.count(ROW.name) >= 2
    catalogue.run_by_name("projection")
    assert main(["claims", "--json"]) == 0
    rows = [each for each in json.loads(capsys.readouterr().out)["claims"] if each["lab"] == ROW.name]
    assert [each["verdict"] for each in rows] == ["holds", "holds"]


def test_its_config_is_checked_and_its_fields_are_known():
    with pytest.raises(BadConfig, match="d_out must be positive"):
        catalogue.run_by_name("projection", d_out=0)
    with pytest.raises(BadConfig, match="no field width"):
        catalogue.run_by_name("projection", width=3)


@pytest.mark.parametrize(
    ("error", "status"),
    [(ZeroDivisionError(), "failed"), (Interrupted("on request"), "interrupted"), (KeyboardInterrupt(), "interrupted")],
    ids=lambda value: type(value).__name__,
)
def test_an_analysis_that_stops_never_leaves_it_running(error, status, lab, tmp_path, monkeypatch):
    def stop(*given: object) -> None:
        raise error

    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(lab, "measure", stop)
        with pytest.raises(type(error)):
            catalogue.run_by_name("projection", out=out)
    assert load_run(out).status == status
    assert catalogue.run_by_name("projection", out=out, resume=True).status == "finished"
