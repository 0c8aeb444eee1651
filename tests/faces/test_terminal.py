"""A Run in 80 columns."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from micrographia.core.figures import Figure
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


def test_bars_of_several_series_stand_apart_by_name_and_those_below_zero_have_their_sign():
    data = {"y": np.array([[0.5, -1.0, 0.1], [0.25, np.nan, 0.0]]), "names": ["a", "b", "c"]}
    figure = Figure(name="f", kind="bars", group="g", title="t", caption="c",
                    data={**data, "series": ["restored", "destroyed"], "x_label": "x", "y_label": "y"})  # fmt: skip
    lines = printed(lambda console: print_figures(console, [figure])).splitlines()
    first, second = (next(i for i, line in enumerate(lines) if name in line) for name in ("restored", "destroyed"))
    told = [[line.split() for line in lines[at + 1 : at + 4]] for at in (first, second)]
    assert told[0] == [["a", "█" * 18, "0.5"], ["b", "-" + "█" * 36, "-1"], ["c", "█" * 4, "0.1"]]
    assert told[1] == [["a", "█" * 9, "0.25"], ["b", "–"], ["c", "0"]]


def test_of_many_bars_the_largest_are_shown_whatever_their_sign():
    heights = [*range(1, 20), -30]
    figure = Figure(name="f", kind="bars", group="g", title="t", caption="c",
                    data={"y": np.array([heights]), "names": [f"n{i}" for i in range(20)], "x_label": "x",
                          "y_label": "y"})  # fmt: skip
    text = printed(lambda console: print_figures(console, [figure]))
    assert "-30" in text
    assert "n2 " not in text
    assert "and 4 smaller ones" in text
