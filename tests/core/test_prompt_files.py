"""Prompts from files: three kinds that say the same, and errors that name row and column."""

import json

import pytest

from micrographia.core.errors import BadPrompt
from micrographia.core.prompt_files import read_labelled, read_pairs, read_texts
from micrographia.core.prompts import PairText

ROWS = [
    {"clean": "Mary, and John", "corrupt": "John, and Mary", "answer": " Mary", "wrong": " John"},
    {"clean": "a", "corrupt": "b", "answer": "c"},
]
PAIRS = [PairText("Mary, and John", "John, and Mary", " Mary", " John"), PairText("a", "b", "c", None)]
AS_CSV = 'clean,corrupt,answer,wrong\n"Mary, and John","John, and Mary", Mary, John\na,b,c,\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [("p.json", json.dumps(ROWS)), ("p.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n"), ("p.csv", AS_CSV)],
)
def test_three_kinds_of_file_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_pairs(tmp_path / name) == PAIRS


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.json", "[]", "holds none"),
        ("p.json", "{}", "a dict, not a list"),
        ("p.json", "[1]", "row 1 of"),
        ("p.json", "[{", "no JSON"),
        ("p.json", '[{"clean": "a", "corupt": "b", "answer": "c"}]', "Did you mean corrupt"),
        ("p.jsonl", '{"clean": "a", "corrupt": "b"}', "lacks answer"),
        ("p.jsonl", '{"clean": "a", "corrupt": "b", "answer": "c"}\n{"clean": }', "no JSONL: line 2: Expecting value"),
        ("p.csv", "clean,corrupt,answer\na,b,c,d\n", "more columns"),
        ("p.xml", "<a/>", "kind is not known"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, text, says):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadPrompt, match=says):
        read_pairs(tmp_path / name)


def test_a_file_that_is_not_there_is_an_error_of_ours(tmp_path):
    with pytest.raises(BadPrompt, match=r"^Asked for the prompts in \S+absent.csv, which cannot be read"):
        read_pairs(tmp_path / "absent.csv")


def test_a_reference_is_a_text_a_line_or_json(tmp_path):
    (tmp_path / "r.txt").write_text("one text\n\nanother\n", encoding="utf-8")
    (tmp_path / "r.json").write_text('["one text", "another"]', encoding="utf-8")
    (tmp_path / "r.jsonl").write_text('{"clean": "one text"}\n{"text": "another"}', encoding="utf-8")
    for name in ("r.txt", "r.json", "r.jsonl"):
        assert read_texts(tmp_path / name) == ["one text", "another"]
    (tmp_path / "bad.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(BadPrompt, match="not all texts"):
        read_texts(tmp_path / "bad.json")


def test_only_line_ends_end_a_line(tmp_path):
    odd = [{**ROWS[0], "clean": f"Mary,{mark}and John"} for mark in "\u2028\x85\v\f"]
    lines = [json.dumps(row, ensure_ascii=False) for row in odd]
    (tmp_path / "p.jsonl").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    assert [pair.clean for pair in read_pairs(tmp_path / "p.jsonl")] == [row["clean"] for row in odd]
    (tmp_path / "t.txt").write_text("one\u2028text\r\nanother\rthird\n", encoding="utf-8", newline="")
    assert read_texts(tmp_path / "t.txt") == ["one\u2028text", "another", "third"]


def test_a_csv_may_have_an_index_without_a_name_and_blank_lines_before_its_head(tmp_path):
    head, *rows = AS_CSV.splitlines()
    text = "\r\n".join(["", "", f",{head}", *(f"{i},{row}" for i, row in enumerate(rows))])
    (tmp_path / "p.csv").write_text(text, encoding="utf-8", newline="")
    assert read_pairs(tmp_path / "p.csv") == PAIRS


DAMAGED = {
    "a column twice": ("p.csv", b"clean,clean,corrupt,answer\na,b,c,d\n", "'clean' is there twice"),
    "another encoding": ("p.json", json.dumps(ROWS).encode("utf-16"), "not in UTF-8.*Save it"),
    "too deep": ("p.json", b"[" * 100_000, "nested too deep"),
    "answers of another kind": ("p.json", b'{"prompts": ["a", "b"], "answers": [1, 2]}', "not a list of two"),
    "no answers": ("p.json", b'{"prompts": ["a", "b"], "answers": null}', "not a list of two"),
    "three answers": ("p.json", b'{"prompts": ["a", "b"], "answers": [["a", "b", "c"]]}', "not a list of two"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_of_another_form_is_told_so(tmp_path, name):
    file, data, says = DAMAGED[name]
    (tmp_path / file).write_bytes(data)
    with pytest.raises(BadPrompt, match=says):
        read_pairs(tmp_path / file)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("limit", [0, -1, 1.5, "x"])
def test_a_limit_below_one_is_refused(tmp_path, limit):
    (tmp_path / "p.json").write_text(json.dumps(ROWS), encoding="utf-8")
    with pytest.raises(BadPrompt, match="first"):
        read_pairs(tmp_path / "p.json", limit=limit)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("columns", [{"zebra": "answer"}, {"answer": 3}, {"answer": None}, "answer"])
def test_columns_must_be_ours_by_their_names_in_the_file(tmp_path, columns):
    (tmp_path / "p.json").write_text(json.dumps(ROWS), encoding="utf-8")
    with pytest.raises(BadPrompt, match="as the columns"):
        read_pairs(tmp_path / "p.json", columns=columns)


def test_labelled_texts_are_read_from_json_and_csv_by_the_names_of_their_columns(tmp_path):
    (tmp_path / "a.csv").write_text('sentence,mood,by\n"Mary, went",sad,\nJohn went,glad,\n', encoding="utf-8")
    named = {"text": "sentence", "label": "mood", "group": "by"}
    found = read_labelled(tmp_path / "a.csv", columns=named)
    assert found == [("Mary, went", "sad", None), ("John went", "glad", None)]
    (tmp_path / "b.json").write_text(
        '[{"text": "a", "label": true, "group": 0}, {"text": "b", "label": 2, "group": "x"}]'
    )
    assert read_labelled(tmp_path / "b.json", limit=1) == [("a", True, 0)]
    with pytest.raises(BadPrompt, match=r"row 1 of .* has no text as 'text'; it has sentence, mood, by"):
        read_labelled(tmp_path / "a.csv")
