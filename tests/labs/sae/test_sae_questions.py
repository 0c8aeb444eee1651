"""Training and evaluating dictionaries as a user asks for it, on a miniature GPT-2."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from micrographia.core.config import Target
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.suite import SuiteMember, write_suite
from micrographia.core.errors import BadConfig, UnknownDictionary, UnknownSite, UserError
from micrographia.core.load import load_any
from micrographia.core.sites import Site
from micrographia.core.store import verify
from micrographia.labs.sae.config import Evaluate, TextSource, Train, read_asked, stored
from micrographia.labs.sae.direct import train_dictionary
from micrographia.labs.sae.latents import in_a_row
from micrographia.labs.sae.run import run
from micrographia.methods.dictionaries.training.presets import PRESETS
from micrographia.methods.dictionaries.training.recipe import Recipe
from miniature import WORDS, save_gpt2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("model") / "gpt2")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    draw = random.Random(0)
    place = tmp_path_factory.mktemp("text") / "text.txt"
    place.write_text(" ".join(draw.choices(WORDS[2:], k=2500)))
    return place


@pytest.fixture(scope="module")
def asked(folder: Path, text: Path) -> Train:
    return Train(
        target=Target(model=str(folder), threads=1, device="cpu"), reading=TextSource(text=str(text), context=12),
        site="L0.resid_post", kind="batchtopk", width=40, l0="4", tokens=1280, batch=64, held_out=400, buffer=1,
        checkpoint_every=5,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(asked: Train, tmp_path_factory):
    return run(asked, out=tmp_path_factory.mktemp("runs") / "trained")


def test_a_training_leaves_a_dictionary_that_other_tools_open(trained, asked):
    assert trained.status == "finished"
    assert not verify(trained.path)
    place = trained.path / "dictionaries" / "L0.resid_post"
    assert sorted(each.name for each in place.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    one = Dictionary.load(trained.path)
    assert (one.n_latents, one.d_in, str(one.about.site)) == (40, 24, "L0.resid_post")
    (row,) = trained.results["dictionaries"].values()
    assert 2 < row["metrics"]["l0"] < 7
    assert row["metrics"]["fvu"] < 0.8
    assert trained.results["text"]["rows"] > 100
    assert "latents are active at a token" in trained.summary[1]


def test_a_training_that_was_stopped_goes_on_bit_for_bit(trained, asked, tmp_path, monkeypatch):
    from micrographia.methods.dictionaries.training import train as training

    class Stop(Exception):
        pass

    def at_12(*arguments, **named):
        if arguments[0][0].state.step == 12:
            raise Stop
        return step(*arguments, **named)

    step = training._step
    with monkeypatch.context() as patch:
        patch.setattr(training, "_step", at_12)
        with pytest.raises(Stop):
            run(asked, out=tmp_path / "again")
    found = run(asked, out=tmp_path / "again", resume=True)
    left_alone, gone_on = Dictionary.load(trained.path), Dictionary.load(found.path)
    assert torch.equal(left_alone.weights.W_dec, gone_on.weights.W_dec)


def test_several_sites_amounts_and_seeds_train_side_by_side(asked, tmp_path):
    several = replace(asked, site="L0.resid_post, L1.resid_post", l0="2, 4", seeds=2, tokens=512, held_out=150)
    found = run(several, out=tmp_path / "run")
    names = sorted(found.results["dictionaries"])
    assert len(names) == 8
    assert names[0] == "L0.resid_post-l0_2-seed0"
    weights = [Dictionary.load(found.path / "dictionaries" / name).weights.W_dec for name in names]
    assert len({float(each.sum()) for each in weights}) == 8


@pytest.mark.parametrize(
    "choice", [{"kind": "topk"}, {"kind": "jumprelu"}, {"kind": "matryoshka"}, {"kind": "relu", "sparsity": "0.05"}]
)
def test_every_kind_can_be_asked_for(choice, asked, tmp_path):
    plain = {"l0": "50"} if choice["kind"] == "relu" else {}
    found = run(replace(asked, **{**plain, **choice}, tokens=512, held_out=150), out=tmp_path / "run")
    assert Dictionary.load(found.path).n_latents == 40


@pytest.mark.parametrize("name", PRESETS)
def test_every_published_recipe_can_be_asked_for(name, asked, tmp_path):
    plain = replace(asked, kind="batchtopk", l0="50", width=64, recipe=name, tokens=512, held_out=150, latents=0)
    found = run(plain, out=tmp_path / "run")
    assert Dictionary.load(found.path).n_latents == 64
    assert name in found.summary[0]
    recipe = found.results["recipes"]["L0.resid_post"]
    assert (recipe["kind"], recipe["steps"]) == (PRESETS[name]().kind, 8)


def test_a_transcoder_is_trained_from_one_site_to_another(asked, tmp_path):
    found = run(
        replace(asked, site="L0.mlp_norm", writes="L0.mlp_out", kind="jumprelu", tokens=512, held_out=150),
        out=tmp_path / "r",
    )
    one = Dictionary.load(found.path)
    assert (str(one.about.site), str(one.about.target)) == ("L0.mlp_norm", "L0.mlp_out")


def test_what_was_trained_can_be_evaluated(trained, asked, tmp_path):
    question = Evaluate(target=asked.target, reading=asked.reading, dictionary=str(trained.path), tokens=300)
    found = run(question, out=tmp_path / "eval")
    (row,) = found.results["dictionaries"].values()
    assert row["clean_loss"] > 0
    assert {each["name"] for each in row["comparison"]} >= {"dictionary", "zero ablation", "mean ablation"}


def test_the_site_chooses_among_a_suite_before_the_model_is_loaded(trained, asked, tmp_path, monkeypatch):
    one = Dictionary.load(trained.path)
    placed = [replace(one, about=replace(one.about, site=Site.parse(place))) for place in ("L0.z", "L0.resid_post")]
    write_suite(tmp_path / "suite", [SuiteMember(each, l0=4) for each in placed])
    place = str(tmp_path / "suite")
    question = Evaluate(
        target=asked.target, reading=asked.reading, dictionary=place, tokens=300, loss_tokens=0, latents=0
    )
    assert "at L0.resid_post" in run(replace(question, site="resid_post"), out=tmp_path / "eval").summary[0]
    with monkeypatch.context() as patch:
        patch.setattr("micrographia.labs.sae.run.load_any", lambda *_, **__: pytest.fail("loaded"))
        with pytest.raises(UnknownDictionary, match=r"L0\.resid_post, L0\.z"):
            run(question, out=tmp_path / "refused")


def test_an_evaluation_tells_where_and_on_which_text_and_what_fewer_bits_cost(trained, asked, text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(" ".join(WORDS[2:4] * 200))
    question = Evaluate(
        target=asked.target, reading=asked.reading, dictionary=str(trained.path), tokens=300, loss_tokens=200,
        latents=0, beside=str(other),
    )  # fmt: skip
    found = run(question, out=tmp_path / "eval").results["in_depth"]
    assert [row["name"] for row in found["by_text"]] == [str(text), str(other)]
    assert [row["name"] for row in found["by_position"]] == ["1", "2 to 3", "4 to 7", "8 to 11"]
    assert [row["name"] for row in found["by_precision"]] == ["float32", "bfloat16", "int8"]
    assert 0 < found["evenness"] <= 1
    with pytest.raises(BadConfig, match="beside"):
        replace(question, loss_tokens=0)


def test_an_evaluation_on_a_folder_tells_its_files_apart(trained, asked, tmp_path):
    place = tmp_path / "texts"
    for name, seed in (("a.txt", 1), ("b.txt", 2)):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(" ".join(random.Random(seed).choices(WORDS[2:], k=130)))
    question = Evaluate(
        target=asked.target, reading=replace(asked.reading, text=str(place)), dictionary=str(trained.path), tokens=240,
        loss_tokens=240, latents=0,
    )  # fmt: skip
    found = run(question, out=tmp_path / "eval").results["in_depth"]["by_source"]
    assert {Path(row["name"]).name for row in found} == {"a.txt", "b.txt"}
    assert sum(row["tokens"] for row in found) > 200


def test_a_question_survives_being_stored(asked):
    assert read_asked(stored(asked)) == asked


def test_bad_choices_are_refused_before_a_folder_is_made(asked, tmp_path, text):
    with pytest.raises(UnknownSite):
        run(replace(asked, site="L9.resid_post"), out=tmp_path / "a")
    with pytest.raises(BadConfig, match="held out"):
        run(replace(asked, held_out=100_000), out=tmp_path / "b")
    with pytest.raises(UserError, match="reads 24"):
        run(replace(asked, reading=replace(asked.reading, context=64)), out=tmp_path / "c")
    with pytest.raises(BadConfig, match="whole number"):
        run(replace(asked, l0="2.5"), out=tmp_path / "d")
    with pytest.raises(BadConfig, match="recipe"):
        run(replace(asked, recipe="none-such"), out=tmp_path / "e")
    assert not list(tmp_path.iterdir())
    for wrong in ({"kind": "relu"}, {"sparsity": "1"}, {"l0": "many"}, {"tokens": 0}, {"kind": "relu", "l0": "3"}):
        with pytest.raises(BadConfig):
            replace(asked, **wrong)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"kind": "foo"}, "no kind 'foo'.*relu, gated, topk, batchtopk, matryoshka, jumprelu"),
        ({"kind": "gated", "l0": 3}, "gated needs sparsity"),
        ({"kind": "gated", "l0": 3, "sparsity": 0.1}, "l0 was set"),
        ({"kind": "topk", "sparsity": 0.1}, "sparsity was set"),
        ({"recipe": PRESETS["april_2024"](), "l0": 3}, "a recipe says so itself"),
        ({"recipe": PRESETS["april_2024"](), "kind": "topk"}, "kind was set"),
    ],
)
def test_what_says_how_sparse_obeys_the_same_rules_from_python(folder, choice, says):
    tokens = torch.zeros(4, 12, dtype=torch.long)
    with pytest.raises(BadConfig, match=says):
        train_dictionary(load_any(folder), "L0.resid_post", tokens, **choice)


def test_a_recipe_given_from_python_keeps_its_kind(folder):
    tokens = torch.randint(2, 18, (40, 12), generator=torch.Generator().manual_seed(0))
    recipe = Recipe(kind="relu", sparsity=0.05)
    one = train_dictionary(
        load_any(folder), "L0.resid_post", tokens, recipe=recipe, width=40, steps=3, batch=32, buffer_bytes=2**20
    )
    assert one.form.activation == "relu"


def test_passages_of_a_report_stand_in_one_row_with_the_peak_in_view():
    short = in_a_row([["a"] * 25, [" bc"] * 25], 16)
    assert (short.start, short.stop) == (2, 23)
    wide = in_a_row([["a"] * 15 + ["x" * 31, " " * 50] + ["a"] * 8], 16)
    assert (wide.start, wide.stop) == (16, 25)
    assert in_a_row([["a", "x" * 200, "b"]], 1) == slice(1, 2)
