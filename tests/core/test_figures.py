"""Figures by constructor: what each makes of its arguments, and what it refuses."""

import numpy as np
import pytest

from micrographia.core import figures
from micrographia.core.errors import BadConfig, BadShape
from micrographia.core.figures import REQUIRED, Figure

Z = np.arange(6.0).reshape(2, 3)
GRAPH = {"nodes": ["a", "b"], "levels": [0, 1], "sources": [0], "targets": [1], "weights": [0.5]}
MADE = {
    "lines": lambda **more: figures.lines("f", "t", [0, 1, 2], Z, names=["a", "b"], **more),
    "bars": lambda **more: figures.bars("f", "t", [1.0, 2.0], names=["a", "b"], **more),
    "histogram": lambda **more: figures.histogram("f", "t", [1.0, 2.0, 2.0], **more),
    "heatmap": lambda **more: figures.heatmap("f", "t", Z, **more),
    "scatter": lambda **more: figures.scatter("f", "t", [0, 1], [1, 2], **more),
    "tokens": lambda **more: figures.tokens("f", "t", [["a", "b"]], [[0.5, 1]], names=["row"], **more),
    "attention": lambda **more: figures.attention(
        "f", "t", np.ones((1, 2, 2)), panels=["0"], tokens=["a", "b"], **more
    ),
    "graph": lambda **more: figures.graph("f", "t", GRAPH, **more),
    "board": lambda **more: figures.board("f", "t", Z, **more),
    "table": lambda **more: figures.table("f", "t", [{"a": 1}], **more),
    "text": lambda **more: figures.text("f", "t", ["One.", "Two."], **more),
    "widget": lambda **more: figures.widget("f", "t", "package:file.js", {"anything": Z}, **more),
}
every = pytest.mark.parametrize("kind", MADE)


def test_each_kind_has_a_constructor_of_its_name():
    assert MADE.keys() == REQUIRED.keys()
    assert all(callable(getattr(figures, kind)) for kind in REQUIRED)


@every
def test_what_is_about_a_figure_is_its_fields_and_all_else_its_data(kind):
    about = {"caption": "c", "source": "s", "claims": ["x"], "group": "g", "essential": False}
    found = MADE[kind](**about)
    assert (found.name, found.kind, found.title) == ("f", kind, "t")
    assert {name: getattr(found, name) for name in about} == {**about, "claims": ("x",)}
    assert not found.data.keys() & set(about)
    bare = MADE[kind]()
    assert (bare.caption, bare.claims, bare.group, bare.essential) == ("", (), "", True)


@every
def test_an_entry_that_is_none_is_left_out(kind):
    entries = {"lines": "low", "heatmap": "texts", "widget": "more"}
    name = entries.get(kind, "no such entry")
    assert name not in MADE[kind](**{name: None}).data


@pytest.mark.parametrize("kind", [kind for kind in MADE if kind != "widget"])
def test_an_entry_that_its_kind_does_not_know_is_refused(kind):
    with pytest.raises(BadConfig, match=r"has unknown \['colours'\]"):
        MADE[kind](colours="blue")


def test_optional_entries_are_handed_on():
    assert MADE["lines"](log_y=True, marks=[{"name": "here", "x": 1}]).data["log_y"] is True
    assert MADE["bars"](y_label="share", reference=[{"name": "chance", "y": 0.5}]).data["y_label"] == "share"
    assert MADE["scatter"](diagonal=True).data["diagonal"] is True
    assert MADE["text"](preformatted=["x = 1"]).data["paragraphs"] == ["One.", "Two."]


@pytest.mark.parametrize("kind", ["heatmap", "board"])
def test_a_single_panel_may_leave_its_axis_out(kind):
    flat, whole = (getattr(figures, kind)("f", "t", z) for z in (Z, Z[None]))
    assert flat.data["z"].shape == whole.data["z"].shape == (1, 2, 3)
    assert flat.data["panels"] == whole.data["panels"] == ("",)
    assert getattr(figures, kind)("f", "t", np.zeros((4, 2, 3)), panels="abcd").data["z"].shape == (4, 2, 3)


def test_a_heat_map_with_frames_has_its_panel_behind_them():
    found = figures.heatmap("f", "t", np.zeros((5, 2, 3)), frames=list("abcde"), framed=["z"])
    assert found.data["z"].shape == (5, 1, 2, 3)
    assert (found.frames, found.framed) == (tuple("abcde"), ("z",))
    with pytest.raises(BadShape, match="5 frames, not 2"):
        figures.heatmap("f", "t", np.zeros((5, 2, 3)), frames=["a", "b"], framed=["z"])


@pytest.mark.parametrize("kind", ["heatmap", "board", "tokens", "attention"])
def test_colours_diverge_around_a_midpoint_or_go_one_way(kind):
    one_way, both, moved = (
        MADE[kind]().data,
        MADE[kind](diverging=True).data,
        MADE[kind](diverging=True, midpoint=0.5).data,
    )
    assert (one_way["colour"], "midpoint" in one_way) == ("sequential", False)
    assert (both["colour"], both["midpoint"]) == ("diverging", 0)
    assert moved["midpoint"] == 0.5


def test_names_of_rows_columns_and_values_have_their_places():
    data = figures.heatmap("f", "t", Z, x="abc", y="de", value="share", x_label="position").data
    assert (data["x_names"], data["y_names"], data["value_label"], data["x_label"]) == (
        "abc",
        "de",
        "share",
        "position",
    )
    assert "x_names" not in figures.heatmap("f", "t", Z).data


RECORDS = [{"best_layer": 1, "share": 0.5}, {"best_layer": 2, "note": "late"}]


def columns_and_rows(*given: object, **more: object) -> tuple[object, object]:
    data = figures.table("f", "t", *given, **more).data
    return data["columns"], data["rows"]


def test_a_table_of_records_shows_all_fields_in_their_order():
    assert columns_and_rows(RECORDS) == (["best layer", "share", "note"], [[1, 0.5, None], [2, None, "late"]])


def test_a_table_shows_the_fields_that_are_chosen_under_their_names():
    assert columns_and_rows(RECORDS, columns=["share", "best_layer"]) == (
        ["share", "best layer"],
        [[0.5, 1], [None, 2]],
    )
    assert columns_and_rows(RECORDS, columns={"note": "Remark"}) == (["Remark"], [[None], ["late"]])


def test_a_table_of_rows_needs_a_name_for_each_column():
    assert columns_and_rows([(1, None), (2, [3])], columns=["n", "list"]) == (["n", "list"], [[1, None], [2, [3]]])
    assert columns_and_rows([], columns=["n"]) == (["n"], [])
    with pytest.raises(BadShape, match=r"has 1 columns, but rows of \[2\]"):
        columns_and_rows([(1, 2)], columns=["n"])


def test_a_widget_names_its_script_and_carries_whatever_that_reads():
    found = figures.widget("f", "t", "micrographia.labs.x:x.js", {"layers": 2}, caption="c")
    assert dict(found.data) == {"asset": "micrographia.labs.x:x.js", "layers": 2}
    with pytest.raises(BadConfig, match=r"lacks \['asset'\]"):
        Figure(name="f", kind="widget", title="t", caption="c", data={"layers": 2})
