"""Tokens: packing, rows, and shards that go on where they were stopped and are checked before they are read."""

import errno
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from letters import BOS, EOS, Letters, spell
from micrographia.core.errors import BadConfig, BadShape, CannotWrite, Corrupt, RunExists, RunNotFound, UserError
from micrographia.core.events import Note, Progress
from micrographia.core.store import atomic
from micrographia.core.stream import texts as texts_module
from micrographia.core.stream.packing import RowLayout, layout_for
from micrographia.core.stream.rows import as_rows, special_tokens
from micrographia.core.stream.texts import texts_of
from micrographia.core.stream.tokenise import open_tokens, token_rows, tokenise
from micrographia.core.tokens import Vocabulary

TEXTS = texts_of(["abcdefg", "hij", "klmnopqrstu", "v"])


def rows_of(n_ctx, **choices):
    return [spell(row) for row in token_rows(TEXTS, Letters(), layout_for(Letters(), n_ctx, **choices))]


@pytest.mark.parametrize(
    ("choices", "wanted"),
    [
        ({"bos": True}, [".abcd", ".efg|", ".hij|", ".klmn", ".opqr", ".stu|"]),
        ({"bos": False}, ["abcde", "fg|hi", "j|klm", "nopqr", "stu|v"]),
        ({"bos": False, "separator": None}, ["abcde", "fghij", "klmno", "pqrst"]),
        ({"bos": True, "separator": "bos"}, [".abcd", ".efg.", ".hij.", ".klmn", ".opqr", ".stu."]),
        ({"bos": False, "separator": 27}, ["abcde", "fgzhi", "jzklm", "nopqr", "stuzv"]),
    ],
)
def test_documents_lie_one_behind_the_other(choices, wanted):
    assert rows_of(5, **choices) == wanted


def test_bos_at_a_rows_start_comes_once():
    assert rows_of(4, bos=True, separator="bos")[:4] == [".abc", ".def", ".g.h", ".ij."]
    assert rows_of(8, bos=True, separator="bos")[:2] == [".abcdefg", ".hij.klm"]


def test_bos_is_put_where_the_tokenizer_puts_it():
    assert layout_for(Letters(), 8).bos == BOS
    assert layout_for(Letters(bos=None), 8).bos is None
    lazy = Letters()
    lazy.puts_bos = False
    assert layout_for(lazy, 8).bos is None


def test_what_the_tokenizer_lacks_is_refused():
    none = Letters(bos=None, eos=None)
    with pytest.raises(BadConfig, match="has none"):
        layout_for(none, 8, bos=True)
    with pytest.raises(BadConfig, match="has none"):
        layout_for(none, 8, separator="bos")
    with pytest.raises(BadConfig, match="There are eos, bos"):
        layout_for(none, 8, separator="sep")
    assert layout_for(none, 8).separator is None
    assert layout_for(Letters(eos=None), 8).separator == BOS
    with pytest.raises(BadConfig, match="no text has room"):
        RowLayout(n_ctx=1, bos=0)


def test_special_tokens_are_those_that_the_tokenizer_names():
    assert special_tokens(Letters()) == (BOS, EOS)
    named = Letters()
    named.special = {9}
    assert special_tokens(named) == (0, 1, 9)


def test_special_tokens_and_the_first_position_do_not_count():
    rows = as_rows(torch.tensor([[0, 5, 1, 6], [7, 8, 9, 9]]), special=[0, 1])
    assert rows.kept(rows[:]).tolist() == [[False, True, False, True], [False, True, True, True]]
    assert rows.kept(rows[:], sink=False).tolist() == [[False, True, False, True], [True] * 4]
    assert rows.counts().tolist() == [2, 3]
    assert as_rows(rows[:]).counts(sink=False).tolist() == [4, 4]


def test_rows_are_chosen_as_of_a_list():
    ids = torch.arange(20).reshape(10, 2)
    rows = as_rows(ids)
    assert torch.equal(rows[2:5], ids[2:5])
    assert torch.equal(rows[-1], ids[-1])
    assert torch.equal(rows[[4, 1]], ids[[4, 1]])
    some = rows.between(2, 8)
    assert torch.equal(some.between(1)[:], ids[3:8])
    assert torch.equal(some.take(torch.tensor([3, 0]))[:], ids[[5, 2]])
    assert torch.equal(some.take(torch.tensor([3, 0, 1])).between(1)[:], ids[[2, 3]])
    assert [len(each) for each in (rows, some, some.between(9))] == [10, 6, 0]
    for wrong in (10, [-11]):
        with pytest.raises(IndexError, match="there are 10"):
            rows[wrong]
    with pytest.raises(IndexError, match="there are 6"):
        some.take(torch.tensor([6]))
    assert len({each.identity for each in (rows, some, as_rows(ids + 1), rows.take(torch.tensor([2, 1])))}) == 4
    with pytest.raises(BadShape):
        as_rows(torch.zeros(0, 4, dtype=torch.long))


def test_too_little_text_says_how_much_is_needed():
    with pytest.raises(UserError, match=r"Asked for 100 tokens .* gives 20 in whole rows.*Give about 110 characters"):
        token_rows(TEXTS, Letters(), layout_for(Letters(), 5, bos=False, separator=None), n_tokens=100)
    with pytest.raises(UserError, match="gives 0 in whole rows"):
        token_rows(TEXTS, Letters(), layout_for(Letters(), 64))
    with pytest.raises(BadConfig, match="1 or more"):
        token_rows(TEXTS, Letters(), layout_for(Letters(), 4), n_tokens=0)


def test_how_much_was_read_is_said():
    heard = []
    rows = token_rows(TEXTS, Letters(), layout_for(Letters(), 5), n_tokens=15, watch=heard.append)
    assert len(rows) == 3
    (note,) = [each.text for each in heard if isinstance(each, Note)]
    assert "2 documents of 10 characters; 15 tokens in 3 rows of 5" in note
    assert [each.done for each in heard if isinstance(each, Progress)] == [15]


LONG = texts_of(["".join(chr(97 + (i * i + j) % 26) for i in range(50 + j)) for j in range(8)])


def written(folder, texts=LONG, tokenizer=None, layout=None, **choices):
    tokenizer = tokenizer or Letters()
    choices = {"shard_tokens": 80, "d_vocab": 28, **choices}
    return tokenise(texts, tokenizer, layout or layout_for(tokenizer, 8), folder, **choices)


@pytest.mark.parametrize("d_vocab", [28, None])
def test_shards_hold_the_rows(tmp_path, d_vocab):
    rows = written(tmp_path / "t", d_vocab=d_vocab)
    wanted = token_rows(LONG, Letters(), layout_for(Letters(), 8))
    assert torch.equal(rows[:], wanted[:])
    assert torch.equal(rows[torch.tensor([50, 3, 11])], wanted[torch.tensor([50, 3, 11])])
    assert rows.special == (BOS, EOS)
    assert rows.n_bytes == rows[:].numel() * (2 if d_vocab else 4)
    again = open_tokens(tmp_path / "t")
    assert torch.equal(again[:], wanted[:])
    assert again.identity == rows.identity
    assert len(again.lengths) == 7


def test_a_complete_folder_is_not_made_again(tmp_path):
    written(tmp_path)
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    written(tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == first


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [2, 3, 6, 15, 16, 17, 99])
@pytest.mark.parametrize("n_tokens", [None, 160])  # 7 and 2 shards
def test_tokenising_goes_on_where_it_was_stopped(tmp_path, monkeypatch, stop_at, n_tokens):
    """Stopped at any rename: of a shard, or of the manifest behind it."""
    written(tmp_path / "whole", n_tokens=n_tokens)
    calls, rename = [], atomic._rename

    def stopping(*names):
        calls.append(names)
        if len(calls) == stop_at:
            raise Stop
        rename(*names)

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "_rename", stopping)
        with suppress(Stop):  # the last number is beyond the end
            written(tmp_path / "t", n_tokens=n_tokens)
    counted = Letters()
    rows = written(tmp_path / "t", tokenizer=counted, n_tokens=n_tokens)
    assert torch.equal(rows[:], open_tokens(tmp_path / "whole")[:])
    assert (tmp_path / "t/manifest.json").read_bytes() == (tmp_path / "whole/manifest.json").read_bytes()


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "_write", _full_after(12, atomic._write))
        with pytest.raises(CannotWrite, match="Free some space"):
            written(tmp_path)
    with pytest.raises(Corrupt, match="more are to come"):
        open_tokens(tmp_path)
    assert torch.equal(written(tmp_path)[:], token_rows(LONG, Letters(), layout_for(Letters(), 8))[:])


def _full_after(n, write):
    calls = []

    def writing(descriptor, data):
        calls.append(data)
        if len(calls) > n:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(descriptor, data)

    return writing


def shard(folder, number=2):
    return sorted(folder.glob("*.tokens"))[number]


def test_a_truncated_shard_is_seen_when_the_folder_is_opened(tmp_path):
    written(tmp_path)
    shard(tmp_path).write_bytes(shard(tmp_path).read_bytes()[:-1])
    with pytest.raises(Corrupt, match=r"000002.tokens is of 159 bytes where 160 were written"):
        open_tokens(tmp_path)


def test_a_missing_shard_is_seen(tmp_path):
    written(tmp_path)
    shard(tmp_path).unlink()
    with pytest.raises(Corrupt, match="is missing"):
        open_tokens(tmp_path)


def test_an_altered_shard_is_seen_before_it_is_read_and_is_made_again(tmp_path):
    wanted = written(tmp_path)[:]
    data = bytearray(shard(tmp_path).read_bytes())
    data[17] ^= 1
    shard(tmp_path).write_bytes(data)
    rows = open_tokens(tmp_path)
    assert torch.equal(rows[:20], wanted[:20])
    with pytest.raises(Corrupt, match=r"000002.tokens, which was altered"):
        rows[25]
    heard = []
    assert torch.equal(written(tmp_path, watch=heard.append)[:], wanted)
    assert any(isinstance(each, Note) and "written again: 000002.tokens" in each.text for each in heard)


def test_an_altered_manifest_is_seen(tmp_path):
    written(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"n_rows": ', '"n_rows":  ', 1))
    with pytest.raises(Corrupt):
        open_tokens(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    written(tmp_path / "t", n_tokens=80)
    with pytest.raises(BadConfig, match=r"n_tokens is 80 there, 160 asked"):
        written(tmp_path / "t", n_tokens=160)
    with pytest.raises(BadConfig, match="layout is"):
        written(tmp_path / "t", n_tokens=80, layout=layout_for(Letters(), 8, bos=False))
    with pytest.raises(BadConfig, match="first is"):
        written(tmp_path / "t", n_tokens=80, texts=texts_of(["other words"]))
    with pytest.raises(RunNotFound):
        open_tokens(tmp_path / "none")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(RunExists, match=r"letter\.txt"):
        written(tmp_path / "mine")


def test_a_text_that_changed_meanwhile_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "_write", _full_after(12, atomic._write))
        with pytest.raises(CannotWrite):
            written(tmp_path)
    documents = ["".join(piece.text) for piece in LONG.pieces()]
    documents[1] = documents[1][:-1] + "q"
    with pytest.raises(BadConfig, match="the text has changed"):
        written(tmp_path, texts=texts_of(documents))


def test_a_token_without_room_is_refused(tmp_path):
    class Large(Letters):
        def encode(self, text):
            return [70_000] * len(text)

    with pytest.raises(BadConfig, match="no room in 2 bytes"):
        written(tmp_path, tokenizer=Large())
    assert int(written(tmp_path / "wide", tokenizer=Large(), d_vocab=None)[:].max()) == 70_000


def test_a_word_level_tokenizer_reads_too():
    words = Vocabulary(("<bos>", "a", "b"), bos=0)
    rows = token_rows(texts_of(["a b", "b a b"]), words, layout_for(words, 4))
    assert rows[:].tolist() == [[0, 1, 2, 0], [0, 2, 1, 2]]


@given(
    st.lists(st.text("abc", max_size=20), max_size=8),
    st.integers(2, 6),
    st.booleans(),
    st.booleans(),
    st.integers(1, 9),
)
def test_the_rows_are_the_text_whatever_its_pieces(documents, n_ctx, bos, separated, piece):
    layout = layout_for(Letters(), n_ctx, bos=bos, separator="eos" if separated else None)
    before = texts_module.PIECE
    texts_module.PIECE = piece
    try:
        rows = token_rows(texts_of([*documents, "abc" * 4]), Letters(), layout)
    finally:
        texts_module.PIECE = before
    stream = [
        i for text in [*documents, "abc" * 4] if text for i in [*Letters().encode(text), *([EOS] if separated else [])]
    ]
    flat = rows[:][:, int(bos) :].flatten().tolist()
    assert flat == stream[: len(flat)]
    assert len(stream) - len(flat) < n_ctx
    assert not bos or all(int(row[0]) == BOS for row in rows)
