"""A run of trained networks from scratch to judged claims: machinery, at a size at which nothing is learned."""

import copy
import json
import re

import numpy as np
import pytest

from micrographia.core.claims import judge_all, load_claims
from micrographia.core.small.trained import load_trained
from micrographia.core.store import json_bytes, verify
from micrographia.labs.ioi.analysis import analyse
from micrographia.labs.ioi.measure import CLAIMS, of_estimates, of_gpt2
from micrographia.labs.ioi.run import NOTHING_LEARNED, ONE_NETWORK, opening, run
from micrographia.labs.ioi.tables import tables

pytestmark = pytest.mark.usefixtures("unchecked")
TABLES = ("behaviours", "greater_by_probabilities", "estimates_beside_exact_effects", "denoising_beside_noising")
TABLES += ("how_far_to_trust", "direct_parts", "head_kinds", "circuits", "smallest_circuits")


def test_a_finished_run_holds_what_a_reader_needs(done):
    assert done.status == "finished"
    assert {*TABLES, "summary", "title"} <= set(done.results)
    assert {each.kind for each in done.figures} == {"lines", "bars", "heatmap", "scatter", "graph", "table", "text"}
    assert verify(done.path) == []


def test_every_figure_has_a_section_and_every_section_a_table(done):
    groups = {each.group for each in done.figures}
    assert "" not in groups
    assert groups == {each.group for each in done.figures if each.kind == "table"}


def test_heads_and_mlps_are_called_by_their_names(done):
    parts = {row["part"] for row in done.results["direct_parts"]}
    assert not [part for part in parts if ".z[" in part or ".mlp_out" in part]
    assert any(re.fullmatch(r"L\d+(H\d+| MLP)", part) for part in parts)


def test_every_network_can_be_opened_as_a_model(done):
    assert load_trained(done.path / "networks" / "seed-0").tokenizer is not None


def test_a_finished_run_is_not_done_again(done, config):
    before = {path: path.stat().st_mtime_ns for path in done.path.rglob("*") if path.is_file()}
    assert run(config, out=done.path, resume=True).results == done.results
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_size_that_is_no_presets_is_measured_and_not_judged(done):
    assert {judged.verdict for judged in done.claims} == {"not run"}
    measured = {judged.claim.id: judged.measured for judged in done.claims}
    assert measured["behaviours-learned"] == 1  # with `least` 0


def test_every_claim_has_its_measurement_and_no_other(done):
    known = {*done.results["measured"], *of_gpt2({})}
    assert {claim.id for claim in load_claims(CLAIMS)} == known
    assert of_estimates(done.results).keys() <= known


@pytest.mark.parametrize("claim", load_claims(CLAIMS), ids=lambda claim: claim.id)
def test_claims_are_short_and_their_sentences_hold_for_any_figure(claim):
    assert len(claim.text.split()) <= 15
    for value in (None, float("nan"), 0.25, ["9.9", "10.0"], {"median": 0.5, "low": 0.25, "high": 1.0}):
        for template in (claim.holds, claim.fails):
            (judged,) = [each for each in judge_all(CLAIMS, {}, preset="", config={}) if each.claim.id == claim.id]
            filled = type(judged)(claim=claim, measured=value, verdict="fails", null_measured=value).sentence
            assert "{" not in filled, template
    assert claim.fails


def test_published_figures_stand_in_claims_alone():
    figures = {"3.5519", "3.56", "0.993", "0.753", "0.979", "0.195", "0.968", "0.962", "0.992"}
    for path in CLAIMS.parent.rglob("*.py"):
        assert not [figure for figure in figures if figure in path.read_text(encoding="utf-8")], path


def test_networks_that_learned_nothing_are_named_and_those_that_did_are_not(done):
    assert opening(done.results, least=0.0) == [NOTHING_LEARNED, ONE_NETWORK]
    rows = [{**row, "accuracy": {"median": 0.9}, "by_chance": {"median": 0.1}} for row in done.results["behaviours"]]
    rows = [{**row, "networks": 3} for row in rows]
    assert opening({"behaviours": rows}, least=0.0) == []
    assert len(opening({"behaviours": rows}, least=0.8)) == 1
    half = [{**rows[0], "accuracy": {"median": 0.1}}, *rows[1:]]
    (sentence,) = opening({"behaviours": half}, least=0.0)
    assert sentence.endswith(f"machinery: {rows[0]['behaviour']}.")


def test_tables_of_networks_that_learned_nothing_are_not_printed(done):
    assert [each.name for each in done.figures if each.essential] == ["behaviours"]
    assert len(done.figures) > 5


def test_a_map_shows_both_directions_beside_the_words(done, config):
    figure = next(each for each in done.figures if each.name == "ioi-z")
    z = np.asarray(figure.data["z"])
    assert z.shape == (2, 2 * config.network.n_heads, len(figure.data["x_names"]))
    assert figure.data["x_names"][1] == "1 When"


def test_a_network_analysed_again_gives_the_same_tables(done, config):
    again = tables([analyse(config, str(done.path / "networks" / "seed-0"))])
    for name, rows in again.items():
        assert json.loads(json_bytes({"rows": rows}))["rows"] == done.results[name], name


def test_what_was_not_learned_by_any_network_has_no_figure(done):
    results = copy.deepcopy(done.results)
    results["estimates_beside_exact_effects"] = []
    assert {each.value for each in of_estimates(results).values()} == {None}
