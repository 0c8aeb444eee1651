"""The report: one file, nothing from elsewhere, nothing unescaped, nothing lost."""

import base64
import gzip
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fake import WIDGETS

from micrographia.core.figures import Figure, attention, table, tokens, widget
from micrographia.core.figures import text as text_of
from micrographia.faces.report.markup import Html, prose, tag, typeset
from micrographia.faces.report.packing import encoded, packed
from micrographia.faces.report.page import render, render_figures
from micrographia.faces.report.viewers import viewer_data
from micrographia.faces.report.widgets import read_scripts


@pytest.fixture(scope="module")
def page(run):
    return render(run, WIDGETS)


class Elements(HTMLParser):
    """Every element with its attributes, and all ids."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def carried(page, name):
    text = re.search(rf'id="carried-{name}">([^<]*)<', page)[1]
    return gzip.decompress(base64.b64decode(text)).decode()


def test_every_element_is_closed(page):
    assert Elements(page).open == []


def test_nothing_is_fetched_from_elsewhere(page):
    for name, attributes in Elements(page).found:
        assert name not in ("link", "img", "iframe", "object"), name
        assert "src" not in attributes, name
        assert attributes.get("href", "#").startswith("#")
    visible = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert "http" not in visible
    assert "@import" not in page
    assert "url(" not in visible


def test_the_same_run_gives_the_same_bytes(run, page):
    assert render(run, WIDGETS) == page


def test_it_carries_the_installed_plotly(page):
    from plotly.offline import get_plotlyjs

    assert carried(page, "library") == get_plotlyjs()


def test_it_is_small(page):
    assert len(page.encode()) < 3e6


def test_ids_are_unique_and_every_link_leads_somewhere(page):
    elements = Elements(page).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"][1:] for name, attributes in elements if name == "a"]
    assert set(links) <= set(ids)
    assert "claims" in links


def test_every_figure_has_its_place_and_its_data(run, page):
    data = json.loads(carried(page, "data"))
    for figure in run.figures:
        assert f'id="figure-{figure.name}"' in page
        assert (figure.name in data["pictures"]) == (
            figure.kind not in ("table", "text", "widget", "tokens", "attention")
        )
    assert set(data["widgets"]) == {"widget"}
    assert set(data["viewers"]) == {figure.name for figure in run.figures if figure.kind == "attention"}


def test_every_claim_is_there_with_its_verdict_and_its_control(run, page):
    for judged in run.claims:
        assert f'id="claim-{judged.claim.id}"' in page
    assert page.count('class="badge holds"') == 2
    assert page.count('class="badge fails"') == 1
    assert page.count('class="badge not-run"') == 1
    assert "the same number of other frequencies: 0.0021" in page


def test_values_cannot_become_markup(run):
    evil = '<script>alert("1")</script>'
    results = {"title": evil, "subtitle": evil, "summary": [evil]}
    figures = (
        table("evil", evil, [[evil]], columns=[evil], caption=evil, group=evil, notes=[evil]),
        text_of("e", evil, [evil], preformatted=[evil]),
        widget("w", evil, evil, {}),
    )
    page = render(replace(run, results=results, config={"a": evil}, figures=figures))
    assert evil not in page
    assert page.count("&lt;script&gt;") >= 16


def test_data_cannot_end_the_script_that_carries_it(run):
    data = {"x": [0], "y": [[1]], "names": ["</script><b>"], "x_label": "x", "y_label": "y"}
    page = render_figures([Figure(name="f", kind="lines", title="t", caption="c", data=data)])
    assert "</script><b>" not in page


def test_the_script_of_a_widget_is_carried_once(run):
    twice = (*run.figures, widget("again", "Again", "fake_widgets:count.js", {"z": np.zeros((2, 3)), "keys": [1]}))
    page = render(replace(run, figures=twice), WIDGETS)
    assert page.count('micrographia.widgets["fake_widgets:count.js"] =') == 1
    assert page.count('class="widget" data-widget') == 2


@pytest.mark.parametrize(
    ("asset", "why"),
    [
        ("fake_widgets:count.js", "not in a package that begins with micrographia."),
        ("micrographia.faces.report:report.css", "no .js file"),
        ("micrographia.faces.report:../report/report.js", "no .js file"),
        ("micrographia.faces.report:nothing.js", "not in this version"),
        ("micrographia.nowhere:a.js", "not in this version"),
        ("micrographia.faces.words:a.js", "not in this version"),
        ("micrographia.../x:a.js", "not in a package"),
        ("nonsense", "not in a package"),
    ],
)
def test_a_widget_without_a_script_says_why_it_is_not_drawn(run, asset, why):
    page = render(replace(run, figures=(widget("w", "W", asset, {"x": [1]}),)))
    (said,) = re.findall(r'<p class="failed">(.*?)</p>', page)
    assert why in said
    assert "This cannot be drawn" in said
    assert "data-widget=" not in page


def test_a_script_that_would_end_itself_within_the_page_is_not_carried(tmp_path, monkeypatch):
    package = tmp_path / "evil_widgets"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "a.js").write_text("</SCRIPT><b>", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = read_scripts([widget("w", "W", "evil_widgets:a.js", {})], ["evil_widgets"])
    assert (found.texts, list(found.missing)) == ({}, ["evil_widgets:a.js"])


def test_the_first_section_with_a_picture_opens_the_page(run):
    counted = table("counted", "Counted", [[1]], columns=["n"], group="Tables")
    page = render(replace(run, figures=(counted, *run.figures)))
    order = [attributes["id"] for name, attributes in Elements(page).found if name == "section"]
    assert order[:4] == ["short", "group-the-run", "group-tables", "group-figures"]


def test_what_is_not_essential_stands_behind_the_claims(run, page):
    order = [attributes["id"] for name, attributes in Elements(page).found if name == "section"]
    assert order == ["short", "group-the-run", "group-figures", "group-the-circuit", "claims", "group-widget", "making"]


def test_a_figure_that_is_named_like_its_section_has_one_heading(run):
    page = render(replace(run, figures=(table("t", "Heads", [[1]], columns=["a"], group="Heads"),)))
    assert page.count(">Heads</h") == 1


def test_words_and_tables_can_be_read_without_scripts(page):
    plain = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    for text in (
        '0.93 <span class="limits">(0.88 to 0.95)</span>',
        "of any kind",
        "logit(c) = cos(w c)",
        "The claims",
        "How it was made",
    ):
        assert text in plain
    assert "0123abcd" in plain


def test_it_can_be_printed_and_read_in_the_dark(page):
    assert "@media print" in page
    assert "beforeprint" in page
    assert 'data-theme="dark"' in page
    assert "prefers-color-scheme" in page
    assert "width=device-width" in page


def test_a_run_without_results_or_figures_still_has_a_page(run):
    page = render(replace(run, results=None, claims=(), figures=(), status="interrupted"))
    assert "interrupted" in page
    assert "carried-data" not in re.sub(r"<script>.*?</script>", "", page, flags=re.S)


def test_arrays_come_back_in_their_kept_precision():
    tree = {
        "z": np.linspace(0, 1, 6).reshape(2, 3),
        "y": np.array([1.5, np.nan]),
        "n": np.arange(3),
        "none": float("nan"),
    }
    found = encoded(tree)
    assert found["z"]["dtype"] == "f2"
    assert found["z"]["shape"] == [2, 3]
    assert found["y"]["dtype"] == "f4"
    assert found["n"]["dtype"] == "i2"
    assert found["none"] is None
    y = np.frombuffer(base64.b64decode(found["y"]["bdata"]), "<f4")
    np.testing.assert_array_equal(y, [1.5, np.nan])
    assert packed(tree) == packed(tree)


def test_heat_maps_keep_float32_where_float16_would_lose_them():
    assert encoded({"z": np.full(2, 1e-6)})["z"]["dtype"] == "f4"
    assert encoded({"z": np.full(2, 1e6)})["z"]["dtype"] == "f4"


def test_markup_is_kept_and_text_is_escaped():
    assert tag("p", Html("<b>x</b>"), "a < b", class_="lead") == '<p class="lead"><b>x</b>a &lt; b</p>'
    assert tag("input", disabled=True, value=None) == "<input disabled>"


def test_powers_of_ten_are_set_as_such_and_words_are_left_alone():
    assert typeset("2.4e-07") == "2.4&#8239;×&#8239;10<sup>−7</sup>"
    assert typeset("epoch 1e") == "epoch 1e"
    assert typeset("abc1e-5x") == "abc1e-5x"
    assert typeset("'`', '`'") == "&#x27;`&#x27;, &#x27;`&#x27;"
    assert prose("in `a < b`, 1e-5") == "in <code>a &lt; b</code>, 1&#8239;×&#8239;10<sup>−5</sup>"
    assert typeset("cos(w_k x), w_key") == "cos(w<sub>k</sub> x), w_key"


def test_attention_is_carried_in_a_byte_a_cell_and_coloured_text_needs_no_script(run):
    n, heads = 100, 120
    z = np.tril(np.full((heads, n, n), 1.0)) / np.arange(1, n + 1)[:, None]
    few, many = (attention("a", "A", z[:k], panels=[f"L0H{i}" for i in range(k)], tokens=["x"] * n) for k in (3, heads))
    for figure, n_steps in ((few, 255), (many, 63)):
        found = viewer_data(figure)
        assert found["z"].dtype == np.uint8
        assert found["step"] * n_steps == pytest.approx(1, abs=0.01)
        assert np.abs(found["z"] * found["step"] - np.asarray(figure.data["z"])).max() <= found["step"] / 2 + 1e-9
        page = render_figures([figure])
        assert "carried-library" not in page
        assert json.loads(carried(page, "data"))["viewers"]["a"]["z"]["dtype"] == "u1"
    assert len(render_figures([many])) < 4e5


def test_signed_attention_and_layers_become_groups():
    z = np.stack([np.eye(3), -2 * np.eye(3)])[:, None]
    effects = attention(
        "a", "A", z, panels=["head 0"], tokens=[*"abc"], diverging=True, frames=["layer 0", "layer 1"], framed=["z"]
    )
    found = viewer_data(effects)
    assert (found["groups"], found["panels"], found["z"].dtype) == (["layer 0", "layer 1"], ["head 0"] * 2, np.int8)
    assert (found["z"][:, 0, 0] * found["step"]).tolist() == pytest.approx([1, -2], abs=0.01)
    assert found["first"] == 1  # the strongest


def test_where_most_tokens_differ_none_is_marked():
    figure = tokens("t", "T", [["a", "b", "c"], ["a", "d", "e"]], [[0.0] * 3] * 2, names=["", ""])
    assert "differs" not in [
        name for _, at in Elements(render_figures([figure])).found for name in at.get("class", "").split()
    ]


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([["a", "b", "c"], ["d", "e", "f"]], "token-columns"),  # a few: compared position by position
        ([["a", "b", str(i)] for i in range(9)], "token-columns"),  # alike
        ([[f"{i}", f"b{i}", "c"] for i in range(9)], "token-rows token-grid"),
        ([[f"{i}", f"b{i}", "c" * 99] for i in range(9)], "token-rows"),  # too wide for a page
        ([["a", "b"], ["d", "e", "f"]], "token-rows"),
    ],
)
def test_passages_are_broken_each_by_itself_and_prompts_together(rows, kind):
    figure = tokens("t", "T", rows, [[0.0] * len(row) for row in rows], names=["x"] * len(rows))
    found = [at["class"] for _, at in Elements(render_figures([figure])).found if "class" in at]
    assert kind in found
    assert not {"token-columns", "token-rows", "token-rows token-grid"} - {kind} & {*found}


def test_tokens_that_differ_are_marked_and_blanks_are_seen():
    texts = [["When", " ", "\n", " John"], ["When", " ", "\n", " Mary"]]
    figure = tokens(
        "t",
        "T",
        texts,
        [[0, 1, -0.5, float("nan")], [0.0] * 4],
        names=["clean", "corrupt"],
        value="effect",
        diverging=True,
    )
    found = [
        (attributes, attributes.get("class", "").split()) for _, attributes in Elements(render_figures([figure])).found
    ]
    shown = [(at["title"], classes, at["style"]) for at, classes in found if "token" in classes]
    assert [title.split(" effect")[0] for title, _, _ in shown][::2] == ["0 “When”", "1 “␣”", "2 “↵”", "3 “John”"]
    assert ["differs" in classes for _, classes, _ in shown] == [False] * 6 + [True] * 2
    assert [(classes[1], style) for _, classes, style in shown][2:6:2] == [
        ("raises", "--strength:100%"),
        ("lowers", "--strength:50%"),
    ]


def test_pictures_stand_before_tables_and_no_sentence_of_a_caption_twice(run):
    said = "Denoising: 1 restores the clean answer."
    figures = (table("t", "T", [[1]], columns=["a"], group="g"),
               *(Figure(name=name, kind="histogram", title=name, caption=f"{said} Only {name}.", group="g",
                        data={"values": np.ones(3), "x_label": "", "y_label": ""})
                 for name in ("one", "two")))  # fmt: skip
    page = render(replace(run, figures=figures), WIDGETS)
    assert page.index('id="figure-one"') < page.index('id="figure-two"') < page.index('id="figure-t"')
    assert (page.count(said), page.count("Only one."), page.count("Only two.")) == (1, 1, 1)


def test_what_was_not_run_is_folded_and_long_summaries_too(run):
    long = replace(run, results={**run.results, "summary": [f"Sentence {i} {'word ' * 30}." for i in range(8)]})
    page = render(long, WIDGETS)
    folded = re.findall(r"<details>.*?</details>", page, flags=re.S)
    assert ["Sentence 7" in each for each in folded] == [True, False]
    assert 'id="claim-keys"' in folded[1]
    assert not any("Sentence 0" in each or 'id="claim-variance"' in each for each in folded)
