"""A Run in 80 columns."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from micrographia.core import figures
from micrographia.core.figures import REQUIRED, Figure
from micrographia.faces.figures.draw import draw
from micrographia.faces.tables import TextTable
from micrographia.faces.terminal import SUMMARIES, print_figures, print_run, print_section, print_table, spark
from micrographia.faces.words import NOTHING_TO_SHOW


def printed(show, *, width=80):
    console = Console(file=io.StringIO(), width=width)
    show(console)
    return console.file.getvalue()


def test_a_run_shows_what_was_found_and_where_it_is(run):
    text = printed(lambda console: print_run(console, run, report=Path("/tmp/a/report.html")))
    parts = ("memorised", "0.93 (0.88 to 0.95)", "2 hold, 1 fails, 1 not run", "All tables: --verbose")
    for part in ("Addition modulo 11  ·  one network, finished", *parts):
        assert part in text
    assert "published 2.4e-7 ± 50 %." in " ".join(text.split())
    assert "Report: /tmp/a/report.html\n" in text
    assert "logit(c) = cos(w c)" not in text


def test_asked_for_more_a_run_shows_its_tables_and_claims_and_then_its_pictures(run):
    brief, verbose, full = (
        printed(lambda console, more=more: print_run(console, run, **more))
        for more in ({}, {"verbose": True}, {"pictures": True})
    )
    for part, told in {
        "Five cosine cubes": (False, True, True), "none: of any kind": (False, True, True),
        "logit(c) = cos(w c)": (False, True, True), "✗ fails": (True, True, True), "keys": (False, True, False),
        "Loss over training": (False, False, True), "Interactive": (False, False, True),
        "Seed 0 settles": (False, False, True), "· not run": (False, False, True),
    }.items():  # fmt: skip
        assert tuple(part in text for text in (brief, verbose, full)) == told, part
    assert 2 * brief.count("\n") < verbose.count("\n") < full.count("\n")


def test_of_a_long_table_the_first_rows_are_shown_and_the_one_that_is_marked_is_chosen(run):
    tables = [figures.table(name, name, [[name, i] for i in range(11)], columns=["a", "b"], headline=name == "marked")
              for name in ("first", "marked")]  # fmt: skip
    text = printed(lambda console: print_run(console, dataclasses.replace(run, figures=tuple(tables))))
    assert (text.count("marked "), text.count("first "), "and 3 more rows" in text) == (8, 0, True)


def test_of_any_table_a_terminal_has_a_page_of_rows_and_says_how_many_are_left(run):
    long = figures.table("long", "Long", [[f"row {i}", i] for i in range(301)], columns=["a", "b"])
    text = printed(lambda console: print_run(console, dataclasses.replace(run, figures=(long,)), pictures=True))
    assert (len(re.findall(r"row \d+", text)), "and 261 more rows" in text) == (40, True)


def test_no_line_is_wider_than_the_terminal(run):
    text = printed(lambda console: print_run(console, run, pictures=True))
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_that_is_too_wide_goes_on_below_and_loses_nothing():
    columns = ["network", "task", *(f"measured figure {i}" for i in range(12))]
    rows = [[f"seed {i // 2}", "ab"[i % 2], *(f"{i}.{j:03}25" for j in range(12))] for i in range(4)]
    wide = TextTable(columns, rows, texts=frozenset({0, 1}))
    text = printed(lambda console: print_table(console, wide))
    assert max(map(len, text.splitlines())) <= 80
    assert all(cell in text for row in rows for cell in row)
    assert "The same table, from the column 'measured figure" in text
    parts = text.split("The same table")
    assert all("seed 1    b" in part for part in parts)
    assert "The same table" not in printed(lambda console: print_table(console, wide), width=400)


def test_names_and_figures_stay_whole_however_narrow_it_is():
    words = ["operation-subtract_seed-0", "several short words that may well be folded"]
    figures = ["0.93 (0.88 to 0.95)", "107,035", "-0.0012"]
    content = TextTable(["name", "what", "r", "n", "x"], [[*words, *figures]] * 2, texts=frozenset({0, 1}))
    for width in (80, 60, 44):
        text = printed(lambda console: print_table(console, content), width=width)
        assert max(map(len, text.splitlines())) <= width
        for piece in ("operation-subtract_seed-0", "(0.88 to 0.95)", "107,035", "-0.0012", "folded"):
            assert piece in text


LETTERS = [chr(code) for code in range(0x100, 0x180)]  # one terminal cell each


def cells_of(shape, width):
    """A table whose words are each one letter repeated, and whose figures are all different."""
    n_rows, texts, longest, n_figures, interval = shape
    letter = iter(LETTERS * 40)
    words = [[" ".join(next(letter) * longest for _ in range(n)) for n in texts] for _ in range(n_rows)]
    figures = [
        [f"{i}.{j:02}{width:03}" + f" (-{i}.{j:02}7 to {i}.{j:02}8)" * interval for j in range(n_figures)]
        for i in range(n_rows)
    ]
    columns = [*(f"text {i}" for i in range(len(texts))), *("measured unexpectedly" for _ in range(n_figures))]
    rows = [[*some, *more] for some, more in zip(words, figures)]
    return TextTable(columns, rows, texts=frozenset(range(len(texts))))


SHAPES = [(n, texts, longest, n_figures, interval) for n in (1, 3) for texts in ((1,), (1, 3), (2, 1, 4))
          for longest in (2, 11, 50) for n_figures in (0, 1, 5, 14) for interval in (False, True)]  # fmt: skip


@pytest.mark.parametrize("width", [40, 55, 80, 100, 133, 200])
def test_every_cell_is_whole_at_every_width(width):
    for shape in SHAPES[width % 5 :: 5]:
        content = cells_of(shape, width)
        text = printed(lambda console, content=content: print_table(console, content), width=width)
        drawn = {*re.split(r"\s{2,}|\n", text.replace("(-", "  (-"))}
        for row in content.rows:
            for cell in row[len(shape[1]) :]:
                assert drawn.issuperset(re.split(r" (?=\()", cell)), (shape, cell, text)
        for word in {word for row in content.rows for cell in row[: len(shape[1])] for word in cell.split()}:
            n = text.count(word[0])
            assert n, (shape, word, text)
            assert n % len(word) == 0, (shape, word, text)
        if shape[2] < 50:
            assert max(map(len, text.splitlines())) <= width, (shape, text)


def test_a_wide_character_takes_two_cells():
    content = TextTable(["token", "effect"], [["東京都庁舎前駅東京都庁舎前駅", "0.123"], ["大", "-4.567"]])
    text = printed(lambda console: print_table(console, content), width=40)
    assert "東京都庁舎前駅東京都庁舎前駅" in text
    assert "-4.567" in text


def test_a_wide_board_without_texts_is_a_line_a_row_and_of_many_the_first_are_shown():
    wide = figures.board("w", "Wide", np.random.default_rng(0).normal(size=(6, 5, 40)), panels=[*"abcdef"])
    text = printed(lambda console: print_figures(console, [wide]))
    assert max(map(len, text.splitlines())) <= 80
    assert "and 2 more boards" in text


def test_every_kind_of_figure_has_a_summary(run):
    assert {figure.kind for figure in run.figures} == set(REQUIRED) == set(SUMMARIES)
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
    assert told[0] == [["a", "█" * 18, "0.50"], ["b", "-" + "█" * 36, "-1.00"], ["c", "█" * 4, "0.10"]]
    assert told[1] == [["a", "█" * 9, "0.250"], ["b", "–"], ["c", "0.000"]]


def test_of_many_bars_the_largest_are_shown_whatever_their_sign():
    heights = [*range(1, 20), -30]
    figure = Figure(name="f", kind="bars", group="g", title="t", caption="c",
                    data={"y": np.array([heights]), "names": [f"n{i}" for i in range(20)], "x_label": "x",
                          "y_label": "y"})  # fmt: skip
    text = printed(lambda console: print_figures(console, [figure]))
    assert "-30" in text
    assert "n2 " not in text
    assert "and 4 smaller ones" in text


def test_an_infinite_bar_is_as_long_as_the_longest_and_one_that_is_no_number_has_none():
    bars = figures.bars("a", "A", [np.inf, np.nan, -np.inf, 2.0, 1e308], names=[*"abcde"])
    lines = printed(lambda console: print_figures(console, [bars])).splitlines()
    told = {line.split()[0]: line.split()[1:] for line in lines[2:] if line.strip()}
    assert told == {
        "a": ["█" * 36, "∞"],
        "b": ["–"],
        "c": ["-" + "█" * 36, "-∞"],
        "d": ["2"],
        "e": ["█" * 36, "1e308"],
    }
    several = figures.bars("a", "A", [[np.inf, 1.0], [1.0, -np.inf]], names=[*"ab"], series=["x", "y"])
    assert printed(lambda console: print_figures(console, [several])).count("█" * 36) == 4


NO_VALUES = {
    "no rows": figures.heatmap("a", "A", np.zeros((0, 3)), x=[*"abc"], y=[]),
    "no columns": figures.heatmap("a", "A", np.zeros((3, 0)), x=[], y=[*"abc"]),
    "no panels": figures.heatmap("a", "A", np.zeros((0, 2, 2)), x=[*"ab"], y=[*"ab"], panels=[]),
    "no texts": figures.tokens("a", "A", [], [], names=[]),
    "no tokens": figures.tokens("a", "A", [[]], [[]], names=["x"]),
    "no attention": figures.attention("a", "A", np.zeros((1, 0, 0)), tokens=[], panels=["h"]),
    "no bars": figures.bars("a", "A", [], names=[]),
    "no points": figures.scatter("a", "A", np.zeros(0), np.zeros(0)),
}


@pytest.mark.parametrize("name", NO_VALUES)
def test_a_picture_without_a_value_says_so(name):
    assert NOTHING_TO_SHOW in printed(lambda console: print_figures(console, [NO_VALUES[name]]))
    assert draw(NO_VALUES[name])["layout"]["annotations"][0]["text"] == NOTHING_TO_SHOW


@pytest.mark.parametrize("z", [np.full((2, 2), np.nan), np.array([[np.inf, 1.0], [np.nan, -np.inf]])])
def test_a_map_without_numbers_in_places_is_still_drawn(z):
    figure = figures.heatmap("a", "A", z, x=[*"ab"], y=[*"ab"], diverging=True)
    assert ("–" if np.isnan(z).all() else "-∞ to ∞") in printed(lambda console: print_figures(console, [figure]))
    assert draw(figure)["data"]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_bars_and_their_figures_are_whole_where_there_is_little_room(width):
    names = [f"L{i}.neurons[pos=12, unit=173]" for i in range(3)]
    figure = figures.bars("b", "B", [0.512, -1.024, 0.256], names=names)
    text = printed(lambda console: print_figures(console, [figure]), width=width)
    assert text.count("█") == 18 + 36 + 9
    assert all(number in text.split() for number in ("0.51", "-1.02", "0.26"))
    assert max(map(len, text.splitlines())) <= width


def test_a_section_that_is_called_like_its_first_table_has_one_heading():
    tables = [
        figures.table(name, title, [{"a": 1}], columns={"a": "a"}) for name, title in (("x", "One"), ("y", "Two"))
    ]
    for names, n in (("One", 1), ("Both", 1)):
        text = printed(lambda console, names=names: print_section(console, names, tables))
        assert [text.count(title) for title in (names, "One", "Two")] == [n, 1, 1]
