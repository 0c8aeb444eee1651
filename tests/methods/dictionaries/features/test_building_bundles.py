"""A bundle is whole or not there; resumed it is the same to the byte; what is damaged or does not fit is refused."""

import dataclasses
import json
import shutil

import pytest
import torch
from bundled import ALL, CHOICE, CONTEXT, SITE, D, built, mixed, reader, tokens

from micrographia.core.dictionaries.dictionary import FIRST_TOKEN, LEFT_OUT
from micrographia.core.errors import BadBundle, BadConfig, BadShape, NonFiniteActivations, RunExists, UserError
from micrographia.core.events import Progress
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.evaluation.reading import Counted
from micrographia.methods.dictionaries.features import build, firings
from micrographia.methods.dictionaries.features.build import build_bundle
from micrographia.methods.dictionaries.features.bundle import Bundle, find_bundles
from micrographia.methods.dictionaries.features.head import HEAD, PAGES, TOKENS
from micrographia.methods.dictionaries.features.matching import MATCHING

pytestmark = pytest.mark.usefixtures("unchecked")


def files(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.fixture
def small_shards(monkeypatch):
    """A shard for every block, of two rows."""
    monkeypatch.setattr(firings, "SHARD", 1)
    monkeypatch.setattr(firings, "DENSE", 20 * 9)


def stopping(stage, after):
    def watch(event):
        if isinstance(event, Progress) and event.stage == stage and event.done >= after:
            raise KeyboardInterrupt

    return watch


@pytest.mark.parametrize(
    ("stage", "after"), [("firings of latents", 1), ("firings of latents", 31), ("pages of latents", 0)]
)
def test_a_build_that_was_stopped_goes_on_and_gives_the_same_bytes(tmp_path, small_shards, stage, after):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = built(tmp_path / "a" / "one", labels=True)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "b" / "one", labels=True, watch=stopping(stage, after))
    assert [each.name for each in (tmp_path / "b").iterdir()] == ["one.firings"]
    seen = []
    again = built(tmp_path / "b" / "one", labels=True, watch=seen.append)
    assert files(again.folder) == files(whole.folder)
    assert [each.name for each in (tmp_path / "b").iterdir()] == ["one"]
    read = [each.done for each in seen if isinstance(each, Progress) and each.stage == "firings of latents"]
    assert len(read) == {1: 29, 31: 14, 0: 0}[after]  # of thirty blocks


def test_the_same_generator_gives_the_same_bytes_and_another_draws_others(tmp_path):
    one, same = built(tmp_path / "x" / "one"), built(tmp_path / "y" / "one")
    assert files(one.folder) == files(same.folder)
    other = built(tmp_path / "z" / "one", generator=generator(6))
    assert files(other.folder)[PAGES] != files(one.folder)[PAGES]


def test_ranges_of_latents_and_shards_change_nothing(tmp_path, monkeypatch):
    whole = built(tmp_path / "x" / "one")
    monkeypatch.setattr(firings, "SHARD", 100)
    monkeypatch.setattr(firings, "DENSE", 20 * 9)
    monkeypatch.setattr(build, "RANGE_FIRINGS", 150)
    monkeypatch.setattr(build, "RANGE_LATENTS", 3)
    parted = built(tmp_path / "y" / "one")
    for one, other in zip(whole.pages(range(9)), parted.pages(range(9))):
        for name in ("n_fires", "max", "histogram", "groups", "label"):
            assert one[name] == other[name]
        for name in ("neighbours", "correlated", "neurons"):
            assert [at for at, _ in other[name]] == [at for at, _ in one[name]]
            assert [v for _, v in other[name]] == pytest.approx([v for _, v in one[name]], abs=1e-6)
    assert whole.by_token("e") == parted.by_token("e")


def test_ranges_hold_so_many_firings_and_latents(tmp_path):
    place = tmp_path / "store"
    store = firings.record_firings(mixed(), reader(), SITE, tokens(), ALL, place)
    for most, n in ((150, 3), (1, 9), (10**6, 2), (10**6, 100)):
        found = store.ranges(most, n)
        assert [i for each in found for i in each] == list(range(9))
        assert all(len(each) == 1 or int(store.counts[each.start : each.stop].sum()) <= most for each in found)
        assert max(map(len, found)) <= n


def test_what_training_did_with_first_tokens_is_recorded_where_the_dictionary_knows_it(tmp_path):
    own = mixed()
    known = dataclasses.replace(own, about=dataclasses.replace(own.about, training={FIRST_TOKEN: LEFT_OUT}))
    found = [built(tmp_path / str(i), each).about["first_token"] for i, each in enumerate((own, known))]
    assert found == [None, LEFT_OUT]


def test_special_tokens_are_left_out(tmp_path):
    ids = tokens(8)
    found = built(tmp_path / "one", ids=ids, counted=Counted(special=(3,)))
    assert found.about["n_tokens"] == int((ids[:, 1:] != 3).sum())
    assert found.by_token("<script>") == []
    passages = [each for page in found.pages(range(9)) for group in page["groups"] for each in group["passages"]]
    assert all(value == 0 for each in passages for word, value in zip(each["tokens"], each["values"]) if "<" in word)


def test_bundles_below_a_folder_are_found(tmp_path):
    for name in ("b", "a", "deep/c"):
        built(tmp_path / name, ids=tokens(4))
    assert list(find_bundles(tmp_path)) == ["a", "b", "deep/c"]
    assert find_bundles(tmp_path / "b") == {".": tmp_path / "b"}


def test_a_folder_that_is_none_and_latents_that_are_not_there(tmp_path):
    with pytest.raises(BadBundle, match=r"holds no bundle\.json"):
        Bundle.open(tmp_path)
    found = built(tmp_path / "one", ids=tokens(4))
    for latent in (9, -1, True, "3"):
        with pytest.raises(UserError, match="this bundle has 9: 0 to 8"):
            found.page(latent)
    with pytest.raises(RunExists, match="Choose another folder"):
        built(tmp_path / "one")


@pytest.mark.parametrize("name", [PAGES, TOKENS, "index.parquet"])
def test_a_bundle_that_was_cut_short_is_refused(tmp_path, name):
    folder = built(tmp_path / "one", ids=tokens(4)).folder
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-7])
    with pytest.raises(BadBundle, match="bytes where"):
        Bundle.open(folder)
    (folder / name).unlink()
    with pytest.raises(BadBundle, match="is missing"):
        Bundle.open(folder)


def test_changed_bytes_are_noticed_where_they_are_read(tmp_path):
    folder = built(tmp_path / "one", ids=tokens(4)).folder
    data = bytearray((folder / PAGES).read_bytes())
    for at in range(len(data) // 3, len(data) // 3 + 200):
        data[at] ^= 255
    (folder / PAGES).write_bytes(data)
    with pytest.raises(BadBundle, match="built again"):
        Bundle.open(folder).page(0)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": 1}', '{"schema": 1, "about": {"format": 2}}', '{"schema": 7}']
)
def test_a_head_of_another_format_is_refused(tmp_path, text):
    folder = built(tmp_path / "one", ids=tokens(4)).folder
    (folder / HEAD).write_text(text)
    with pytest.raises(BadBundle):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["index.parquet", TOKENS])
def test_small_files_that_were_altered_are_noticed_when_it_is_opened(tmp_path, name):
    folder = built(tmp_path / "one", ids=tokens(4)).folder
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 255
    (folder / name).write_bytes(data)
    with pytest.raises(BadBundle, match=f"{name} is altered"):
        Bundle.open(folder)


def test_what_bundles_are_compared_by_is_held_against_its_hash(tmp_path):
    one, other = (built(tmp_path / each, ids=tokens(4)) for each in "ab")
    assert one.compare(other)["cosine"]
    file = other.folder / MATCHING
    data = bytearray(file.read_bytes())
    data[-3] ^= 255
    file.write_bytes(data)
    with pytest.raises(BadBundle, match=r"matching\.safetensors is altered"):
        one.compare(other)
    file.unlink()
    with pytest.raises(BadBundle, match=r"matching\.safetensors is missing"):
        other.compare(one)


@pytest.mark.parametrize(
    "change",
    [
        {"n_latents": "9"}, {"n_latents": 9.0}, {"n_latents": True}, {"n_tokens": 0}, {"n_tokens": None}, {"n_ctx": 0},
        {"n_ctx": "ten"}, {"before": -1}, {"before": 6}, {"window": 0}, {"window": 7}, {"window": None}, {"groups": []},
        {"groups": {}}, {"groups": [["top"]]}, {"groups": [["top", -1]]}, {"groups": [["top", 4]]},
        {"files": []}, {"files": {PAGES: 3}}, {"files": {PAGES: {"bytes": "x", "sha256": ""}}}, {"name": 3},
        {"model": []}, {"weights": 5}, {"site": {}}, {"groups": [[3, 4]]}, {"n_tokens": 37},
        {"sha256": "0"}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_head_that_was_altered_is_refused(tmp_path, change):
    folder = built(tmp_path / "one", ids=tokens(4)).folder
    head = json.loads((folder / HEAD).read_text())
    (head["about"] if change.keys() <= head["about"].keys() else head).update(change)
    (folder / HEAD).write_text(json.dumps(head))
    with pytest.raises(BadBundle, match=r"bundle\.json"):
        Bundle.open(folder)


@pytest.mark.parametrize("missing", ["files", "groups", "window", "n_ctx"])
def test_a_head_that_lacks_something_is_refused(tmp_path, missing):
    folder = built(tmp_path / "one", ids=tokens(4)).folder
    head = json.loads((folder / HEAD).read_text())
    del head[missing]
    (folder / HEAD).write_text(json.dumps(head))
    with pytest.raises(BadBundle, match=missing):
        Bundle.open(folder)


def test_a_head_of_other_pages_is_refused(tmp_path):
    folder = built(tmp_path / "one", ids=tokens(4)).folder
    head = json.loads((folder / HEAD).read_text())
    head["about"]["n_latents"] = 10**9
    (folder / HEAD).write_text(json.dumps(head))
    with pytest.raises(BadBundle, match="holds the pages of 9"):
        Bundle.open(folder)
    del head["about"]["n_latents"]
    (folder / HEAD).write_text(json.dumps(head))
    with pytest.raises(BadBundle, match="lacks n_latents"):
        Bundle.open(folder)


def test_a_dictionary_that_does_not_fit_leaves_nothing(tmp_path):
    narrow = mixed()
    weights = dataclasses.replace(
        narrow.weights, W_enc=narrow.weights.W_enc[:7], W_dec=narrow.weights.W_dec[:, :7], b_dec=torch.zeros(7)
    )
    with pytest.raises(BadShape, match=f"{D}"):
        built(tmp_path / "one", dataclasses.replace(narrow, weights=weights))
    with pytest.raises(UserError, match="none counts"):
        built(tmp_path / "two", counted=Counted(skip_first=50))
    assert not (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()


def test_activations_that_are_not_finite_are_refused(tmp_path):
    model = reader()
    model.weights.W_E[5] = torch.nan
    with pytest.raises(NonFiniteActivations, match="rows 0 to"):
        build_bundle(mixed(), model, tokens(), SITE, tmp_path / "one", generator=generator(1), counted=ALL)


def test_more_tokens_than_places_are_refused(tmp_path):
    rows = torch.zeros(1, CONTEXT, dtype=torch.long).expand(2**31 // CONTEXT + 1, -1)
    with pytest.raises(UserError, match="214,748,364 rows at most"):
        built(tmp_path / "one", ids=rows)


def test_a_pass_of_other_tokens_is_not_taken_for_this_one(tmp_path, small_shards):
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "one", watch=stopping("firings of latents", 11))
    with pytest.raises(BadConfig, match="tokens is"):
        built(tmp_path / "one", ids=tokens(seed=2))
    shutil.rmtree(tmp_path / "one.firings")
    assert built(tmp_path / "one", ids=tokens(seed=2)).about["n_rows"] == 60


def test_a_bundle_of_few_firings_and_none(tmp_path):
    found = built(tmp_path / "one", mixed(dead=9), ids=tokens(3), labels=True)
    assert found.about["dead"] == 9
    assert all(page["groups"] == [] and page["dead"] for page in found.pages(range(9)))
    one_row = built(tmp_path / "two", ids=tokens(1), labels=True)
    assert set(one_row.index()["label"]) == {""}
    assert CHOICE.n == 10
