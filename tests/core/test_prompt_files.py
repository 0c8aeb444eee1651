"""Prompts from files: three kinds that say the same, and errors that name row and column."""

import json

import pytest

from micrographia.core.errors import BadPrompt
from micrographia.core.prompt_files import read_pairs, read_texts
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
