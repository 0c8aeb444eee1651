"""The planted lab: what is measured of rows of findings, and its run on one circuit. The laws test every finding."""

import pytest

from micrographia.core.claims import load_claims
from micrographia.labs.planted import measure
from micrographia.labs.planted import run as room
from micrographia.labs.planted.config import PRESETS, Config, preset_of
from micrographia.labs.planted.found import chain


def row(circuit: str, method: str, misses: str, theory: str = "nothing", mode: str = "denoise"):
    return {"circuit": circuit, "mode": mode, "method": method, "misses": misses, "theory_says": theory, "area": 1.0}


ROWS = [
    row("chain", "atp", "nothing"),
    row("saturated", "atp", "keys, pointer, query", "keys, pointer, query"),
    row("saturated", "atp-qk", "pointer", "pointer"),
    row("cancelling", "atp", "head", "nothing", "noise"),
]


def test_a_case_is_right_when_exactly_the_predicted_roles_are_missed():
    found = measure.measures(ROWS)["planted-circuits-as-theory-says"]
    assert (found.value, found.null) == (3 / 4, 1 / 4)


def test_a_repair_counts_as_one_only_where_it_finds_what_was_missed():
    assert len(measure.measures(ROWS)["two-false-negatives"].value) == 4
    worse = [*ROWS[:2], row("saturated", "atp-qk", "query", "pointer"), row("cancelling", "atp-star", "head")]
    assert measure.measures(worse)["two-false-negatives"].value == ["atp misses saturated attention"]


def test_every_claim_has_its_measurement_and_no_other():
    assert [claim.id for claim in load_claims(measure.CLAIMS)] == list(measure.measures(ROWS))


def test_what_theory_does_not_predict_is_marked():
    (figure,) = room.of_findings(ROWS)
    cells = {(circuit, mode): rest for circuit, mode, *rest in figure.data["rows"]}
    assert cells["cancelling", "noise"] == ["head *", None]
    assert cells["saturated", "denoise"] == ["keys, pointer, query", "pointer"]


def test_all_presets_are_one():
    assert {preset_of(make()) for make in PRESETS.values()} == {"quick"} == {preset_of(Config(seed=3))}


@pytest.mark.usefixtures("unchecked")
def test_a_run_of_one_circuit_is_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "PLANTED", {"chain": chain})
    done = room.run(Config(), out=tmp_path / "run")
    assert done.status == "finished"
    assert len(done.results["planted_circuits"]) == 12
    verdicts = {judged.claim.id: judged.verdict for judged in done.claims}
    assert verdicts == {"planted-circuits-as-theory-says": "holds", "two-false-negatives": "fails"}
