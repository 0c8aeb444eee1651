"""Activation shards: the harvest as it would be made again, resumed after a full disk, checked before it is read."""

import errno
from contextlib import suppress

import pytest
import torch
from test_stream_harvest import ROWS, Broken

from letters import random_rows, reader
from micrographia.core.errors import BadConfig, CannotWrite, Corrupt, UserError
from micrographia.core.events import Note, Progress
from micrographia.core.sites import Site
from micrographia.core.store import atomic
from micrographia.core.stream.batches import ActivationStream
from micrographia.core.stream.harvest import harvest
from micrographia.core.stream.stored import open_activations, store_activations

SITES = ["L0.mlp_out", "L1.z"]
SMALL = {"rows_a_pass": 4, "shard_bytes": 2000}


def stored(folder, rows=None, model=None, **choices):
    return store_activations(
        model or reader(), SITES, random_rows(50) if rows is None else rows, folder, **{**SMALL, **choices}
    )  # fmt: skip


def everything(supply):
    found = list(supply.passes(torch.arange(len(supply.count()))))
    return {site: torch.cat([each.values[site] for each in found]) for site in supply.kinds()}


def harvested(**choices):
    found = list(harvest(reader(), SITES, random_rows(50), rows_a_pass=4, **choices))
    return {site: torch.cat([each[site] for each in found]) for site in found[0]}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_shards_hold_the_harvest(tmp_path, dtype):
    found = stored(tmp_path, dtype=dtype, name="mine")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    wanted = {site: value.to(getattr(torch, dtype)) for site, value in harvested().items()}
    assert found.about["model"] == "mine"
    for supply in (found, open_activations(tmp_path)):
        torch.testing.assert_close(everything(supply), wanted, rtol=0, atol=0)
        assert torch.equal(supply.count(), random_rows(50).counts())
    found.check()


def test_rows_are_read_in_any_order(tmp_path):
    found, whole = stored(tmp_path), harvested()
    which = torch.tensor([37, 2, 49, 14])
    first = found.count().cumsum(0) - found.count()
    (read,) = found.passes(which)
    at = torch.cat([torch.arange(int(first[row]), int(first[row] + found.count()[row])) for row in which])
    for site in found.kinds():
        assert torch.equal(read.values[site], whole[site][at])
    assert torch.equal(read.row, which.repeat_interleave(found.count()[which]))


def test_batches_from_shards_are_those_from_the_model(tmp_path):
    """The same schedule; the model's own passes differ in size, and so by rounding."""
    choices = {"batch": 10, "buffer_bytes": 20_000, "seed": 3}
    live = ActivationStream(reader(), SITES, random_rows(50), **choices)
    heard = []
    read = ActivationStream.of(stored(tmp_path), SITES, **choices, watch=heard.append)
    assert "kB on disk" in heard[0].text
    for step in (0, 5, 17):
        for one, other in zip(live.by_member(step), read.by_member(step)):
            torch.testing.assert_close(one.x, other.x)
        assert torch.equal(live.rows(step), read.rows(step))
    again = ActivationStream.of(open_activations(tmp_path), **choices)
    assert torch.equal(again.by_member(17)[1].x, read.by_member(17)[1].x)


def test_a_site_that_was_not_stored_is_named(tmp_path):
    with pytest.raises(UserError, match=r"at embed. There are those at L0.mlp_out, L1.z"):
        ActivationStream.of(stored(tmp_path), "embed", batch=4)


def full_after(n, write):
    calls = []

    def writing(descriptor, data):
        calls.append(data)
        if len(calls) > n:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(descriptor, data)

    return writing


@pytest.mark.parametrize("n_writes", [1, 2, 5, 8, 11, 30])
def test_a_full_disk_in_a_harvest_loses_nothing_and_it_goes_on(tmp_path, monkeypatch, n_writes):
    stored(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "_write", full_after(n_writes, atomic._write))
        with suppress(CannotWrite):  # 30 writes are enough
            stored(tmp_path / "t")
    left = len(list((tmp_path / "t").glob("*.safetensors")))
    heard = []
    stored(tmp_path / "t", watch=heard.append)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == names
    for name in names:
        assert (tmp_path / "t" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = [each.done for each in heard if isinstance(each, Progress)]
    assert not again or left < 2 or again[0] > 4  # it did not begin at the beginning


def test_an_altered_shard_is_seen_before_it_is_read_and_made_again(tmp_path):
    stored(tmp_path)
    path = sorted(tmp_path.glob("*.safetensors"))[1]
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    found = open_activations(tmp_path)
    next(iter(found.passes(torch.tensor([0]))))
    with pytest.raises(Corrupt, match=r"000001\.safetensors, which was altered"):
        everything(found)
    with pytest.raises(Corrupt, match="altered"):
        open_activations(tmp_path).check()
    heard = []
    torch.testing.assert_close(everything(stored(tmp_path, watch=heard.append)), harvested(), rtol=0, atol=0)
    assert any("made again: 000001" in each.text for each in heard if isinstance(each, Note))


def test_a_truncated_shard_is_seen_when_the_folder_is_opened(tmp_path):
    stored(tmp_path)
    path = sorted(tmp_path.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(Corrupt, match="bytes where"):
        open_activations(tmp_path)


def test_another_harvest_in_its_folder_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "_write", full_after(5, atomic._write))
        with pytest.raises(CannotWrite):
            stored(tmp_path)
    with pytest.raises(BadConfig, match="tokens is"):
        stored(tmp_path, random_rows(50, seed=1))
    with pytest.raises(BadConfig, match="dtype is 'float32' there, 'bfloat16' asked"):
        stored(tmp_path, dtype="bfloat16")
    other = reader()
    other.state["blocks.0.mlp.W_out" if "blocks.0.mlp.W_out" in other.state else _some_weight(other)] *= 3
    with pytest.raises(BadConfig, match="this model's first activations"):
        stored(tmp_path, model=other)


def _some_weight(model):
    return next(name for name in model.state if "W_out" in name or "W_E" in name or "embed" in name)


def test_the_size_is_said_before_it_is_written(tmp_path):
    heard = []
    found = stored(tmp_path, watch=heard.append)
    said = [each.text for each in heard if isinstance(each, Note)]
    n_tokens = int(found.count().sum())
    assert said[0].startswith("Left out: ")
    assert f"Activations of {n_tokens} tokens in 50 rows at 2 sites take {n_tokens * 22 * 4:,} bytes" in said[1]


def test_what_a_dtype_does_not_hold_is_refused(tmp_path):
    class Large(Broken):
        def run(self, ids, *, keep, stop):
            found = super().run(ids, keep=keep, stop=stop)
            found.cache = {site: 1e5 * value + 1e6 for site, value in found.cache.items()}
            return found

    with pytest.raises(UserError, match="Store bfloat16 or float32"):
        store_activations(Large(), SITES, ROWS, tmp_path / "a", dtype="float16")
    assert store_activations(Large(), SITES, ROWS, tmp_path / "b", dtype="bfloat16").count().tolist() == [3] * 4
    with pytest.raises(BadConfig, match="Choose float32"):
        store_activations(reader(), SITES, ROWS, tmp_path / "c", dtype="int8")


def test_bad_tokens_are_left_out_of_the_files_when_asked(tmp_path):
    found = store_activations(Broken(bad_token=5), SITES, ROWS, tmp_path, bad="skip", rows_a_pass=2)
    assert found.count().tolist() == [3, 3, 1, 3]
    assert all(torch.isfinite(value).all() for value in everything(found).values())
    assert everything(found)[Site("mlp_out", 0)].shape == (10, 10)


def test_one_of_the_stored_sites_is_read_alone(tmp_path):
    found = stored(tmp_path)
    (read, *_) = found.passes(torch.tensor([0]), [Site("z", 1)])
    assert list(read.values) == [Site("z", 1)]
    both = ActivationStream.of(found, batch=10)
    assert torch.equal(ActivationStream.of(found, "L1.z", batch=10)(3).x, both.by_member(3)[1].x)
