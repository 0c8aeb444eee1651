"""Runs and Figures in a notebook."""

import pytest
import torch

import micrographia
from micrographia.core.errors import UserError
from micrographia.faces import notebook
from micrographia.faces.notebook import run_html, show


def test_a_figure_shows_itself_in_a_frame_with_everything_inside(run):
    html = show(run.figures[0])._repr_html_()
    assert html.startswith('<iframe class="micrographia" srcdoc=')
    assert "carried-library" in html
    assert "src=&quot;http" not in html


def test_a_run_shows_its_sentences_and_claims(run):
    html = run_html(run)
    assert "memorised by epoch 140" in html
    assert "Addition modulo 11 · one network" in html
    assert "2 hold, 1 fails, 1 not run" in html
    assert "&amp;" in html
    assert "figure-loss" in html  # and its first picture


def test_plotly_is_sent_to_a_notebook_once(run, monkeypatch):
    monkeypatch.setattr(notebook._Sent, "library", False)
    table = next(figure for figure in run.figures if figure.kind == "table")
    sent = ["carried-library" in notebook.frame_html(figure) for figure in (table, run.figures[0], run.figures[0])]
    assert sent == [False, True, False]
    assert "carried-library" in show(run.figures[0])._repr_html_()


def test_what_is_shown_is_kept_once_and_not_as_text_too(run):
    assert len(repr(show(run.figures[0]))) < 80


def test_the_result_of_a_run_is_one_line():
    from micrographia.core.model import Cache, Output

    assert repr(Output(torch.zeros(1, 15, 18), Cache({}))).startswith("Output(logits 1x15x18, Cache(")
    assert repr(Output(None, Cache({}))).startswith("Output(logits none, ")


def test_figures_and_runs_are_one_line(run):
    assert repr(run.figures[0]) == "Figure('loss': lines, 'Loss over training')"
    assert max(len(repr(each)) for each in (run, *run.figures)) < 200


def test_through_the_facade_runs_and_figures_display_themselves(run):
    assert micrographia.Run is type(run)
    assert "Addition modulo 11" in run._repr_html_()
    assert "iframe" in run.figures[0]._repr_html_()


def test_importing_the_facade_alone_loads_no_tensor_library():
    import subprocess
    import sys

    code = "import sys, micrographia; micrographia.Run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()


def test_a_result_that_has_figures_shows_them_and_anything_else_is_refused(run):
    class Result:
        def figures(self):
            return run.figures[:2]

    html = show(Result())._repr_html_()
    assert all(figure.title in html for figure in run.figures[:2])
    with pytest.raises(UserError, match="What can be shown: Run, Figure"):
        show(3)


def test_a_result_that_has_no_figure_this_time_shows_its_text():
    class Result:
        def figures(self):
            return []

        def __str__(self):
            return "a < b"

    assert show(Result())._repr_html_() == "<pre>a &lt; b</pre>"


def test_effects_that_have_been_imported_display_themselves():
    from micrographia.core.effects import Effects
    from micrographia.faces.notebook import attach, frame_html

    attach()
    assert Effects._repr_html_ is frame_html
