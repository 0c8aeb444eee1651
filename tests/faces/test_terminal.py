"""A Run in 80 columns."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from micrographia.faces.sections import Table as Content
from micrographia.faces.terminal import print_figures, print_run, print_table, spark


def printed(show, *, width=80):
    console = Console(file=io.StringIO(), width=width)
    show(console)
    return console.file.getvalue()


def test_a_run_says_what_was_found_and_where_it_is(run):
    text = printed(lambda console: print_run(console, run, report=Path("/tmp/a/report.html")))
    for part in ("memorised", "key", "overtone", "cos(2 pi k (a + b - c) / 11)", "the whole network by its formula"):
        assert part in text
    assert "published 2.4e-7 ± 50 %" in text
    assert "✗ fails" in text
    assert "Report: /tmp/a/report.html\n" in text


def test_what_is_not_run_is_named_in_brief_and_told_in_full(run):
    brief = printed(lambda console: print_run(console, run))
    full = printed(lambda console: print_run(console, run, everything=True))
    assert "grok.keys" in brief
    assert "Seed 0 settles" not in brief
    assert "· not run" in full
    assert "Seed 0 settles" in full
    assert "Ablations" in full


def test_no_line_is_wider_than_the_terminal(run):
    text = printed(lambda console: print_run(console, run, everything=True))
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_that_is_too_wide_goes_on_below_and_loses_nothing():
    columns = ("network", "task", *(f"measured figure {i}" for i in range(12)))
    rows = [[f"seed {i // 2}", "ab"[i % 2], *(f"{i}.{j:03}25" for j in range(12))] for i in range(4)]
    wide = Content(columns, rows, texts=frozenset({0, 1}))
    text = printed(lambda console: print_table(console, wide))
    assert max(map(len, text.splitlines())) <= 80
    assert all(cell in text for row in rows for cell in row)
    assert "The same table, from the column 'measured figure" in text
    parts = text.split("The same table")
    assert all("seed 1    b" in part for part in parts)
    assert "The same table" not in printed(lambda console: print_table(console, wide), width=400)


def test_every_kind_of_figure_has_a_summary(run):
    text = printed(lambda console: print_figures(console, run.figures))
    for figure in run.figures:
        assert figure.title in text


@pytest.mark.parametrize(
    ("values", "log", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], False, "▁▂▃▄▅▆▇█"),
        ([1, np.nan, 2], False, "▁ █"),
        ([1e-4, 1e-2, 1, 0], True, "▁▅█ "),
        ([3, 3], False, "▁▁"),
        ([np.nan], False, " "),
    ],
)
def test_a_spark_line_has_the_shape_of_its_curve(values, log, line):
    assert spark(values, log=log) == line
