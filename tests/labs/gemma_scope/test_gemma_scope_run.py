"""A run from text to judged claims: machinery, at a size at which nothing is learned."""

import os
import signal
from pathlib import Path

import pytest
import torch

from micrographia.core.claims import judge_all, load_claims
from micrographia.core.config import with_fields
from micrographia.core.dictionaries.formats.load import load_one
from micrographia.core.dictionaries.suite import Suite
from micrographia.core.errors import BadConfig, Interrupted, UnknownDictionary, UnknownSite, UserError
from micrographia.core.events import Note, Progress
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.trained import load_trained
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import load_run, verify
from micrographia.core.untrained import untrained
from micrographia.labs.gemma_scope.config import PRESETS, preset_of, quick
from micrographia.labs.gemma_scope.measure import CLAIMS
from micrographia.labs.gemma_scope.members import plan_suite, sites_of
from micrographia.labs.gemma_scope.run import run
from miniature import CLEAN, CORRUPT, save_gpt2

pytestmark = pytest.mark.usefixtures("unchecked")
N = 2 * 3 * 2 * 2  # layers, sites, widths, L0s


def test_a_finished_run_holds_what_a_reader_needs(done):
    assert done.status == "finished"
    assert verify(done.path) == []
    assert len(done.results["dictionaries"]) == N
    assert len(done.results["untrained"]) == N / 2  # the narrowest alone
    assert {each.kind for each in done.figures} == {"table", "lines", "scatter", "bars", "histogram"}
    assert [row["name"] for row in done.results["in_depth"]["by_precision"]] == ["float32", "bfloat16", "int8"]
    assert done.results["transferred"] == []


def test_every_figure_has_a_section_and_names_claims_that_there_are(done):
    known = {claim.id for claim in load_claims(CLAIMS)}
    assert all(each.group for each in done.figures)
    assert {name for each in done.figures for name in each.claims} <= known


def test_pictures_open_at_the_first_kind_of_site_name_them_and_have_a_floor(done):
    shown = {each.name: each for each in done.figures}
    kinds = list(dict.fromkeys(row["site"] for row in done.results["dictionaries"]))
    assert {each.frames for each in done.figures if each.frames} == {tuple(kinds[::-1])}
    assert set(shown["untrained-fvu"].data["colour"]) == set(kinds)
    assert not (shown["by-l0-delta-loss"].data["y"] < 1e-3).any()


def test_every_claim_has_its_measurement_and_no_other(done):
    assert {claim.id for claim in load_claims(CLAIMS)} == set(done.results["measured"])
    assert {judged.verdict for judged in done.claims} == {"not run"}  # a size that is no preset's


def test_every_dictionary_has_the_l0_that_was_asked_for(done):
    for row in done.results["dictionaries"]:
        assert row["l0"] == pytest.approx(row["l0_asked"], rel=0.3), row["name"]
        assert row["fvu"] > 0
        assert row["fvu_linear"] >= 0
        assert row["fvu_mean"] == 1


def test_the_suite_is_in_the_run_and_each_of_its_folders_opens_alone(done):
    suite = Suite.load(done.path)
    assert len(suite) == N
    rows = {(row["site"], row["layer"], row["width"], row["l0_asked"]): row for row in done.results["dictionaries"]}
    for row in suite:
        assert rows[row.site, row.layer, row.width, row.asked]["l0"] == row.l0
        assert load_one(Path(suite.where) / row.path).about.site == Site(row.site, row.layer)
    one = suite.get(site="z", layer=1, width=24, l0=3)
    assert one.form.heads
    assert one.about.training["first_token"] == "left out"  # a bundle of it says so


def test_what_it_takes_is_said_before_anything_is_trained(config, tmp_path):
    told = []

    def hear(event):
        if isinstance(event, Note | Progress):
            told.append(str(event) if isinstance(event, Note) else event.stage)

    run(with_fields(config, untrained=False), out=tmp_path / "r", watch=hear)
    (plan,) = [i for i, each in enumerate(told) if "dictionaries at 6 sites" in each]
    assert "2 programs of equal shape on one harvest of 1,024 tokens" in told[plan]
    assert plan < told.index("train program-0")
    assert load_run(tmp_path / "r").results["measured"]["untrained-is-worse"]["value"] is None


@pytest.mark.parametrize("stage", ["train the language model", "train program-0", "train without training: program-0"])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(done, config, tmp_path, stage):
    def stop(event):
        if isinstance(event, Progress) and event.stage == stage and event.done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(config, out=tmp_path / "r", watch=stop)
    assert load_run(tmp_path / "r").status == "interrupted"
    again = run(config, out=tmp_path / "r", resume=True)
    assert again.results == done.results
    for each in (done.path / "suite").rglob("*.safetensors"):
        assert (tmp_path / "r" / each.relative_to(done.path)).read_bytes() == each.read_bytes()


def test_the_loss_is_told_by_source_where_the_text_has_several(done, config, made_up, tmp_path):
    words = made_up.read_text()
    for name, part in (("one.txt", words[: len(words) // 2]), ("two.txt", words[len(words) // 2 :])):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / name).write_text(part)
    small = {"sites": "resid_post", "layers": "0", "widths": "24", "l0s": "3", "untrained": False}
    found = run(with_fields(config, text=str(tmp_path / "texts"), **small), out=tmp_path / "r")
    deep = found.results["in_depth"]
    assert {row["name"] for row in deep["by_source"]} <= {"one.txt", "two.txt"}
    assert sum(row["tokens"] for row in deep["by_source"]) == sum(row["tokens"] for row in deep["by_position"])
    assert "by-source" in {each.name for each in found.figures}
    assert done.results["in_depth"]["by_source"] == []  # of one file


def test_programs_that_fit_no_memory_together_train_apart(config):
    model = toy()
    widths = dict.fromkeys(sites_of(config, model), 16)
    whole = plan_suite(config, model, widths, 100)
    assert [len(each.members) for each in whole.programs] == [N]
    parts = plan_suite(with_fields(config, memory_mb=1), model, widths, 10_000)
    assert len(parts.programs) > 1
    assert parts.members == whole.members
    assert parts.memory_bytes <= 2**20 < whole.memory_bytes
    mixed = plan_suite(config, model, {site: 16 if site.kind == "z" else 8 for site in widths}, 100)
    assert sorted(each.d_in for each in mixed.programs) == [8, 16]


def toy() -> Transformer:
    arch = Architecture(d_vocab=9, d_vocab_out=9, n_ctx=4, n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=16)
    return Transformer(arch, init_weights(arch, generator(0)))


def test_a_model_and_a_suite_that_are_given_are_measured_and_nothing_is_trained(done, config, tmp_path):
    given = {"model": str(done.path / "model"), "published": str(done.path), "n_ctx": config.n_ctx, "threads": 1}
    chosen = {"layers": "1", "widths": "24", "l0s": "3", "held_out": 640, "loss_tokens": 128, "tokens": None}
    found = run(with_fields(PRESETS["given"](), text=config.text, **given, **chosen), out=tmp_path / "r")
    kept = [row for row in done.results["dictionaries"] if (row["layer"], row["width"], row["l0_asked"]) == (1, 24, 3)]
    assert [row["site"] for row in found.results["dictionaries"]] == ["resid_post", "z", "mlp_out"]
    assert len(kept) == len(found.results["dictionaries"])
    assert not (tmp_path / "r" / "suite").exists()
    with pytest.raises(UnknownDictionary, match="widths 24, 40"):
        run(with_fields(quick(), text=config.text, **{**given, **chosen, "widths": "48"}), out=tmp_path / "other")


def test_a_hugging_face_model_is_taken_with_its_null(tmp_path):
    name, text = save_gpt2(tmp_path / "gpt2"), tmp_path / "known.txt"
    text.write_text(f"{CLEAN} then {CORRUPT}. " * 150)
    small = {"dictionary_steps": 4, "activations": 64, "widths": "24", "l0s": "3", "buffer_mb": 1, "n_ctx": 16}
    chosen = {"layers": "0.5", "held_out": 320, "loss_tokens": 64, "threads": 1}
    found = run(with_fields(quick(), model=str(name), text=str(text), **small, **chosen), out=tmp_path / "r")
    assert len(found.results["dictionaries"]) == len(found.results["untrained"]) == 3
    assert {row["layer"] for row in found.results["dictionaries"]} == {1}


def test_an_untrained_model_has_other_matrices_of_the_same_size(done):
    model = load_trained(done.path / "model")
    null = untrained(model, 0)
    assert null.state["embed.W_E"].shape == model.state["embed.W_E"].shape
    assert not torch.allclose(null.state["embed.W_E"], model.state["embed.W_E"])
    assert null.tokenizer is model.tokenizer


def test_contradictory_configs_are_refused(config):
    for fields, says in (
        ({"loss_tokens": 10**7}, "loss_tokens"),
        ({"tokens": 10}, "tokens must exceed"),
        ({"n_vocab": 256}, "n_vocab"),
        ({"model": "x", "d_mlp": 8}, "leave out d_mlp"),
        ({"model": "x", "published": "y", "dictionary_lr": 0.5}, "leave out dictionary_lr"),
        ({"published": "y"}, "needs its model"),
        ({"l0s": "8, 300"}, "least width"),
        ({"l0s": "few"}, "positive numbers"),
        ({"layers": "first"}, "layers must be all"),
        ({"sites": "z, mlp_out, z"}, "must be named once"),
        ({"widths": "256, 256.0"}, "must be named once"),
        ({"l0s": "4, 4"}, "must be named once"),
        ({"sites": "z", "transcoders": True}, "sites must name it"),
        ({"sites": "mlp_out, mlp_norm", "transcoders": True}, "sites must leave it out"),
    ):
        with pytest.raises(BadConfig, match=says):
            with_fields(quick(), **fields)
    with pytest.raises(BadConfig, match=r"a model of 3; it has none called \[7\]"):
        with_fields(quick(), layers="0, 7").suite.chosen_layers(3)
    assert with_fields(quick(), layers="0.25, 0.75").suite.chosen_layers(12) == [3, 9]


def test_a_kind_that_the_model_lacks_is_refused_with_what_there_is(config, tmp_path):
    with pytest.raises(UnknownSite, match=r"L0\.nothing"):
        run(with_fields(config, sites="resid_post, nothing"), out=tmp_path / "r")
    with pytest.raises(UnknownSite, match=r"L0\.pattern, which hold one number for a pair"):
        run(with_fields(config, sites="z, pattern"), out=tmp_path / "s")
    with pytest.raises(UnknownSite, match=r"L0\.mlp_up, L1\.mlp_up\. The sites of this model are resid_pre"):
        run(with_fields(config, sites="mlp_up"), out=tmp_path / "t")
    with pytest.raises(UnknownSite, match=r"read L0\.mlp_norm, L1\.mlp_norm, the input"):
        run(with_fields(config, norm="none", transcoders=True), out=tmp_path / "u")
    assert not any((tmp_path / name / inner).exists() for name in "stu" for inner in ("model", "tokens"))
    with pytest.raises(UnknownSite, match=r"L0\.mlp_up, L1\.mlp_up\. The sites of this model are resid_pre"):
        sites_of(with_fields(config, sites="mlp_up"), toy())


def test_presets_are_known_by_their_choices():
    assert {name: preset_of(make()) for name, make in PRESETS.items()} == {name: name for name in PRESETS}
    assert preset_of(with_fields(quick(), seed=3, transcoders=True)) == "quick"
    assert preset_of(with_fields(PRESETS["given"](), model="gpt2")) == "given"
    assert preset_of(with_fields(quick(), text="book.txt")) == "custom"


@pytest.mark.parametrize("claim", load_claims(CLAIMS), ids=lambda claim: claim.id)
def test_the_sentences_of_claims_hold_for_any_figure(claim):
    for value in (None, float("nan"), 0.25, {"median": 0.5, "low": 0.25, "high": 1.0}):
        (judged,) = [each for each in judge_all(CLAIMS, {}, preset="", config={}) if each.claim.id == claim.id]
        for verdict in ("holds", "fails"):
            sentence = type(judged)(claim=claim, measured=value, verdict=verdict, null_measured=value).sentence
            assert "{" not in sentence
    assert claim.fails


def test_a_suite_is_evaluated_on_a_second_model_of_the_same_tokens(done, config, tmp_path):
    own = str(done.path / "model")
    given = {"model": own, "published": str(done.path), "n_ctx": config.n_ctx, "threads": 1, "transfer": own}
    chosen = {"widths": config.suite.widths, "l0s": config.suite.l0s, "held_out": 640, "loss_tokens": 128}
    there = with_fields(quick(), text=config.text, **given, **chosen)
    found = run(there, out=tmp_path / "r").results
    assert [row["fvu"] for row in found["transferred"]] == [row["fvu"] for row in found["dictionaries"]]
    other = str(save_gpt2(tmp_path / "gpt2"))
    with pytest.raises(UserError, match="tokens"):
        run(with_fields(there, transfer=other, layers="0"), out=tmp_path / "s")
