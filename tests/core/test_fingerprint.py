"""The fingerprint of a model's weights: the same for the same bytes wherever they lie, another for others."""

import shutil

from micrographia.core import fingerprint
from micrographia.core.fingerprint import weights_of


def test_the_same_weights_have_one_fingerprint_and_others_another(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE", 1000)
    monkeypatch.setattr(fingerprint, "PIECE", 100)
    here = tmp_path / "model"
    here.mkdir()
    (here / "config.json").write_text("{}")
    for size in (500, 50_000):  # read whole, and in pieces
        (here / "a.safetensors").write_bytes(bytes(size))
        first = weights_of(str(here))
        assert weights_of(str(shutil.copytree(here, tmp_path / f"copy {size}"))) == first
        (here / "config.json").write_text(f"{size}")
        assert weights_of(str(here)) == first
        (here / "a.safetensors").write_bytes(b"\1" * size)
        assert weights_of(str(here)) != first
        assert weights_of(str(here / "a.safetensors")) is not None


def test_what_is_not_on_disk_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path))
    assert weights_of("gpt2") is None
    assert weights_of(str(tmp_path)) is None
