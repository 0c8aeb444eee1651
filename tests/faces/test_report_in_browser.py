"""The report in a real browser: its script unpacks, draws every picture and starts the widgets."""

import re
import subprocess
from html import escape

import pytest
from fake import WIDGETS

from micrographia.faces.figures.export import find_chrome
from micrographia.faces.report.page import PLOTTED, render, render_figures

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=20000",
)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chrome() is None, reason="no Chrome or Chromium: the report was NOT opened"),
]


@pytest.fixture(scope="module")
def opened(run, tmp_path_factory):
    """The page as it stands after its scripts have run."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "report.html").write_text(render(run, WIDGETS), encoding="utf-8")
    words = [find_chrome(), *QUIET, f"--user-data-dir={folder / 'profile'}", "--window-size=1300,9000", "--dump-dom"]
    url = (folder / "report.html").as_uri()
    return subprocess.run([*words, url], capture_output=True, text=True, check=True, timeout=120).stdout


def test_the_script_comes_to_its_end(opened):
    assert 'data-ready="yes"' in opened


def test_every_picture_is_drawn(run, opened):
    drawn = re.findall(
        r'data-figure="(\w+)"[^>]*class="[^"]*js-plotly-plot|js-plotly-plot"[^>]*data-figure="(\w+)"', opened
    )
    pictures = {figure.name for figure in run.figures if figure.kind in PLOTTED}
    assert {one or other for one, other in drawn} == pictures


def test_a_widget_gets_an_element_its_data_and_its_tools(opened):
    (widget,) = re.findall(r'<div class="widget" data-widget="widget">(.*?)</figure>', opened, flags=re.DOTALL)
    assert "2,3 of 2x3 and 6, 1.3e-6" in widget
    assert "js-plotly-plot" in widget


def test_attention_can_be_chosen_and_its_text_is_coloured(opened):
    (viewer,) = re.findall(r'data-viewer="patterns".*?</figure>', opened, flags=re.DOTALL)
    assert viewer.count('class="head"') == 2
    assert len(re.findall(r'class="token[^"]*"[^>]*background-color', viewer)) == 8
    assert "attends to" in viewer


def test_a_later_frame_of_a_notebook_takes_plotly_from_the_first(run, tmp_path):
    frames = [
        f'<iframe class="micrographia" srcdoc="{escape(render_figures([run.figures[0]], library=first))}"></iframe>'
        for first in (False, True)
    ]
    show = """<script>setTimeout(() => { document.body.dataset.drawn = [...document.querySelectorAll("iframe")]
      .map((frame) => frame.contentDocument.querySelectorAll(".js-plotly-plot").length).join(" "); }, 9000)</script>"""
    (tmp_path / "notebook.html").write_text("".join(["<body>", *frames, show]), encoding="utf-8")
    words = [find_chrome(), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    url = (tmp_path / "notebook.html").as_uri()
    page = subprocess.run([*words, url], capture_output=True, text=True, check=True, timeout=120).stdout
    assert 'data-drawn="1 1"' in page
