"""A run from text to judged claims: machinery, at a size at which nothing is learned."""

import dataclasses
import json

import pytest
import torch

from micrographia.core.claims import judge_all, load_claims
from micrographia.core.config import with_fields
from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.errors import BadConfig, Interrupted, PickleRefused, UserError
from micrographia.core.events import Progress
from micrographia.core.runtime import generator
from micrographia.core.small.trained import load_trained
from micrographia.core.store import load_run, verify
from micrographia.core.stream.batches import Activations
from micrographia.labs.dictionary.config import PRESETS, paper, preset_of, quick
from micrographia.labs.dictionary.measure import CLAIMS
from micrographia.labs.dictionary.recipes import (
    at_neurons,
    blind_batches,
    blind_to,
    first_recipes,
    later_recipes,
    published_names,
)
from micrographia.labs.dictionary.run import run

MEASURE = {"held_out": 1_200, "loss_tokens": 128, "threads": 1}
pytestmark = pytest.mark.usefixtures("unchecked")


def test_a_finished_run_holds_what_a_reader_needs(done):
    assert done.status == "finished"
    assert {"dictionaries", "neuron_sparsity", "rare_latents", "between", "latents", "course"} <= set(done.results)
    assert {each.kind for each in done.figures} >= {"table", "lines", "bars", "heatmap", "histogram", "scatter"}
    assert verify(done.path) == []
    assert [row["name"] for row in done.results["dictionaries"]][:4] == ["seed 0", "seed 1", "resampled", "jumprelu"]


def test_every_figure_has_a_section_and_names_claims_that_there_are(done):
    known = {claim.id for claim in load_claims(CLAIMS)}
    assert all(each.group for each in done.figures)
    assert {name for each in done.figures for name in each.claims} <= known


def test_every_claim_has_its_measurement_and_no_other(done):
    assert {claim.id for claim in load_claims(CLAIMS)} == set(done.results["measured"])
    assert {judged.verdict for judged in done.claims} == {"not run"}  # a size that is no preset's


def test_the_language_model_opens_as_a_model_with_its_tokenizer(done, made_up):
    model = load_trained(done.path / "model")
    ids = model.to_tokens(made_up.read_text()[:80])
    assert "".join(model.to_str_tokens(ids[0, 1:])) == made_up.read_text()[:80]


def test_the_dictionaries_can_be_loaded_by_any_tool_that_reads_saelens(done):
    found = {path.name: Dictionary.load(path) for path in (done.path / "dictionaries" / "saelens").iterdir()}
    assert {"seed-0", "seed-1", "resampled", "jumprelu"} <= set(found)
    assert all(str(each.about.site) == "L0.neurons" and each.d_in == 16 for each in found.values())


def test_the_dictionaries_are_looked_at_on_the_way(done):
    seen = [(row["step"], row["name"]) for row in done.results["course"]]
    assert seen[:6] == [(step, name) for step in (4, 8) for name in ("resampled", "seed 0", "seed 1")]


@pytest.mark.parametrize("stage", ["train the language model", "train seed 0, seed 1, resampled", "train jumprelu"])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(done, config, tmp_path, stage, monkeypatch):
    import os
    import signal

    def stop(event):
        if isinstance(event, Progress) and event.stage == stage and event.done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(config, out=tmp_path / "r", watch=stop)
    assert load_run(tmp_path / "r").status == "interrupted"
    again = run(config, out=tmp_path / "r", resume=True)
    assert again.results == done.results


def test_a_finished_run_is_not_done_again(done, config):
    before = {path: path.stat().st_mtime_ns for path in done.path.rglob("*") if path.is_file()}
    assert run(config, out=done.path, resume=True).results == done.results
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_published_autoencoders_of_a_given_model_are_measured_and_nothing_is_trained(done, config, tmp_path):
    draw = generator(0)
    for run_name in ("25", "47"):
        shapes = {"W_enc": (16, 40), "W_dec": (40, 16), "b_enc": (40,), "b_dec": (16,)}
        torch.save(
            {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}, tmp_path / f"{run_name}.pt"
        )
        (tmp_path / f"{run_name}_cfg.json").write_text(json.dumps({"model_name": "gelu-1l", "l1_coeff": 3e-4}))
    given = {"model": str(done.path / "model"), "published": str(tmp_path), **MEASURE, "n_ctx": config.n_ctx}
    given = with_fields(quick(), text=config.text, **given)
    with pytest.raises(PickleRefused, match="allow"):
        run(given, out=tmp_path / "refused")
    found = run(dataclasses.replace(given, allow_pickle=True), out=tmp_path / "r")
    assert [row["name"] for row in found.results["dictionaries"]] == ["run 25", "run 47"]
    assert found.results["dictionaries"][0]["latents"] == 40
    assert found.results["measured"]["resampling-helps"]["value"] is None
    assert not (tmp_path / "r" / "dictionaries").exists()


def test_too_little_text_is_refused_with_what_there_is(config, tmp_path):
    with pytest.raises(UserError, match="hold 90,000 tokens out"):
        run(with_fields(config, held_out=90_000), out=tmp_path / "r")


def test_contradictory_configs_are_refused():
    for fields, says in (
        ({"n_layers": 2}, "n_layers must be 1"),
        ({"published": "x"}, "need their model"),
        ({"loss_tokens": 10**7}, "loss_tokens"),
        ({"tokens": 10}, "tokens must exceed"),
        ({"n_vocab": 256}, "n_vocab"),
        ({"moments": 10**6}, "moments"),
        ({"model": "x", "d_mlp": 8}, "leave out d_mlp"),
        ({"model": "x", "published": "y", "l1": 0.5}, "leave out l1"),
    ):
        with pytest.raises(BadConfig, match=says):
            with_fields(quick(), **fields)


def test_presets_are_known_by_their_choices():
    assert {name: preset_of(make()) for name, make in PRESETS.items()} == {name: name for name in PRESETS}
    assert preset_of(with_fields(quick(), seed=3)) == "quick"
    assert preset_of(with_fields(quick(), text="book.txt")) == "custom"
    assert paper().published


@pytest.mark.parametrize("claim", load_claims(CLAIMS), ids=lambda claim: claim.id)
def test_the_sentences_of_claims_hold_for_any_figure(claim):
    for value in (None, float("nan"), 0.25, {"median": 0.5, "low": 0.25, "high": 1.0}):
        (judged,) = [each for each in judge_all(CLAIMS, {}, preset="", config={}) if each.claim.id == claim.id]
        for verdict in ("holds", "fails"):
            sentence = type(judged)(claim=claim, measured=value, verdict=verdict, null_measured=value).sentence
            assert "{" not in sentence
    assert claim.fails


def test_published_figures_stand_in_claims_alone():
    figures = {"0.92", "92 %", "92%"}
    for path in CLAIMS.parent.rglob("*.py"):
        assert not [figure for figure in figures if figure in path.read_text(encoding="utf-8")], path


def test_recipes_differ_in_what_they_say(config):
    first = first_recipes(config, 32)
    assert list(first)[:2] == published_names(config)
    one, other, resampled = first.values()
    assert dataclasses.replace(other, seed=one.seed) == one
    assert resampled.revival == "resample"
    assert resampled.revive_at == (1, 2, 3, 4)
    (jump,) = later_recipes(config, 32, 7.0).values()
    assert (jump.kind, jump.l0) == ("jumprelu", 7.0)


def test_a_dictionary_that_is_blind_to_a_direction_gives_what_it_gave_of_projected_inputs():
    draw = generator(0)
    shapes = {"W_enc": (6, 9), "W_dec": (9, 6), "b_enc": (9,), "b_dec": (6,)}
    weights = DictionaryWeights(**{name: torch.randn(shape, generator=draw) for name, shape in shapes.items()})
    dictionary = Dictionary(weights, Form(subtract_b_dec=False))
    x, direction = torch.randn(5, 6, generator=draw), torch.randn(6, generator=draw)
    direction = direction / direction.norm()
    projected, target = blind_batches(lambda step: Activations(x), direction)(0)
    torch.testing.assert_close(projected @ direction, torch.zeros(5), atol=1e-6, rtol=0)
    assert target is x
    blind = at_neurons(blind_to(dictionary, direction))
    torch.testing.assert_close(blind.encode(x), dictionary.encode(projected))
    torch.testing.assert_close(blind.weights.W_enc.T @ direction, torch.zeros(9), atol=1e-6, rtol=0)
    assert str(blind.about.site) == "L0.neurons"
