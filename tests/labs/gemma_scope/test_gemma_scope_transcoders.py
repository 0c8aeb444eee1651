"""Transcoders of a suite: trained on the same batches as the autoencoders of what they write, and held against them."""

from functools import partial

import pytest

from micrographia.core.config import with_fields
from micrographia.core.dictionaries.suite import Suite
from micrographia.core.events import Note
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.small.trained import load_trained
from micrographia.labs.gemma_scope.config import PRESETS
from micrographia.labs.gemma_scope.evaluate import evaluate_suite
from micrographia.labs.gemma_scope.members import WantedDictionary
from micrographia.labs.gemma_scope.run import run
from micrographia.methods.dictionaries.evaluation.evaluate import LINEAR, OURS, evaluate

pytestmark = pytest.mark.usefixtures("unchecked")
SMALL = {
    "sites": "resid_post, mlp_out",
    "widths": "24",
    "l0s": "3, 6",
    "untrained": False,
    "loss_tokens": 320,
    "buffer_mb": 16,
}
READS = {"layer": 1, "width": 24, "l0": 3}


@pytest.fixture(scope="module")
def told() -> list:
    return []


@pytest.fixture(scope="module")
def both(config, run_once, told):
    return run_once(partial(run, watch=told.append), with_fields(config, transcoders=True, **SMALL))


@pytest.fixture(scope="module")
def alone(config, run_once):
    return run_once(run, with_fields(config, **SMALL))


def test_a_transcoder_stands_beside_each_autoencoder_of_the_mlp_from_one_harvest(both, told):
    (plan,) = [each.text for each in told if isinstance(each, Note) and each.text.startswith("Suite:")]
    assert "12 dictionaries at 6 sites, in 2 programs of equal shape on one harvest of" in plan
    rows = both.results["transcoders"]
    assert [row["name"] for row in rows if row["layer"] == 1] == [
        f"L1.mlp_norm -> L1.mlp_out, 24 latents, L0 {l0}" for l0 in (3, 6)
    ]
    assert len(both.results["dictionaries"]) == 8
    shown = {each.name: each for each in both.figures}
    assert len(shown["transcoders"].data["rows"]) == len(shown["transcoders-loss"].data["x"]) == 4


def test_the_autoencoders_are_those_of_a_suite_without_transcoders(both, alone):
    ours, theirs = (Suite.load(each.path).get(site="mlp_out", **READS).weights.named() for each in (both, alone))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert alone.results["transcoders"] == []
    assert not [each for each in alone.figures if each.name.startswith("transcoders")]


def test_the_claim_is_measured_where_there_are_transcoders_alone(both, alone):
    found = [each.results["measured"]["transcoders-cost-more"]["value"] for each in (both, alone)]
    costs = {
        (row["layer"], row["l0_asked"]): row["delta_loss"]
        for row in both.results["dictionaries"]
        if row["site"] == "mlp_out"
    }
    more = [row["delta_loss"] > costs[row["layer"], row["l0_asked"]] for row in both.results["transcoders"]]
    assert found == [sum(more) / 4, None]


def test_a_transcoder_is_read_from_the_suite_and_measured_as_the_method_measures_it(both):
    model, one = load_trained(both.path / "model"), Suite.load(both.path).get(site="mlp_norm", **READS)
    place = Site("mlp_norm", 1), Site("mlp_out", 1)
    assert (one.about.site, one.about.target) == place
    assert not one.form.subtract_b_dec
    rows = _rows(both)
    wanted = WantedDictionary(place[0], 24, 3, place[1])
    (ours,) = evaluate_suite(
        {wanted: one}, model, rows, loss_rows=12, generator=generator(0), stage="", watch=lambda _: None
    )
    table = {row["name"]: row for row in evaluate(one, model, rows=rows, generator=generator(0)).comparison()}
    assert ours.linear is not None
    for found, name in ((ours.fidelity, OURS), (ours.linear, LINEAR)):
        assert found.fvu == pytest.approx(table[name]["fvu"])
        assert found.delta_loss == pytest.approx(table[name]["delta_loss"])
    assert ours.random.fvu < 1  # its gain is fitted to the target, from the means of both sides


def test_a_suite_of_transcoders_that_is_given_is_held_against_what_they_write(both, config, tmp_path):
    given = {"model": str(both.path / "model"), "published": str(both.path), "n_ctx": config.n_ctx, "threads": 1}
    chosen = {"layers": "1", "sites": "mlp_norm, mlp_out", "widths": "24", "l0s": "3"}
    short = {"held_out": 640, "loss_tokens": 128, "tokens": None}
    found = run(with_fields(PRESETS["given"](), text=config.text, **given, **chosen, **short), out=tmp_path / "r")
    (row,) = found.results["transcoders"]
    (trained,) = [each for each in both.results["transcoders"] if (each["layer"], each["l0_asked"]) == (1, 3)]
    assert row["name"].startswith("L1.mlp_norm -> L1.mlp_out, 24 latents, L0 ")
    assert row["fvu"] == pytest.approx(trained["fvu"], abs=0.1), "as an autoencoder of its input it would be above 1"
    (wrong,) = evaluate_suite(
        {WantedDictionary(Site("mlp_norm", 1), 24, 3): Suite.load(both.path).get(site="mlp_norm", **READS)},
        load_trained(both.path / "model"),
        _rows(both),
        loss_rows=12,
        generator=generator(0),
        stage="",
        watch=lambda _: None,
    )
    assert wrong.fidelity.fvu > row["fvu"] + 0.1


def _rows(both):
    tokens = load_trained(both.path / "model").to_tokens("def f(x):\n    return x + 1\n" * 40)
    return tokens.reshape(-1)[: 16 * 12].reshape(12, 16)
