"""Folders of shards: one writer, one kind, resumed from the last good shard; what the stream's tests do not reach."""

import pytest

from micrographia.core.errors import BadConfig, Corrupt, RunExists, RunLocked
from micrographia.core.store import atomic
from micrographia.core.store.shards import Shards, ShardWriter, complete


def begin(folder, **about):
    return ShardWriter.open(folder, kind="numbers", about=about)


def finished(folder, n=3):
    with begin(folder) as writer:
        for i in range(n):
            writer.add(bytes([i]) * 4, {"done": i + 1}, suffix=".bin")
        writer.finish({"n": n})
    return folder


def test_what_was_written_is_read(tmp_path):
    shards = Shards(finished(tmp_path), kind="numbers")
    assert [shards.file(name).read_bytes()[0] for name in shards.names] == [0, 1, 2]
    assert (shards.n_bytes, shards.found, shards.places[1]) == (12, {"n": 3}, {"done": 2})
    shards.check()


def test_there_is_one_writer(tmp_path):
    with begin(tmp_path), pytest.raises(RunLocked):
        begin(tmp_path)
    with begin(tmp_path) as writer:
        assert writer.n_shards == 0


def test_another_kind_is_refused(tmp_path):
    with pytest.raises(BadConfig, match=r"Asked for letters .* holds numbers"):
        Shards(finished(tmp_path), kind="letters")
    with pytest.raises(BadConfig, match="holds numbers"):
        ShardWriter.open(tmp_path, kind="letters", about={})


def test_a_shard_that_could_not_be_listed_is_written_again(tmp_path, monkeypatch):
    with begin(tmp_path) as writer:
        writer.add(b"one", {"done": 1}, suffix=".bin")
        with monkeypatch.context() as patched:
            patched.setattr(atomic, "_rename", _failing_second(atomic._rename))
            with pytest.raises(OSError, match="rename"):
                writer.add(b"two", {"done": 2}, suffix=".bin")
        assert writer.place == {"done": 1}
        writer.add(b"2", {"done": 2}, suffix=".bin")
        writer.finish({})
    shards = Shards(tmp_path, kind="numbers")
    assert [shards.file(name).read_bytes() for name in shards.names] == [b"one", b"2"]


def _failing_second(rename):
    calls = []

    def renaming(*names):
        calls.append(names)
        if len(calls) == 2:
            raise OSError(5, "rename")
        rename(*names)

    return renaming


def test_shards_behind_a_damaged_one_are_dropped(tmp_path):
    (finished(tmp_path) / "000001.bin").write_bytes(b"bad!")
    with begin(tmp_path) as writer:
        assert (writer.n_shards, writer.place, writer.finished) == (1, {"done": 1}, False)
        assert writer.dropped == ["000001.bin", "000002.bin"]
    with pytest.raises(Corrupt, match="1 shards are written and more are to come"):
        Shards(tmp_path, kind="numbers")


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(RunExists, match=r"notes\.txt"):
            begin(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_complete_folder_is_read_without_a_lock(tmp_path):
    assert complete(tmp_path, kind="numbers", about={}) is None
    finished(tmp_path)
    with begin(tmp_path):  # another holds it
        shards = complete(tmp_path, kind="numbers", about={})
        assert shards is not None
        assert shards.names == ["000000.bin", "000001.bin", "000002.bin"]
    assert complete(tmp_path, kind="numbers", about={"more": 1}) is None
    (tmp_path / "000001.bin").write_bytes(b"bad!")
    assert complete(tmp_path, kind="numbers", about={}) is None
