"""The report in a real browser: its script unpacks, draws every picture and starts the widgets."""

import re
import subprocess
from html import escape

import numpy as np
import pytest
from fake import WIDGETS

from micrographia.core import figures
from micrographia.core.figures import Figure
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
    frames.append(frames[1].replace("<iframe", '<iframe style="height:1500px"'))
    show = """<script>setTimeout(() => { const frames = [...document.querySelectorAll("iframe")];
      document.body.dataset.drawn = frames.slice(0, 2)
      .map((frame) => frame.contentDocument.querySelectorAll(".js-plotly-plot").length).join(" ");
      document.body.dataset.fits = frames[2].clientHeight > 300 && frames[2].clientHeight < 1000; }, 9000)</script>"""
    (tmp_path / "notebook.html").write_text("".join(["<body>", *frames, show]), encoding="utf-8")
    words = [find_chrome(), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    url = (tmp_path / "notebook.html").as_uri()
    page = subprocess.run([*words, url], capture_output=True, text=True, check=True, timeout=120).stdout
    assert 'data-drawn="1 1"' in page
    assert 'data-fits="true"' in page  # a frame has no empty room below


def test_a_grid_of_words_opens_at_its_end_on_a_telephone(tmp_path):
    tokens = [f"{i} token" for i in range(30)]
    grid = figures.heatmap(
        "lens", "Lens", np.ones((2, 3, 30)), x=tokens, y=["a", "b", "c"], panels=["clean prompt", "corrupt prompt"],
        texts=[[["word"] * 30] * 3] * 2, value="probability", x_label="token", y_label="layer", caption="",
    )  # fmt: skip
    frame = f'<iframe srcdoc="{escape(render_figures([grid]))}" style="width:390px;height:900px"></iframe>'
    show = """<script>setTimeout(() => { const page = document.querySelector("iframe").contentDocument;
      const node = page.querySelector(".picture"), edge = node.getBoundingClientRect().right;
      const names = [...page.querySelectorAll(".yaxislayer-above text, .annotation-text")];
      document.body.dataset.at = [node.scrollLeft > 500, names.length >= 8,
        names.every((name) => name.getBoundingClientRect().right <= edge + 1)].join(" "); }, 9000)</script>"""
    (tmp_path / "page.html").write_text("".join(["<body>", frame, show]), encoding="utf-8")
    words = [find_chrome(), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    url = (tmp_path / "page.html").as_uri()
    page = subprocess.run([*words, url], capture_output=True, text=True, check=True, timeout=120).stdout
    assert 'data-at="true true true"' in page, re.findall(r'data-at="[^"]*"', page)


def test_passages_stand_in_columns_and_are_broken_on_a_telephone(tmp_path):
    rows = [[f"{word}{i}" for word in ("one", "two", "three", "four", "five", "six", "seven")] for i in range(6)]
    wide = [[word * 3 for word in row] for row in rows]
    both = [figures.tokens(n, "T", r, np.ones((6, 7)), names=["x"] * 6) for n, r in (("near", rows), ("far", wide))]
    frames = [
        f'<iframe srcdoc="{escape(render_figures(both))}" style="width:{width}px;height:900px"></iframe>'
        for width in (390, 1000)
    ]
    show = """<script>setTimeout(() => {
      const told = (frame) => {
        const page = frame.contentDocument, edge = page.documentElement.clientWidth;
        const tokens = (within) => [...page.querySelectorAll(`${within} .token`)];
        const lines = (id) => new Set(tokens(`#figure-${id} p:first-of-type`).map((each) => each.offsetTop)).size;
        const fits = tokens("").every((each) => each.getBoundingClientRect().right <= edge);
        return [fits, lines("near"), lines("far")].join(",");
      };
      document.body.dataset.at = [...document.querySelectorAll("iframe")].map(told).join(" ");
    }, 3000)</script>"""
    (tmp_path / "page.html").write_text("".join(["<body>", *frames, show]), encoding="utf-8")
    words = [find_chrome(), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    url = (tmp_path / "page.html").as_uri()
    page = subprocess.run([*words, url], capture_output=True, text=True, check=True, timeout=120).stdout
    (found,) = re.findall(r'data-at="([^"]*)"', page)
    (fits, near, far), (fits_wide, near_wide, _) = (each.split(",") for each in found.split(" "))
    assert (fits, fits_wide, near_wide) == ("true", "true", "1")
    assert int(far) >= int(near) > 1


def test_a_node_that_is_clicked_shows_its_edges_and_tells_them(tmp_path):
    graph = Figure(name="g", kind="graph", title="Circuit", caption="", data={
        "nodes": ["input", "L0H1", "L1 MLP", "logits"], "levels": [0.0, 1.0, 4.0, 1e6], "sources": [0, 1, 1, 2],
        "targets": [1, 2, 3, 3], "weights": [0.5, -0.25, 1.5, 2.0], "level_names": [], "weight_label": "score",
    })  # fmt: skip
    click = """<script>setTimeout(() => { const node = document.querySelector(".picture"), told = [];
      for (const at of [1, 1]) {
        node.emit("plotly_click", { points: [{ data: { mode: "markers+text" }, pointNumber: at }] });
        const raised = node.data[node.data.length - 3].x.filter((x) => x !== null).length;
        told.push([raised, node.data[0].opacity, document.querySelector(".readout-line").textContent].join("|"));
      }
      document.body.dataset.told = told.join("#"); }, 9000)</script>"""
    page = render_figures([graph]).replace("</body>", f"{click}</body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    words = [find_chrome(), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    url = (tmp_path / "page.html").as_uri()
    page = subprocess.run([*words, url], capture_output=True, text=True, check=True, timeout=120).stdout
    (told,) = re.findall(r'data-told="([^"]*)"', page)
    assert told == (
        "4|0.12|L0H1 reads from input 0.5; writes to logits 1.5, L1 MLP -0.25.#0|1|Click a node to see its edges alone."
    )
