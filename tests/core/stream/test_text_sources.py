"""Where the tokens of rows are from: followed from documents into rows, in memory and on disk, through any stop."""

import json

import pytest
import torch

from letters import Letters, spell
from micrographia.core.stream import tokenise as tokenise_module
from micrographia.core.stream.packing import SourceRuns, layout_for
from micrographia.core.stream.texts import open_texts, texts_of
from micrographia.core.stream.tokenise import open_tokens, token_rows, tokenise


@pytest.fixture
def texts(tmp_path):
    """A folder: a text of letters to j, two in a folder of those to p, JSONL whose rows name their source, or not."""
    folder = tmp_path / "texts"
    (folder / "sub" / "inner").mkdir(parents=True)
    (folder / "c.txt").write_text("abcdefghij" * 3)
    (folder / "sub" / "one.txt").write_text("klmnop" * 2)
    (folder / "sub" / "inner" / "two.txt").write_text("ponm" * 2)
    lines = [
        {"text": "qrst", "source": "web"},
        {"text": "uv" * 3, "meta": {"pile_set_name": "Books"}},
        {"text": "wx" * 4},
    ]
    (folder / "z.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return open_texts(folder)


def source_of(letter: str) -> str:
    known = {"abcdefghij": "c.txt", "klmnop": "sub", "qrst": "web", "uv": "Books", "wx": "z.jsonl"}
    return next(name for letters, name in known.items() if letter in letters)


def as_told(rows, sources):
    """Each row's letters and what is told of them, which should be alike."""
    assert sources is not None
    for row, of in zip(rows, sources.of):
        for letter, number in zip(spell(row), of.tolist()):
            yield letter, "" if number < 0 else sources.names[number]


@pytest.mark.parametrize("bos", [True, False])
def test_every_token_is_told_of_its_own_source(texts, bos):
    rows = token_rows(texts, Letters(), layout_for(Letters(), 5, bos=bos))
    told = list(as_told(rows[:], rows.sources()))
    assert {name for _, name in told if name} == {"c.txt", "sub", "web", "Books", "z.jsonl"}
    assert all(name == source_of(letter) for letter, name in told if letter.isalpha())
    assert {name for letter, name in told if letter == "."} == ({""} if bos else set())


def test_shards_tell_the_same_also_of_rows_in_another_order_and_after_a_stop(texts, tmp_path, monkeypatch):
    layout, choices = layout_for(Letters(), 5), {"shard_tokens": 10, "d_vocab": 28}
    wanted = token_rows(texts, Letters(), layout).sources()
    with monkeypatch.context() as patched:
        patched.setattr(tokenise_module, "_found", stopping(tokenise_module._found, after=3))
        with pytest.raises(KeyboardInterrupt):
            tokenise(texts, Letters(), layout, tmp_path / "t", **choices)
    tokenise(texts, Letters(), layout, tmp_path / "t", **choices)
    rows = open_tokens(tmp_path / "t")
    assert len(rows.lengths) > 4
    assert rows.sources().names == wanted.names
    assert torch.equal(rows.sources().of, wanted.of)
    some = torch.tensor([4, 0, 7])
    assert torch.equal(rows.take(some).sources().of, wanted.of[some])
    assert torch.equal(rows.between(2, 6).sources().of, wanted.of[2:6])


def test_beyond_the_first_shards_sources_are_not_known(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenise_module, "SOURCED", 4)
    rows = tokenise(texts, Letters(), layout_for(Letters(), 5), tmp_path / "t", shard_tokens=10, d_vocab=28)
    of = rows.sources().of
    assert bool((of[:8, 1:] >= 0).all())
    assert bool((of[8:] == -1).all())


def test_one_text_and_texts_at_hand_have_no_sources():
    rows = token_rows(texts_of(["abcdefgh", "ijklmnop"]), Letters(), layout_for(Letters(), 4))
    assert rows.sources() is None


def test_runs_of_one_source_are_joined_and_cut():
    runs = SourceRuns()
    for source, n in (("a", 2), ("a", 3), ("b", 4), ("a", 1)):
        runs.add(source, n)
    assert runs.first(6) == [("a", 5), ("b", 1)]
    assert runs.runs == [("b", 3), ("a", 1)]


def stopping(work, after):
    """Interrupts at the call after so many."""
    calls = iter(range(10**6))

    def called(*given):
        if next(calls) == after:
            raise KeyboardInterrupt
        return work(*given)

    return called
