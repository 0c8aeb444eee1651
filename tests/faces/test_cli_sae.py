"""The commands about dictionaries as files: what `sae inspect` prints, and what `sae convert` writes."""

import json
import re
from dataclasses import replace

import pytest
import torch

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.save import WRITTEN
from micrographia.core.dictionaries.suite import SuiteMember, write_suite
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.faces.cli.main import main
from micrographia.faces.cli.options import field_docs
from micrographia.faces.cli.sae_files import Conversion


@pytest.fixture
def folder(tmp_path):
    g = generator(0)
    weights = DictionaryWeights(
        W_enc=torch.randn(6, 20, generator=g), W_dec=torch.randn(20, 6, generator=g), b_enc=torch.zeros(20),
        b_dec=torch.randn(6, generator=g),
    )  # fmt: skip
    Dictionary(weights, Form(activation="topk", k=3)).save(tmp_path / "one")
    return tmp_path / "one"


def test_inspect_says_what_a_folder_holds(folder, capsys):
    assert main(["sae", "inspect", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "saelens" in told
    assert "topk" in told
    assert main(["sae", "inspect", str(folder), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["dictionaries"]
    assert (row["format"], row["k"], row["latents"]) == ("saelens", 3, 20)


def test_convert_writes_the_same_latents_for_another_tool(folder, tmp_path, capsys):
    assert main(["sae", "convert", str(folder), "--to", "sparsify", "--out", str(tmp_path / "two")]) == 0
    assert "Written as sparsify" in capsys.readouterr().out
    x = torch.randn(5, 6, generator=generator(1))
    torch.testing.assert_close(Dictionary.load(tmp_path / "two").encode(x), Dictionary.load(folder).encode(x))


def test_a_folder_of_many_is_listed_up_to_forty(folder, tmp_path, capsys):
    one = Dictionary.load(folder)
    for i in range(42):
        one.save(tmp_path / "many" / f"seed_{i}")
    assert main(["sae", "inspect", str(tmp_path / "many")]) == 0
    assert "... and 2 more; --json prints all." in capsys.readouterr().out


def test_what_cannot_be_done_is_said(folder, tmp_path, capsys):
    assert main(["sae", "inspect", str(tmp_path / "nothing")]) == 1
    assert main(["sae", "convert", str(folder), "--to", "gemma_scope", "--out", str(tmp_path / "x")]) == 1
    assert main(["sae", "convert", str(folder), "--to", "no_such_tool", "--out", str(tmp_path / "y")]) == 1
    assert main(["sae"]) == 2
    told = capsys.readouterr().err
    assert "JumpReLU and ReLU dictionaries; this one is topk. Formats that hold it: saelens, sparsify, dic" in told
    assert "sae needs a second word" in told
    assert "Traceback" not in told
    assert not (tmp_path / "x").exists()


def test_help_lists_every_format_that_is_written():
    assert all(re.search(rf"\b{format}\b", field_docs(Conversion)["to"]) for format in WRITTEN)


def test_convert_takes_one_site_of_a_suite(folder, tmp_path, capsys):
    one = Dictionary.load(folder)
    placed = [replace(one, about=replace(one.about, site=Site.parse(place))) for place in ("L1.z", "L1.mlp_out")]
    write_suite(tmp_path / "suite", [SuiteMember(each, l0=3) for each in placed])
    words = ["sae", "convert", str(tmp_path / "suite"), "--to", "saelens", "--layer", "1", "--out"]
    assert main([*words, str(tmp_path / "a")]) == 1
    assert "L1.mlp_out, L1.z. Give the site" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "b"), "--site", "z"]) == 0
    assert str(Dictionary.load(tmp_path / "b").about.site) == "L1.z"


def test_help_of_the_group_lists_its_commands_and_that_of_eval_its_path(capsys):
    assert main(["sae", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"sae {name} " in told for name in ("train", "eval", "inspect", "convert"))
    assert main(["sae", "eval", "--help"]) == 0
    assert "sae eval PATH" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert main(["nothing", "--help"]) == 2
