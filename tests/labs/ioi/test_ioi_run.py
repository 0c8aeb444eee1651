"""A run of trained networks from nothing to judged claims: machinery, at a size at which nothing is learned."""

import dataclasses
import json

import numpy as np
import pytest

from micrographia.core.claims import load_claims
from micrographia.core.small.trained import load_trained
from micrographia.core.store import json_bytes, load_run, verify
from micrographia.faces.outline import outline, summary
from micrographia.labs.ioi.config import Config, tiny
from micrographia.labs.ioi.findings import results_of
from micrographia.labs.ioi.judge import CLAIMS, MEASURED
from micrographia.labs.ioi.network import take_apart
from micrographia.labs.ioi.run import run
from micrographia.labs.ioi.sentences import summary as sentences

pytestmark = pytest.mark.usefixtures("unchecked")


def smallest() -> Config:
    return dataclasses.replace(
        tiny(), seeds=1, steps=20, prompts=8, pairs=3, places=8, checkpoint_every=10, eval_every=10
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory, unchecked_module):
    return run(smallest(), out=tmp_path_factory.mktemp("runs") / "whole")


def test_a_finished_run_holds_what_a_reader_needs(done):
    assert done.status == "finished"
    tables = ("behaviours", "estimates_beside_exact_effects", "head_kinds", "circuits", "planted_circuits", "summary")
    assert {*tables, "judged_by_network", "greater_by_probabilities"} <= set(done.results)
    assert {figure.kind for figure in done.figures} == {"lines", "bars", "heatmap", "scatter", "graph"}
    assert verify(done.path) == []


def test_every_network_can_be_opened_as_a_model(done):
    assert load_trained(done.path / "networks" / "seed-0").tokenizer is not None


def test_a_finished_run_is_not_done_again(done):
    before = {path: path.stat().st_mtime_ns for path in done.path.rglob("*") if path.is_file()}
    assert run(smallest(), out=done.path, resume=True).results == done.results
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_claims_about_the_planted_circuits_do_not_need_training(done):
    verdicts = {judged.claim.id: judged.verdict for judged in load_run(done.path).claims}
    assert set(verdicts.values()) == {"not run"}  # a size that is no preset's
    measured = {judged.claim.id: judged.measured for judged in done.claims}
    assert measured["planted-circuits-as-theory-says"] == 1


def test_every_claim_has_its_measurement_and_no_other():
    assert [claim.id for claim in load_claims(CLAIMS)] == list(MEASURED)


def test_published_figures_stand_in_claims_alone():
    room = CLAIMS.parent
    figures = {"3.5519", "3.56", "0.993", "0.753", "0.979", "0.195", "0.968", "0.962", "0.992"}
    for path in room.rglob("*.py"):
        assert not [figure for figure in figures if figure in path.read_text(encoding="utf-8")], path


def test_all_that_was_found_is_told(done):
    told = outline(done)
    assert {"behaviours", "estimates", "heads", "circuits-nodes", "circuits-edges", "planted"} <= {s.id for s in told}
    assert len(summary(done)) >= 4
    assert all(section.table is None or len(section.table.columns) == len(section.table.rows[0]) for section in told)


def test_networks_that_learned_nothing_are_not_praised(done):
    said = " ".join(done.results["summary"])
    assert "did not learn any behaviour" in said
    assert "only exercises the machinery" in said
    assert not any(text in said for text in ("learned each", "follow the exact", "are enough", "Estimates of"))


def test_a_network_that_was_taken_apart_is_not_counted_as_learned(done):
    (section,) = [each for each in outline(done) if each.id == "behaviours"]
    assert section.table.columns[1] == "taken apart"


def test_the_summary_ends_with_the_networks_as_models(done):
    last = done.results["summary"][-1]
    assert "`micrographia patch --model RUN/networks/seed-0 ...`" in last
    assert str(done.path) not in last


def test_what_was_learned_is_told_with_its_findings(done):
    rows = [{**row, "accuracy": {"median": 0.9}, "by_chance": {"median": 0.1}} for row in done.results["behaviours"]]
    said = " ".join(sentences({**done.results, "behaviours": rows}))
    assert "The one network trained from nothing learned ioi, induction, pronoun, greater." in said
    assert "Estimates of attribution patching" in said


def test_a_map_shows_both_directions_beside_the_words(done):
    figure = next(each for each in done.figures if each.name == "ioi-z")
    z = np.asarray(figure.data["z"])
    assert z.shape == (2, 2 * smallest().n_heads, len(figure.data["x_names"]))
    assert figure.data["x_names"][1] == "1 When"


def test_a_network_taken_apart_again_gives_the_same_tables(done):
    again = results_of([take_apart(smallest(), 0, str(done.path / "networks" / "seed-0"))], ())
    for table, rows in again.items():
        if table != "planted_circuits":
            assert json.loads(json_bytes({"rows": rows}))["rows"] == done.results[table], table
