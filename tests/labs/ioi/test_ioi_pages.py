"""The pages on the lab show what the stored Run says, made by a script, and the script sees when they do not."""

import copy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def maker(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import make_tables  # a script, no package

    return make_tables


@pytest.fixture
def found(maker):
    return maker.stored(maker.STORED)


def test_the_pages_are_what_the_stored_run_says(maker, found):
    for page in maker.PAGES:
        text = page.read_text(encoding="utf-8")
        assert maker.BLOCK.search(text)
        assert maker.with_tables(text, found) == text, page.name


def test_every_table_has_its_place(maker):
    text = "".join(page.read_text(encoding="utf-8") for page in maker.PAGES)
    assert {name for _, name, _ in maker.BLOCK.findall(text)} == maker.TABLES.keys()


def test_another_figure_makes_another_page(maker, found):
    results = copy.deepcopy(found.results)
    results["behaviours"][0]["accuracy"]["median"] = 0.123
    (page, *_) = maker.PAGES
    text = page.read_text(encoding="utf-8")
    made = maker.with_tables(text, found._replace(results=results))
    assert made != text
    assert "0.12 (" in made


def test_a_marker_without_a_table_is_refused(maker, found):
    with pytest.raises(SystemExit, match="no table nothing"):
        maker.with_tables("<!-- table:nothing:begin -->\n<!-- table:nothing:end -->", found)


def test_a_dash_stands_for_what_was_not_measured(maker):
    row = {"kind": "duplicate token", "found_both_ways": 0, "of": 0, "by_chance": 0.0, "agreement": None}
    row |= {"agreement_by_chance": None, "area": None}
    made = maker.heads(maker.Stored({"head_kinds": [row]}, {}))
    assert made.splitlines()[-1] == "| duplicate token | 0 of 0 | 0.0 | – | – | – |"


def test_atp_star_has_a_column_among_circuits_and_the_lowest_method_is_named(maker):
    rows = [
        {"behaviour": "ioi", "members": members, "method": way, "cmd": {"median": 0.1}}
        for members, ways in {
            "nodes": ("exact", "atp", "atp-star", "ig", "relp", "random"),
            "edges": ("eap", "eap-ig", "random"),
        }.items()
        for way in ways
    ]
    assert "AtP* (by size)" in maker.cmd(maker.Stored({"circuits": rows}, {})).splitlines()[0]
    rows = [{"site": "k", "method": way, "pearson": {"median": r}} for way, r in (("atp", 0.8), ("ig", 0.7))]
    assert "integrated gradients at `k`" in maker.lowest(maker.Stored({"estimates_beside_exact_effects": rows}, {}))
