"""A suite is listed by the names of its files, read one at a time, and written so that SAELens opens each."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dictionary_files as files
import micrographia as mg
from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.dictionaries.formats.facets import kind_of
from micrographia.core.dictionaries.formats.load import load_one
from micrographia.core.dictionaries.suite import INDEX, Suite, SuiteMember, write_suite
from micrographia.core.errors import BadConfig, Corrupt, UnknownDictionary, UnreadableWeights
from micrographia.core.sites import Site

GEMMA_1 = {(0, "16k"): (13, 46, 105), (1, "16k"): (82, 176, 22), (5, "65k"): (21, 72)}
GEMMA_2 = {
    "resid_post": ["layer_7_width_16k_l0_small", "layer_7_width_16k_l0_big"],
    "resid_post_all": ["layer_7_width_16k_l0_small", "layer_3_width_262k_l0_big"],
    "attn_out_all": ["layer_3_width_16k_l0_small"],
    "crosscoder": ["layer_7_13_17_22_width_64k_l0_medium"],
}


@pytest.fixture
def first(tmp_path: Path) -> Suite:
    """Gemma Scope 1: one site, that of the repository's name."""
    root = tmp_path / "gemma-scope-2b-pt-res"
    for (layer, width), sizes in GEMMA_1.items():
        for l0 in sizes:
            files.gemma_scope(root, f"layer_{layer}/width_{width}/average_l0_{l0}")
    return Suite.load(root)


@pytest.fixture
def second(tmp_path: Path) -> Suite:
    """Gemma Scope 2: several sites in one repository, an L0 in words."""
    root, draw = tmp_path / "gemma-scope-2-1b-pt", files.Draw()
    for kind, names in GEMMA_2.items():
        for name in names:
            w = {name.lower(): value for name, value in files.sae_tensors(draw).items()}
            files.put(root / kind / name / "params.safetensors", {**w, "threshold": draw(files.N).abs()})
            files.put_json(root / kind / name / "config.json", {"architecture": "jump_relu"})
    return Suite.load(root)


def made(site: str, width: int = 6, seed: int = 0) -> Dictionary:
    draw = files.Draw(seed)
    shapes = {"W_enc": (4, width), "W_dec": (width, 4), "b_enc": (width,), "b_dec": (4,), "threshold": (width,)}
    weights = DictionaryWeights(**{name: draw(*shape).float().abs() for name, shape in shapes.items()})
    return Dictionary(
        weights, Form(activation="jumprelu", subtract_b_dec=False), About(site=Site.parse(site), model="toy")
    )


@pytest.fixture
def own(tmp_path: Path) -> Suite:
    members = [
        SuiteMember(made(site, width, seed), l0=l0, metrics={"l0": l0 + 1.5, "fvu": 0.25})
        for seed, (site, width, l0) in enumerate(
            [("L0.resid_post", 6, 2), ("L0.resid_post", 6, 3), ("L1.resid_post", 9, 2), ("L1.z", 6, 2)]
        )
    ]
    return write_suite(tmp_path / "own", members, about={"model": "toy"})


def test_gemma_scope_is_listed_with_its_canonical_ones(first: Suite):
    rows = {(row.layer, row.width, row.l0): row for row in first.rows()}
    assert len(rows) == len(first) == 8
    assert {row.site for row in first} == {"resid_post"}
    assert {key for key, row in rows.items() if row.canonical} == {(0, 16384, 105), (1, 16384, 82), (5, 65536, 72)}


def test_nothing_is_read_to_list(first: Suite, monkeypatch: pytest.MonkeyPatch):
    from micrographia.core.dictionaries.formats.holding import Holding

    def refuse(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(Holding, "tensors", refuse)
    assert len(Suite.load(first.where)) == 8
    with pytest.raises(AssertionError, match="read"):
        first.get(layer=0)


def test_the_dictionary_asked_for_is_the_one_in_the_file(first: Suite):
    found = first.get(layer=1, width="16k", l0="canonical")
    assert found.about.source.endswith("layer_1/width_16k/average_l0_82")
    assert str(found.about.site) == "L1.resid_post"
    assert first.get(layer=1, l0=30).about.source.endswith("average_l0_22")
    assert first.get(site="L5.resid_post", dtype="float32").dtype == torch.float32
    assert first["layer_0/width_16k/average_l0_13"].about.training["l0"] == 13


def test_several_sites_of_gemma_scope_2_are_told_apart(second: Suite):
    assert {row.site for row in second} == {"resid_post", "z", "crosscoder"}
    assert str(second.get(site="z", layer=3).about.site) == "L3.z"
    assert second.get(site="resid_post", layer=7, l0="big").about.source.endswith("resid_post/layer_7_width_16k_l0_big")
    assert "resid_post_all" in second.get(site="resid_post_all", layer=7).about.source
    assert "resid_post/" in second.get(site="resid_post", layer=7, l0="small").about.source
    assert second.get(site="resid_post", layer=3).about.source.endswith("layer_3_width_262k_l0_big")
    assert [row.layer for row in second.only(site="crosscoder")] == [None]


def test_the_part_that_fits_is_a_suite(first: Suite):
    assert [row.l0 for row in first.only(l0="canonical")] == [105, 82, 72]
    assert [row.l0 for row in first.only(width="16k", l0=40)] == [46, 22]
    assert len(first.only(layer=0).only(width=16384)) == 3


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"layer": 3}, "layer 3 in .*layers 0, 1, 5"),
        ({"layer": 0, "width": "65k"}, "width 65k.*widths 16384"),
        ({"site": "z"}, "site z.*sites resid_post"),
        ({}, r"\(0, 1, 5\): name one"),
        ({"layer": 0, "width": "wide"}, "width 'wide'"),
        ({"layer": 0, "site": "L1.resid_post"}, "Give one of them"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(first: Suite, choice: dict, says: str):
    with pytest.raises((UnknownDictionary, BadConfig), match=says):
        first.get(**choice)


def test_of_several_sites_none_is_taken_unasked(own: Suite):
    with pytest.raises(UnknownDictionary, match=r"2 sites fit: L1\.resid_post, L1\.z\. Give the site"):
        own.get(layer=1, l0="canonical")
    assert str(own.get(site="z", layer=1).about.site) == "L1.z"


def test_l0s_are_told_as_they_were_asked_for(own: Suite, tmp_path: Path):
    with pytest.raises(UnknownDictionary, match=r"widths 6, 9; L0 2, 3\."):
        own.get(layer=7)
    measured = [SuiteMember(made("L0.z"), metrics={"l0": 2.694683})]
    with pytest.raises(UnknownDictionary, match=r"L0 2\.69\."):
        write_suite(tmp_path / "measured", measured).get(layer=7)


def test_a_dictionary_is_loaded_by_its_site(own: Suite, tmp_path: Path):
    assert str(Dictionary.load(own.where, site="L1.z").about.site) == "L1.z"
    assert str(Dictionary.load(own.where, site="resid_post", layer=1).about.site) == "L1.resid_post"
    with pytest.raises(UnknownDictionary, match=r"2 sites fit: L1\.resid_post, L1\.z"):
        Dictionary.load(own.where, layer=1)
    alone = Path(own.where) / own.only(site="z").rows()[0].path
    with pytest.raises(UnknownDictionary, match=r"site resid_post .* of L1\.z"):
        Dictionary.load(alone, site="resid_post")
    made("L2.z").save(tmp_path / "run" / "nameless")
    assert str(Dictionary.load(tmp_path / "run", site="L2.z").about.site) == "L2.z"
    with pytest.raises(UnknownDictionary, match=r"site resid_post .* of L2\.z"):
        Dictionary.load(tmp_path / "run", site="resid_post")


def test_a_dictionary_of_a_run_is_named_after_its_site():
    assert kind_of("runs/one/dictionaries/L0.resid_post-l0_2-seed0") == "resid_post"
    assert kind_of("dictionaries/L1.z/cfg.json") == "z"


def test_mixed_widths_are_told(tmp_path: Path):
    members = [SuiteMember(made("L0.z", width), l0=2) for width in (6, 9)]
    with pytest.raises(UnknownDictionary, match=r"or width \(6, 9\)\."):
        write_suite(tmp_path / "s", members).get(layer=0)


def test_a_suite_prints_a_line_for_each_site_layer_and_width(first: Suite):
    assert "resid_post      1  16384  22 [82] 176" in str(first)
    assert str(first).startswith("8 dictionaries in ")
    (table,) = first.figures()
    assert len(table.data["rows"]) == 8


def test_our_own_suite_comes_back_as_it_was(own: Suite):
    assert [(row.site, row.layer, row.width, row.l0, row.asked) for row in own] == [
        ("resid_post", 0, 6, 3.5, 2), ("resid_post", 0, 6, 4.5, 3), ("resid_post", 1, 9, 3.5, 2), ("z", 1, 6, 3.5, 2),
    ]  # fmt: skip
    assert own.about == {"model": "toy"}
    found, expected = own.get(site="resid_post", layer=0, l0=3.6), made("L0.resid_post", 6, 0)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.encode(x), expected.encode(x))
    assert found.about.site == Site("resid_post", 0)


def test_each_folder_of_it_is_one_that_saelens_opens(own: Suite):
    for row in own:
        folder = Path(own.where) / row.path
        assert {path.name for path in folder.iterdir()} == {"cfg.json", "sae_weights.safetensors"}
        config = json.loads((folder / "cfg.json").read_text())
        assert config["architecture"] == "jumprelu"
        assert config["metadata"]["hook_name"].startswith(f"blocks.{row.layer}.")
        assert load_one(folder).n_latents == row.width
    assert load_one(own.where, layer=1, width=9).about.site == Site("resid_post", 1)


def test_a_published_suite_saved_is_one_of_ours(first: Suite, tmp_path: Path):
    ours = first.only(width="16k", l0="canonical").save(tmp_path / "copy")
    assert [(row.layer, row.l0, row.canonical) for row in ours] == [(0, 105, True), (1, 82, True)]
    theirs, found = first.get(layer=1), ours.get(layer=1)
    assert torch.equal(theirs.weights.W_enc, found.weights.W_enc)
    with pytest.raises(BadConfig, match="holds something"):
        first.save(tmp_path / "copy")


def test_a_file_without_its_hash_is_refused(own: Suite):
    path = Path(own.where) / own.rows()[0].path / "sae_weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Corrupt, match=r"sae_weights\.safetensors is altered"):
        own.get(layer=0, l0=2)
    path.write_bytes(bytes(data[:40]))
    with pytest.raises(Corrupt, match="cut short"):
        own.get(layer=0, l0=2)


def test_a_layer_that_was_removed_is_told_and_not_listed(own: Suite):
    for path in (Path(own.where) / "z").rglob("*.*"):
        path.unlink()
    notes = []
    left = Suite.load(own.where, watch=lambda event: notes.append(str(event)))
    assert "z/layer_1_width_6_l0_2" in notes[0]
    assert {row.site for row in left} == {"resid_post"}


@pytest.mark.parametrize(
    "change",
    [
        {"dictionaries": []}, {"dictionaries": {"z/layer_1_width_6_l0_2": {}}}, {"about": 3}, {"site": 5},
        {"site": "nowhere"}, {"width": "9"}, {"l0": "few"}, {"l0_asked": [2]}, {"files": []},
        {"files": {"cfg.json": {"bytes": 3}}}, {"metrics": 7},
    ],
    ids=str,
)  # fmt: skip
def test_an_index_that_was_altered_is_corrupt(own: Suite, change: dict[str, object]):
    index = Path(own.where) / INDEX
    content = json.loads(index.read_text())
    whole = change.keys() <= content.keys()
    (content if whole else content["dictionaries"]["z/layer_1_width_6_l0_2"]).update(change)
    index.write_text(json.dumps(content))
    with pytest.raises(Corrupt, match="was altered"):
        Suite.load(own.where)


@pytest.mark.parametrize("l0", [float("nan"), "nan", "inf", "many"])
def test_an_l0_that_is_no_number_is_refused(own: Suite, l0: float | str):
    for kind, layer in (("resid_post", 0), ("z", 1)):
        with pytest.raises(BadConfig, match="Asked for l0"):
            own.get(site=kind, layer=layer, l0=l0)


def test_an_index_that_contradicts_the_files_is_refused(own: Suite):
    index = Path(own.where) / INDEX
    index.write_text(index.read_text().replace('"width": 9', '"width": 12'))
    with pytest.raises(UnreadableWeights, match="width 12, and its own files 9"):
        Suite.load(own.where).get(site="resid_post", layer=1)


def test_two_of_one_place_and_one_of_no_place_are_refused(tmp_path: Path):
    one = SuiteMember(made("L0.z"), l0=2)
    with pytest.raises(BadConfig, match="two dictionaries as z/layer_0_width_6_l0_2"):
        write_suite(tmp_path / "s", [one, one])
    nameless = replace(one.dictionary, about=replace(one.dictionary.about, site=None))
    with pytest.raises(BadConfig, match="does not know its Site"):
        write_suite(tmp_path / "s", [SuiteMember(nameless)])
    assert not (tmp_path / "s").exists()


def test_an_empty_folder_is_no_suite(tmp_path: Path):
    with pytest.raises(UnknownDictionary, match="A suite is"):
        Suite.load(tmp_path)
    with pytest.raises(UnknownDictionary, match="no such folder"):
        Suite.load("/nowhere/at/all")


def test_of_a_repository_only_what_is_asked_for_is_fetched(own: Suite, monkeypatch: pytest.MonkeyPatch):
    from micrographia.core.pretrained import hub

    root = Path(own.where)
    paths, asked = [each.relative_to(root).as_posix() for each in root.rglob("*") if each.is_file()], []
    monkeypatch.setattr(hub, "listing", lambda repository, revision, watch: paths)
    monkeypatch.setattr(hub, "fetched", lambda repository, names, revision, watch: asked.extend(names) or root)
    found = Suite.load("me/own", revision="v1")
    assert (found.where, asked) == ("me/own@v1", [INDEX])
    assert found.rows() == own.rows()
    found.get(site="z", layer=1)
    assert sorted(asked[1:]) == [f"z/layer_1_width_6_l0_2/{name}" for name in ("cfg.json", "sae_weights.safetensors")]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("google/gemma-scope-9b-pt-att/layer_3/width_16k/average_l0_20", "z"),
        ("google/gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_20", "mlp_norm"),
        ("google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "embed"),
        ("me/x/blocks.8.hook_resid_pre", "resid_pre"),
        ("me/x/mlp_out/layer_0_width_9_l0_2", "mlp_out"),
        ("me/x/clt/width_262k_l0_medium_affine", "clt"),
        ("me/x/trainer_5", ""),
    ],
)
def test_names_tell_where_a_dictionary_reads(path: str, kind: str):
    assert kind_of(path) == kind


def test_a_notebook_shows_it(own: Suite):
    assert mg.Suite is Suite  # which attaches the display
    assert "resid_post/layer_0_width_6_l0_2" in own._repr_html_()
