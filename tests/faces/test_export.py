"""PNG and SVG: drawn where kaleido and a browser are, else an error that names both."""

import sys
from types import SimpleNamespace

import pytest

from micrographia.core.errors import MissingExtra
from micrographia.faces.figures import export as module
from micrographia.faces.figures.export import find_chrome, pictures


@pytest.mark.parametrize(("kaleido", "chrome"), [(False, False), (False, True), (True, False)])
def test_without_kaleido_or_a_browser_the_error_names_both(run, monkeypatch, kaleido, chrome):
    monkeypatch.setattr(module.util, "find_spec", lambda name: object() if kaleido else None)
    monkeypatch.setattr(module, "find_chrome", lambda: "/usr/bin/chrome" if chrome else None)
    with pytest.raises(MissingExtra, match=r"kaleido and Chrome or Chromium.*micrographia\[png\]"):
        next(pictures(run.figures, "png"))


def test_a_browser_that_is_named_comes_first(tmp_path, monkeypatch):
    named = tmp_path / "my-chrome"
    named.write_text("", encoding="utf-8")
    named.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(named))
    assert find_chrome() == str(named)


def test_one_browser_draws_all_pictures_and_is_closed_again(run, monkeypatch):
    calls = []
    kaleido = SimpleNamespace(
        start_sync_server=lambda **choices: calls.append("start"),
        stop_sync_server=lambda **choices: calls.append("stop"),
        calc_fig_sync=lambda figure, opts: f"{figure['layout']['title']['text']} {opts['format']}".encode(),
    )
    monkeypatch.setitem(sys.modules, "kaleido", kaleido)
    monkeypatch.setattr(module, "refuse_without_browser", lambda: None)
    found = dict(pictures(run.figures, "svg"))
    assert set(found) == {figure.name for figure in run.figures if figure.kind not in ("table", "text", "widget")}
    assert found["loss"] == b"Loss over training svg"
    assert calls == ["start", "stop"]
