"""`micrographia browse` on what it cannot show: each time a sentence, before anything is served."""

import json
import shutil
import sys

import pytest
import torch

from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.events import silent
from micrographia.core.fingerprint import weights_of
from micrographia.core.runtime import generator, provenance
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import RunFolder
from micrographia.core.tokens import ids_of
from micrographia.faces.browser import opening, serving
from micrographia.faces.cli.main import main
from micrographia.methods.dictionaries.features.build import build_bundle
from miniature import CLEAN, CORRUPT, WORDS, save_gpt2


def made(d_in: int, n: int) -> Dictionary:
    drawn = torch.randn(n, d_in, generator=generator(0))
    weights = DictionaryWeights(W_enc=drawn.T, W_dec=drawn, b_enc=torch.zeros(n), b_dec=torch.zeros(d_in))
    return Dictionary(weights, Form(activation="topk", k=3), About(model="tiny", site=Site("resid_post", 1)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of width 24, two dictionaries of it, and their bundles in folders of their own."""
    from micrographia.core.load import load_any

    root = tmp_path_factory.mktemp("browsed")
    model = load_any(save_gpt2(root / "gpt2"))
    rows = ids_of(model.to_tokens([CLEAN, CORRUPT] * 4))
    for name, n in (("a", 32), ("b", 48)):
        made(24, n).save(root / "suite" / name / "weights")
        own = Dictionary.load(root / "suite" / name / "weights")
        build_bundle(own, model, rows, None, root / "suite" / name / "features", generator=generator(0))
    return root


@pytest.fixture
def served(monkeypatch):
    """What would be served, instead of serving it."""
    seen = []
    monkeypatch.setattr(serving, "serve", lambda app, at, show: seen.append((app, at.getsockname(), show)))
    return seen


def failing(capsys, *words, code=1) -> str:
    assert main(["browse", *map(str, words)]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert "should not have happened" not in told.err
    return told.err


def test_all_bundles_below_a_folder_are_served_with_the_model(folder, served, capsys):
    words = ["browse", str(folder / "suite"), "--model", str(folder / "gpt2"), "--no-open", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    ((_, (host, port), show),) = served
    assert told["address"].startswith(f"http://{host}:{port}/?token=")
    assert told["bundles"] == told["live"] == ["a-features", "b-features"]
    assert host == "127.0.0.1"
    assert show is None


def test_the_pages_are_written_as_files_without_the_extra(folder, tmp_path, capsys, monkeypatch):
    for name in ("fastapi", "uvicorn", "starlette"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["browse", str(folder / "suite"), "--export", str(tmp_path / "pages")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "pages" / "index.html")
    assert (tmp_path / "pages" / "data" / "a-features" / "latents-00001.js").is_file()


def test_an_export_onto_a_file_is_told(folder, tmp_path, capsys):
    (tmp_path / "pages").write_text("mine")
    assert "which is a file" in failing(capsys, folder / "suite", "--export", tmp_path / "pages")
    assert (tmp_path / "pages").read_text() == "mine"


def test_without_the_extra_the_error_names_it(folder, capsys, monkeypatch):
    for name in [each for each in sys.modules if each.startswith("micrographia.faces.browser")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "pip install 'micrographia[web]'" in failing(capsys, folder / "suite")


def test_a_folder_without_bundles_and_one_that_is_none_are_told(folder, capsys):
    assert "no feature bundle" in failing(capsys, folder / "gpt2")
    assert "no folder and no Run" in failing(capsys, "nosuchrun")
    assert "is no folder" in failing(capsys, folder / "gpt2" / "config.json")


def test_a_bundle_cut_short_is_told(folder, tmp_path, capsys):
    shutil.copytree(folder / "suite" / "a" / "features", tmp_path / "cut")
    pages = tmp_path / "cut" / "pages.parquet"
    pages.write_bytes(pages.read_bytes()[:-10])
    assert "pages.parquet" in failing(capsys, tmp_path)


def test_a_run_that_is_still_written_is_told(tmp_path, capsys):
    about = provenance(0, "cpu", "float32", 1)
    with RunFolder.open(tmp_path / "run", lab="sae", preset="x", config={}, provenance=about, resume=False):
        assert "still writes" in failing(capsys, tmp_path / "run")


def test_a_port_in_use_is_told(folder, served, capsys):
    with serving.listening(0) as at:
        assert "--port" in failing(capsys, folder / "suite", "--port", at.getsockname()[1])
    assert served == []


def test_a_model_that_does_not_fit_is_told(folder, served, tmp_path, capsys):
    from transformers import GPT2Config, GPT2LMHeadModel

    for name, shape in (("narrow", {"n_embd": 12, "n_layer": 2}), ("flat", {"n_embd": 24, "n_layer": 1})):
        config = GPT2Config(vocab_size=18, n_positions=24, n_head=3, bos_token_id=0, eos_token_id=0, **shape)
        GPT2LMHeadModel(config).save_pretrained(tmp_path / name)
    assert "does not fit" in failing(capsys, folder / "suite", "--model", tmp_path / "narrow")
    assert "L1.resid_post" in failing(capsys, folder / "suite", "--model", tmp_path / "flat")
    assert served == []


def test_a_model_of_another_vocabulary_is_told(folder, served, tmp_path, capsys):
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 24}
    GPT2LMHeadModel(GPT2Config(vocab_size=40, bos_token_id=0, eos_token_id=0, **shape)).save_pretrained(tmp_path / "m")
    assert "knows 40 tokens" in failing(capsys, folder / "suite", "--model", tmp_path / "m")
    assert served == []


@pytest.mark.parametrize("own", [True, False])
def test_a_model_of_other_weights_than_the_runs_is_warned_of(folder, served, tmp_path, capsys, own):
    weights = weights_of(str(folder / "gpt2")) if own else "0" * 16
    about = {**provenance(0, "cpu", "float32", 1), "weights": weights}
    with RunFolder.open(tmp_path / "run", lab="sae", preset="x", config={}, provenance=about, resume=False):
        shutil.copytree(folder / "suite" / "a", tmp_path / "run" / "a")
    assert main(["browse", str(tmp_path / "run"), "--model", str(folder / "gpt2"), "--no-open"]) == 0
    assert len(served) == 1
    assert ("are not those that the bundle" in capsys.readouterr().err) is not own


def test_a_model_that_generates_no_text_is_told_at_the_start(folder, served, capsys, monkeypatch):
    words = ["browse", str(folder / "suite"), "--no-open", "--model", str(folder / "gpt2")]
    assert main(words) == 0
    assert "generates no text" not in capsys.readouterr().out
    sizes = {"d_vocab": len(WORDS), "d_vocab_out": len(WORDS), "d_model": 24, "n_heads": 2, "d_head": 8, "d_mlp": 8}
    arch = Architecture(n_ctx=16, n_layers=2, **sizes)
    mute = Transformer(arch, init_weights(arch, generator(0)))
    monkeypatch.setattr(opening, "load_any", lambda *_, **__: mute)
    assert main(words) == 0
    assert "This model generates no text: its latents are not steered." in capsys.readouterr().out
    live = opening.load_live("mute", folder / "suite", opening.open_bundles(folder / "suite"), silent)
    assert live.about() == {"model": "mute", "bundles": ["a-features", "b-features"], "steers": False}


def test_bundles_without_their_weights_give_no_model(folder, tmp_path, capsys):
    shutil.copytree(folder / "suite" / "a" / "features", tmp_path / "alone")
    assert "no weights" in failing(capsys, tmp_path, "--model", folder / "gpt2")


@pytest.mark.parametrize(
    "words", [["--port", "70000"], ["--port", "-1"], ["--export", "x", "--model", "y"], ["--what"]]
)
def test_wrong_flags_end_with_2(folder, capsys, words):
    failing(capsys, folder / "suite", *words, code=2)
