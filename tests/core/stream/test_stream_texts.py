"""Texts: every source, in order, in pieces; what cannot be read is named."""

import gzip
import json
import sys
from types import SimpleNamespace

import pytest

from micrographia.core.errors import MissingExtra, UserError
from micrographia.core.stream.texts import PIECE, Piece, Tally, open_texts, texts_of


def documents(texts, tally=None):
    found, held = [], ""
    for piece in texts.pieces(tally):
        held += piece.text
        if piece.ends:
            found, held = [*found, held], ""
    assert not held
    return found


def test_a_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffone\n\ntwo", encoding="utf-8")
    assert documents(open_texts(tmp_path / "a.txt")) == ["one\n\ntwo"]


def test_a_folder_is_read_in_order_without_hidden_files_and_what_is_no_text(tmp_path):
    for name, data in {"b/x.txt": b"bx", "a.txt": b"a", ".hid": b"h", "c.bin": b"\xff\xfe", "d.bin": b"a\0b"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "c.jsonl").write_text('{"text": "j"}\n')
    tally = Tally()
    assert documents(open_texts(str(tmp_path)), tally) == ["a", "bx", "j"]
    assert [path[-5:] for path in tally.skipped] == ["c.bin", "d.bin"]
    assert str(tally) == "3 documents of 4 characters, 2 files without text left out"


@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz"])
def test_a_document_a_line_in_the_named_field(tmp_path, end):
    lines = "\n".join(json.dumps({"body": text, "n": 1}) for text in ("one\u2028two", "three")) + "\n\n"
    data = gzip.compress(lines.encode()) if end.endswith("gz") else lines.encode()
    (tmp_path / f"a.{end}").write_bytes(data)
    assert documents(open_texts(tmp_path / f"a.{end}", field="body")) == ["one\u2028two", "three"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"body": "x", "n": 1}', r"line 2 of .* has no such field there. It has body, n"),
        ('{"text": 3}', "line 2 of .* has no text there"),
        ("[1]", "It has a list"),
        ("{", "line 2 of .* is no JSON"),
    ],
)
def test_a_line_that_holds_no_text_is_named(tmp_path, line, says):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' + line)
    with pytest.raises(UserError, match=says):
        documents(open_texts(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_file_that_is_no_text_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"abc\xff\xff")
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        documents(open_texts(tmp_path / name))


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="where there is nothing"):
        open_texts(tmp_path / "none")


def test_an_empty_name_is_refused():
    with pytest.raises(UserError, match="no name"):
        open_texts("")


def test_a_line_longer_than_what_is_read_at_once_is_whole(tmp_path):
    texts = ["x" * 300_000, "y", "", "z" * 70_000]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    assert documents(open_texts(tmp_path / "a.jsonl")) == [text for text in texts if text]


def test_without_a_source_the_standard_library_is_read_the_same_each_time():
    texts = open_texts()
    assert "standard library of Python" in texts.source
    first, second, tally = [], [], Tally()
    for found in (first, second):
        for _, piece in zip(range(30), texts.pieces(tally)):
            found.append(piece)
    assert first == second
    assert sum(len(piece.text) for piece in first) > 100_000
    assert tally.n_characters == 2 * sum(len(piece.text) for piece in first)


def test_no_standard_library_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(UserError, match="there are none"):
        open_texts()


@pytest.mark.parametrize(
    "text", ["word " * 40_000, "line\n" * 40_000, "x" * 200_000], ids=["words", "lines", "letters"]
)
def test_a_long_document_comes_in_pieces_that_make_it(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    for texts in (texts_of([text]), open_texts(tmp_path / "a.txt")):
        pieces = list(texts.pieces())
        assert "".join(piece.text for piece in pieces) == text
        assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert max(len(piece.text) for piece in pieces) <= PIECE


def test_the_hash_tells_texts_and_ends_apart():
    def of(*given):
        tally = Tally()
        documents(texts_of(given), tally)
        return tally.sha256

    assert of("ab", "c") == of("ab", "c")
    assert len({of("ab", "c"), of("a", "bc"), of("abc"), of("ab", "d")}) == 4


def test_a_data_set_without_the_package_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match="pip install datasets"):
        open_texts("hf:somebody/something")


def test_a_data_set_is_streamed(monkeypatch):
    asked = []

    def load_dataset(*names, **choices):
        asked.append((names, choices))
        return ({"text": word} for word in ("one", "two"))

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    texts = open_texts("hf:somebody/something:small", split="test")
    assert not asked
    assert documents(texts) == ["one", "two"]
    assert asked == [(("somebody/something", "small"), {"split": "test", "streaming": True})]


def test_a_data_set_that_cannot_be_opened_is_named(monkeypatch):
    def load_dataset(*names, **choices):
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(UserError, match=r"'somebody/none' \(train\) on the Hub; it could not be opened: no network"):
        documents(open_texts("hf:somebody/none"))


def test_one_document_is_no_documents():
    tally = Tally()
    tally.add(Piece("a", True))
    assert str(tally) == "1 document of 1 character"
