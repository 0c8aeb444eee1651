"""Every kind of Figure as a plotly picture, and colours that all eyes can tell apart."""

import itertools

import numpy as np
import plotly.graph_objects as graph
import pytest

from micrographia.core.figures import REQUIRED, Figure
from micrographia.faces.figures.draw import DRAW, draw
from micrographia.faces.figures.palette import LINES, MUTED, PAGE, bar_styles, line_styles

DRAWN_BY_THE_REPORT = {"table", "text", "widget"}


def lines(**more):
    data = {"x": np.arange(3), "y": np.ones((2, 3)), "names": ["a", "b"], "x_label": "x", "y_label": "y", **more}
    return Figure(name="f", kind="lines", title="t", caption="c", data=data)


def test_every_kind_has_somebody_to_draw_it():
    assert set(DRAW) | DRAWN_BY_THE_REPORT == set(REQUIRED)


def test_every_picture_is_valid_plotly(run):
    pictures = {figure.name: draw(figure) for figure in run.figures if figure.kind in DRAW}
    assert {figure.kind for figure in run.figures if figure.name in pictures} == set(DRAW)
    for picture in pictures.values():
        graph.Figure(data=picture["data"], layout=picture["layout"], frames=picture["frames"])


def test_a_wrong_property_would_be_noticed(run):
    picture = draw(run.figures[0])
    with pytest.raises(ValueError, match="Invalid property"):
        graph.Figure(data=picture["data"], layout={**picture["layout"], "no_such": 1})


def test_a_gap_stays_a_gap():
    y = np.array([[1.0, np.nan, 2.0], [1.0, 1.0, 1.0]])
    trace = draw(lines(y=y))["data"][0]
    assert np.isnan(trace["y"][1])
    assert trace["connectgaps"] is False


def test_an_axis_can_be_switched_where_a_logarithm_shows_more():
    decades = np.array([[1e-6, 1.0, 5.0]] * 2)
    assert draw(lines(y=decades))["layout"]["meta"]["log"] == ["y"]
    assert draw(lines(y=-decades))["layout"]["meta"]["log"] == []
    assert draw(lines(y=np.full((2, 3), 0.5)))["layout"]["meta"]["log"] == []  # an accuracy
    assert draw(lines(y=np.full((2, 3), np.nan)))["layout"]["meta"]["log"] == []
    logarithmic = draw(lines(log_y=True))["layout"]
    assert (logarithmic["yaxis"]["type"], logarithmic["meta"]["log"]) == ("log", ["y"])


def test_layers_are_counted_in_whole_numbers_and_a_small_curve_is_not_magnified():
    layers = {"x": np.arange(30), "y": np.full((2, 30), 0.01), "reach": (0.0, 0.5)}
    layout = draw(lines(**layers))["layout"]
    assert layout["xaxis"]["dtick"] == 3
    assert layout["yaxis"]["range"][1] >= 0.5
    assert "dtick" not in draw(lines(x=np.linspace(0, 1, 3)))["layout"]["xaxis"]


def test_bands_and_marks_become_shapes_and_open_bands_are_left_out():
    bands = [{"name": "one", "start": 0, "end": 1}, {"name": "open", "start": 1, "end": None}]
    picture = draw(lines(bands=bands, marks=[{"name": "m", "x": 2}]))
    rect, mark = picture["layout"]["shapes"]
    assert (rect["type"], rect["x0"], rect["x1"]) == ("rect", 0, 1)
    assert (mark["type"], mark["x0"], mark["line"]["dash"]) == ("line", 2, "dash")
    assert [trace["name"] for trace in picture["data"]] == ["a", "b", "one"]


def test_in_a_crowd_only_the_highlighted_have_colours_and_a_legend():
    names = [f"k = {k}" for k in range(20)]
    picture = draw(lines(y=np.ones((20, 3)), names=names, highlight=[4, 7]))
    colours = {trace["name"]: trace["line"]["color"] for trace in picture["data"] if "line" in trace}
    assert [colours["k = 4"], colours["k = 7"]] == list(LINES[:2])
    assert colours["k = 0"].startswith("rgba")
    legend = [trace["name"] for trace in picture["data"] if trace["showlegend"]]
    assert legend == ["k = 4", "k = 7", "the other 18"]


def test_hidden_series_wait_in_the_legend():
    shown = {trace["name"]: trace["visible"] for trace in draw(lines(hidden=[1]))["data"]}
    assert shown == {"a": True, "b": "legendonly"}


def test_frames_carry_only_what_moves_and_the_picture_begins_at_the_last():
    y = np.arange(6.0).reshape(2, 3)
    data = {"y": y, "names": ["a", "b", "c"], "x_label": "x", "y_label": "y"}
    figure = Figure(
        name="f", kind="bars", title="t", caption="c", data=data, frames=("first", "last"), framed=("y",)
    )  # fmt: skip
    picture = draw(figure)
    assert [frame["name"] for frame in picture["frames"]] == ["first", "last"]
    assert set(picture["frames"][0]["data"][0]) == {"type", "y"}
    np.testing.assert_array_equal(picture["data"][0]["y"], y[1])
    low, high = picture["layout"]["yaxis"]["range"]
    assert low == 0
    assert high >= 5


def test_all_frames_of_a_heat_map_share_one_scale(run):
    neurons = next(figure for figure in run.figures if figure.name == "neurons")
    axis = draw(neurons)["layout"]["coloraxis"]
    assert axis["cmin"] == -axis["cmax"]
    assert axis["cmax"] == pytest.approx(np.abs(neurons.data["z"]).max())


def effects(z, **more):
    data = {"z": np.asarray(z)[None], "panels": [""], "x_label": "x", "y_label": "y", "value_label": "share of the gap"}
    data |= {"colour": "diverging", "midpoint": 0.0, **more}
    return draw(Figure(name="m", kind="heatmap", title="t", caption="c", data=data))


def test_one_extreme_cell_does_not_pale_the_others_and_is_told_on_the_bar():
    z = np.linspace(-1, 1, 60).reshape(6, 10)
    assert effects(z)["layout"]["coloraxis"]["cmax"] == 1
    z[2, 3] = -7.5
    picture = effects(z)["layout"]["coloraxis"]
    assert (picture["cmin"], picture["cmax"]) == (-3.75, 3.75)  # half of it, since the next is less
    told = picture["colorbar"]["title"]["text"].replace("<br>", " ")
    assert "share of the gap" in told
    assert "colours end at ±3.75; the most is -7.5" in told


def test_what_is_next_to_nothing_beside_one_cell_stays_pale():
    z = np.full((6, 10), 1e-6)
    z[0, 0] = 1.0
    assert effects(z)["layout"]["coloraxis"]["cmax"] == 0.5
    z[0, 1] = 0.6  # two of sixty are no lone extreme
    assert effects(z)["layout"]["coloraxis"]["cmax"] == 1.0
    assert effects(np.zeros((2, 2)))["layout"]["coloraxis"]["cmax"] == 1.0


def test_words_in_the_cells_of_a_map_take_its_whole_width():
    texts = [[["a", "<b>"], ["c", "d"]]] * 2
    data = {"z": np.zeros((2, 2, 2)), "panels": ["l", "r"], "x_label": "x", "y_label": "y", "texts": texts}
    traces = draw(Figure(name="m", kind="heatmap", title="t", caption="c", data=data))
    assert traces["data"][0]["text"][0] == traces["data"][0]["customdata"][0] == ["a", "&lt;b>"]
    assert traces["layout"]["xaxis"]["domain"] == traces["layout"]["xaxis2"]["domain"] == [0, 1]


def test_a_histogram_counts_every_value_once(run):
    fve = next(figure for figure in run.figures if figure.name == "fve")
    assert draw(fve)["data"][0]["y"].sum() == len(fve.data["values"])


def test_names_cannot_become_markup_or_variables():
    trace = draw(lines(names=["<b>bold</b>", "%{x}"]))["data"]
    assert "<b>" not in trace[0]["hovertemplate"]
    assert trace[0]["name"] == "&lt;b>bold&lt;/b>"
    assert "%{x}" not in trace[1]["hovertemplate"]


def heat_map(rows, columns, panels=("a", "b"), **more):
    panels = list("abcd"[:panels] if isinstance(panels, int) else panels)
    named = {"x_names": [f"{i} token" for i in range(columns)], "y_names": [str(i) for i in range(rows)]}
    data = {"z": np.ones((len(panels), rows, columns)), "panels": panels, "x_label": "x", "y_label": "y"}
    return draw(Figure(name="f", kind="heatmap", title="t", caption="c", data={**data, **named, **more}))["layout"]


@pytest.mark.parametrize("panels", [1, 2, 9])
@pytest.mark.parametrize("n", [2, 15, 30, 60, 270])
@pytest.mark.parametrize("longest", [1, 8, 20])
def test_ticks_never_overprint(n, panels, longest):
    names = [str(i).rjust(longest, "0") for i in range(n)]
    data = {"z": np.ones((panels, n, n)), "panels": [*"abcdefghi"][:panels], "x_names": names, "y_names": names,
            "x_label": "", "y_label": ""}  # fmt: skip
    wide = draw(Figure(name="f", kind="heatmap", title="t", caption="c", data=data))["layout"]
    for layout, width in ((wide, 760), (wide["meta"].get("narrow", wide), 350 if "narrow" in wide["meta"] else 760)):
        across, up = layout["xaxis"], layout["yaxis"]
        room = width * (across["domain"][1] - across["domain"][0])
        each = 6 * longest if across["tickangle"] == 0 else 11
        assert len(across["ticktext"]) * each <= room
        assert len(up["ticktext"]) * 11 <= layout["height"] * (up["domain"][1] - up["domain"][0])
    assert heat_map(3, 15)["xaxis"]["tickangle"] == -45
    assert len(heat_map(3, 15, panels=1)["xaxis"]["ticktext"]) == 15


def test_heads_are_grouped_by_layer_with_a_tick_and_a_line_each():
    groups = [str(i // 9) for i in range(270)]
    layout = heat_map(270, 14, y_groups=groups)
    assert layout["yaxis"]["ticktext"] == [str(i) for i in range(30)]
    assert layout["yaxis"]["tickvals"][:2] == ["4", "13"]
    assert [line["y0"] for line in layout["shapes"]][:2] == [8.5, 17.5]
    assert len(layout["shapes"]) == 2 * 29
    assert heat_map(6, 14, y_groups=[*"000111"])["yaxis"]["ticktext"] == [*"012345"]  # all fit
    assert layout["height"] <= 1600


def test_a_map_of_few_layers_is_low_and_words_in_cells_have_room():
    assert heat_map(2, 8)["height"] < 300
    texts = [[["a very long word", "b"] * 20] * 31] * 2
    layout = heat_map(31, 40, texts=texts)
    assert layout["height"] > 2 * 31 * 20
    assert (layout["meta"]["width"] > 40 * 40, layout["meta"]["scale"]) == (True, "words")
    trace = draw(Figure(name="f", kind="heatmap", title="t", caption="", data={
        "z": np.ones((1, 1, 40)), "panels": [""], "x_label": "", "y_label": "", "texts": [[["a very long word"] * 40]]
    }))["data"][0]  # fmt: skip
    assert (trace["text"][0][0], trace["customdata"][0][0]) == ("a very…", "a very long word")


def test_what_scrolls_sideways_with_its_words_opens_at_the_end_and_keeps_its_colour_bar_in_sight():
    texts = [[["word"] * 40] * 31] * 2
    layout = heat_map(31, 40, texts=texts, x_label="token")
    bar = layout["coloraxis"]["colorbar"]
    assert layout["meta"]["end"]
    assert not heat_map(31, 40, texts=texts, x_label="head")["meta"]["end"]
    assert (bar["orientation"], bar["xanchor"], bar["lenmode"]) == ("h", "right", "pixels")
    assert layout["margin"]["t"] > heat_map(31, 40)["margin"]["t"]


def test_a_few_named_rows_have_a_line_each_below_upright_names():
    names = [f"{i} <|im_start|>" for i in range(42)]
    for layout in (heat_map(12, 42, x_names=names), heat_map(12, 42, panels=1, x_names=names)):
        narrow = layout["meta"]["narrow"]
        rows = narrow["height"] * (narrow["yaxis"]["domain"][1] - narrow["yaxis"]["domain"][0]) - 16 * 6
        assert rows >= 12 * 11


def test_a_colour_bar_is_no_longer_than_can_be_seen_at_once():
    bar = heat_map(270, 14)["coloraxis"]["colorbar"]
    assert (bar["lenmode"], bar["len"], bar["yanchor"]) == ("pixels", 400, "top")
    assert heat_map(3, 5)["coloraxis"]["colorbar"]["len"] < heat_map(3, 5)["height"]


def test_bars_with_long_names_lie():
    names = [f"L{i}.neurons[pos=10, unit=173]" for i in range(6)]
    data = {"y": np.arange(6.0), "names": names, "x_label": "place", "y_label": "effect"}
    picture = draw(Figure(name="b", kind="bars", title="t", caption="", data=data))
    (bar,) = picture["data"]
    assert (bar["orientation"], list(bar["y"]), list(bar["x"])) == ("h", names, list(range(6)))
    assert picture["layout"]["yaxis"]["autorange"] == "reversed"


def test_many_named_bars_lie_so_that_each_has_its_name():
    def picture(names):
        data = {
            "y": np.ones((2, len(names))),
            "names": names,
            "series": ["clean", "corrupt"],
            "x_label": "",
            "y_label": "",
        }
        return draw(Figure(name="b", kind="bars", title="t", caption="", data=data))

    components = picture([f"L{i}.mlp_out" for i in range(61)])
    assert components["data"][0]["orientation"] == "h"
    assert 61 * 12 < components["layout"]["height"] < 61 * 20 + 90
    assert components["layout"]["yaxis"]["dtick"] == 1
    assert "orientation" not in picture([str(i) for i in range(61)])["data"][0]  # numbers may go without theirs
    assert "orientation" not in picture([f"L{i}.mlp_out" for i in range(8)])["data"][0]


def test_names_of_bars_are_slanted_on_a_telephone_where_they_would_overprint():
    data = {"y": np.ones(9), "x_label": "", "y_label": ""}

    def narrow(names):
        drawn = draw(Figure(name="b", kind="bars", title="t", caption="", data={**data, "names": names}))
        return drawn["layout"]["meta"].get("narrow")

    assert (
        narrow(["z", "q", "k", "v", "resid_pre", "attn_out", "mlp_out", "neurons", "pattern"])["xaxis"]["tickangle"]
        == -45
    )
    assert narrow([*"abcdefghi"]) is None
    assert narrow([str(i) * 5 for i in range(9)]) is None  # of numbers some may be left out


def test_panels_stand_side_by_side_and_on_a_telephone_one_below_the_other():
    layout = heat_map(3, 15)
    narrow = layout["meta"]["narrow"]
    assert layout["xaxis"]["domain"][1] < 0.5 < layout["xaxis2"]["domain"][0]
    assert narrow["xaxis"]["domain"] == narrow["xaxis2"]["domain"] == [0, 1]
    assert narrow["yaxis2"]["domain"][1] < narrow["yaxis"]["domain"][0]
    assert heat_map(3, 5)["meta"]["narrow"]["xaxis"]["domain"][1] < 0.5
    long = heat_map(3, 5, panels=["denoise: clean into corrupt", "noise: corrupt into clean"])
    assert long["meta"]["narrow"]["xaxis"]["domain"] == [0, 1]  # headings do not overprint


def test_the_title_of_a_colour_bar_is_no_longer_than_the_bar_of_a_telephone():
    layout = heat_map(3, 5, value_label="share of the gap in the logit difference, " * 2)
    for arranged in (layout, layout["meta"]["narrow"]):
        lines = arranged["coloraxis"]["colorbar"]["title"]["text"].split("<br>")
        assert 6 * max(map(len, lines)) <= arranged["height"]


def test_a_tall_table_is_high_enough_to_read_and_a_square_one_no_higher_than_before():
    assert heat_map(100, 10, panels=1)["height"] >= 100 * 15
    assert heat_map(113, 113, panels=1)["height"] == 680


def test_tokens_stand_in_lines_that_no_token_leaves():
    text = ["token"] * 30
    data = {"tokens": [text], "values": [np.arange(30.0)], "names": [""], "value_label": "v"}
    picture = draw(Figure(name="f", kind="tokens", title="t", caption="c", data=data))
    assert len(picture["data"]) > 3
    assert sum(trace["z"].shape[1] for trace in picture["data"]) == 30
    for trace in picture["data"]:
        assert len(trace["x"]) == trace["z"].shape[1] + 1
        assert trace["x"][-1] <= picture["layout"]["xaxis"]["range"][1]


def test_the_query_of_an_attention_goes_down_also_on_a_telephone(run):
    patterns = next(figure for figure in run.figures if figure.name == "patterns")
    layout = draw(patterns)["layout"]
    assert layout["yaxis"]["autorange"] == layout["yaxis2"]["autorange"] == "reversed"


def test_the_edges_of_a_graph_are_told_apart_by_sign_and_strength(run):
    circuit = next(figure for figure in run.figures if figure.name == "circuit")
    traces = draw(circuit)["data"]
    drawn = [trace for trace in traces if trace["mode"] == "lines" and trace["x"][0] is not None]
    assert sum(np.isnan(np.asarray(trace["x"], dtype=float)).sum() for trace in drawn) == 6
    assert len({trace["line"]["width"] for trace in drawn}) == 4
    assert {trace["name"] for trace in traces if trace.get("name")} == {"raises", "lowers"}


def test_no_edge_runs_through_a_node_that_is_alone_on_its_level():
    n = 7
    pairs = [(i, j) for i in range(n) for j in range(i + 2, n)]
    sources, targets = zip(*pairs)
    data = {"nodes": list("abcdefg"), "levels": range(n), "sources": sources, "targets": targets}
    data["weights"] = np.ones(len(pairs))
    drawn = draw(Figure(name="g", kind="graph", title="t", caption="c", data=data))["data"]
    nodes = next(trace for trace in drawn if trace["mode"] == "markers+text")
    x, y = np.asarray(nodes["x"]), np.asarray(nodes["y"])
    for i, j in pairs:
        between = range(i + 1, j)
        passes = [x[i] + (x[j] - x[i]) * (y[k] - y[i]) / (y[j] - y[i]) for k in between]
        assert min(abs(x[k] - at) for k, at in zip(between, passes)) > 0.01


def test_a_board_has_square_squares_the_first_row_on_top_and_rings_around_marked_ones(run):
    (board,) = (figure for figure in run.figures if figure.kind == "board")
    picture = draw(board)
    layout = picture["layout"]
    assert layout["yaxis"]["autorange"] == layout["yaxis2"]["autorange"] == "reversed"
    assert (layout["yaxis2"]["scaleanchor"], layout["coloraxis"]["cmin"]) == ("x2", -layout["coloraxis"]["cmax"])
    mine, yours, ring = picture["data"]
    assert (mine["x"], mine["y"]) == ([*"abcd"], [*"123"])
    assert yours["text"][0] == ["●", "○", "", "&lt;b>"]
    assert (ring["x"], ring["y"], ring["text"], ring["xaxis"]) == (["d"], ["3"], ["played"], "x2")


def test_a_board_without_texts_has_colours_alone():
    z = np.arange(9.0).reshape(1, 3, 3)
    (trace,) = draw(Figure(name="b", kind="board", title="t", caption="", data={"z": z, "panels": [""]}))["data"]
    assert "text" not in trace


def test_an_estimate_is_held_against_the_diagonal(run):
    estimate = next(figure for figure in run.figures if figure.name == "estimate")
    (line,) = draw(estimate)["layout"]["shapes"]
    assert (line["x0"], line["x1"]) == (line["y0"], line["y1"])


def test_line_colours_have_contrast_on_both_pages():
    for colour, page in itertools.product([*LINES, MUTED], PAGE.values()):
        assert contrast(colour, page) >= 3.0, (colour, page)


def test_line_colours_stay_apart_for_colour_blind_eyes():
    for name, matrix in VISION.items():
        seen = [lab(matrix @ linear(colour)) for colour in LINES]
        nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
        assert nearest > 11, (name, nearest)


NAMES = [*(f"s{i}" for i in range(7)), "clean", "corrupt"]


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], NAMES[:7], [f"s{i}" for i in range(12)]])
def test_no_two_series_look_alike_and_some_have_their_colour_everywhere(names):
    for styles in (line_styles(names), bar_styles(names)):
        assert len({str(style) for style in styles}) == len(names)
    assert (
        line_styles(["x", "clean"])[1]
        == line_styles(["clean", "corrupt"])[0]
        == bar_styles(["clean"])[0] | {"dash": "solid"}
    )
    signs = {trace["color"] for trace in line_styles(["restored", "destroyed", "clean", "corrupt"])}
    assert signs.isdisjoint(LINES[:2])


# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "tritanopia": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def linear(colour):
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2.1, relative luminance."""
    bright, dark = sorted((linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def lab(rgb):
    """CIE 1976 L*a*b* under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
