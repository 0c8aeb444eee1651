"""Every layout is read as its formulas say, written and read back, and refused where it contradicts itself."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

import dictionary_files as files
from dictionary_files import LAYOUTS, D, N
from micrographia.core.dictionaries.conversion import convert, inspect
from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import ACTIVATIONS, Form
from micrographia.core.dictionaries.formats.holding import Holding
from micrographia.core.dictionaries.formats.load import load, load_one
from micrographia.core.dictionaries.formats.save import carries, save, written_as
from micrographia.core.dictionaries.formats.table import FORMATS
from micrographia.core.dictionaries.several import AnyDictionary, CrossLayerTranscoder, DictionarySet
from micrographia.core.errors import CannotCarry, Corrupt, PickleRefused, UnknownDictionary, UnreadableWeights
from micrographia.core.sites import Site

layouts = pytest.mark.parametrize("layout", LAYOUTS)
WRITERS = [name for name, row in FORMATS.items() if row.write is not None]


def read(layout: str, folder: Path) -> tuple[AnyDictionary, files.Expected]:
    expected = LAYOUTS[layout](folder)
    return load(expected.path, allow_pickle=True), expected


def same(of: AnyDictionary, x: Tensor, latents: Tensor, reconstruction: Tensor) -> None:
    """Equal to rounding, with the same latents on."""
    torch.testing.assert_close(of.encode(x), latents, rtol=1e-9, atol=1e-9)
    assert torch.equal(of.encode(x) != 0, latents != 0)
    torch.testing.assert_close(of.reconstruct(x), reconstruction, rtol=1e-9, atol=1e-9)


@layouts
def test_a_layout_is_read_as_its_formulas_say(layout: str, tmp_path: Path):
    found, expected = read(layout, tmp_path)
    assert expected.latents.count_nonzero() > 0
    same(found, *expected[1:])


def test_a_comparison_fails_for_another_activation(tmp_path: Path):
    found, expected = read("saelens topk", tmp_path)
    assert isinstance(found, Dictionary)
    other = Dictionary(found.weights, replace(found.form, activation="relu", k=None))
    with pytest.raises(AssertionError):
        same(other, *expected[1:])


def kinds() -> list[str]:
    """One layout for each kind of dictionary."""
    return [name for name in LAYOUTS if "scale" not in name and "whitened" not in name and "flat topk" not in name]


CARRIED: dict[str, set[str]] = {
    "saelens": {"relu", "jumprelu", "gated", "topk", "abstopk"},
    "sparsify": {"topk", "groupmax"},
    "dictionary_learning": {"relu", "jumprelu", "gated", "topk"},
    "openai": {"relu", "topk", "topk-signed"},
    "gemma_scope": {"relu", "jumprelu"},
    "gemma_scope_2": {"relu", "jumprelu"},
    "circuit_tracer": {"relu", "jumprelu", "jump"},
    "cross_layer": {"relu", "jumprelu", "jump"},
}


@pytest.fixture(scope="module")
def all_read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[AnyDictionary, Tensor]]:
    found = {}
    for name in kinds():
        one, expected = read(name, tmp_path_factory.mktemp("layout"))
        found[name] = one, expected.x
    return found


@pytest.mark.parametrize("format", WRITERS)
def test_what_a_format_can_hold_survives_it_and_the_rest_is_refused_with_a_reason(
    format: str, all_read, tmp_path: Path
):
    held = set()
    for i, (one, x) in enumerate(all_read.values()):
        folder = tmp_path / str(i)
        if not carries(one, format):
            assert not folder.exists()
            continue
        lost = save(one, folder, format)
        back = load(folder, allow_pickle=True)
        latents = one.encode(x)
        if isinstance(back, DictionarySet) and isinstance(one, Dictionary):
            back = back[next(iter(back))]
        out = one.reconstruct(x)
        if isinstance(back, Dictionary) and not back.form.heads and x.shape[-1] != back.d_in:
            assert "that it reads the heads of its Site as one" in lost
            x, out = x.flatten(-2), out.flatten(-2)
        same(back, x, latents, out)
        assert all(isinstance(each, str) for each in lost)
        held.add(one.form.activation if not isinstance(one, DictionarySet) else one[0].form.activation)
    assert held >= CARRIED[format]


@pytest.mark.parametrize(
    ("format", "layout", "why"),
    [
        ("saelens", "saelens flat tanh-relu", "this one is tanh-relu"),
        ("saelens", "sparsify groupmax", r"this one is groupmax\. Formats that hold it: sparsify\.$"),
        ("saelens", "sparsify with a skip", "transcoders"),
        ("sparsify", "saelens standard", "holds TopK and GroupMax dictionaries; this one is relu"),
        ("sparsify", "openai topk", "normalised"),
        ("dictionary_learning", "sparsify with a skip", "no place for a skip"),
        ("dictionary_learning", "saelens transcoder", "as wide as"),
        ("dictionary_learning", "saelens layer norm", "normalised"),
        ("openai", "saelens topk", "layer-normed with TopK"),
        ("openai", "saelens layer norm", "layer-normed with TopK"),
        ("gemma_scope", "gemma_scope_2 affine", "no place for a skip"),
        ("gemma_scope_2", "circuit_tracer cross-layer", "one dictionary"),
        ("circuit_tracer", "sparsify transcoder", "ReLU and JumpReLU|JumpReLU and ReLU"),
        ("circuit_tracer", "saelens jumprelu", "holds transcoders; this is an autoencoder"),
        ("circuit_tracer", "gemma_scope", "Formats that hold it: saelens, gemma_scope_2, gemma_scope,"),
        ("circuit_tracer", "gemma_scope_2 cross-layer", "skip"),
    ],
)
def test_a_writer_says_why_it_refuses(format: str, layout: str, why: str, tmp_path: Path):
    found, _ = read(layout, tmp_path / "from")
    with pytest.raises(CannotCarry, match=why):
        save(found, tmp_path / "to", format)


def test_a_refusal_names_what_would_be_written(tmp_path: Path):
    """`carries` looks at a few latents: it must say what `save` then does, negative thresholds included."""
    found, _ = read("circuit_tracer jump", tmp_path / "from")
    assert isinstance(found, DictionarySet)
    for one in (found, found[0], replace(found[0], weights=replace(found[0].weights, W_skip=None))):
        for format in WRITERS:
            try:
                save(one, tmp_path / format, format)
                written = True
            except CannotCarry:
                written = False
            assert carries(one, format) == written
            shutil.rmtree(tmp_path / format, ignore_errors=True)


def test_negative_latents_are_not_written_where_none_may_pass(tmp_path: Path):
    found, _ = read("circuit_tracer jump", tmp_path / "from")
    assert isinstance(found, DictionarySet)
    plain = found[0]
    plain = replace(plain, weights=replace(plain.weights, W_skip=None))
    with pytest.raises(CannotCarry, match="negative"):
        save(plain, tmp_path / "to", "saelens")


def test_a_transcoder_that_saelens_has_no_kind_for_is_told():
    """SAELens 6.54: TopK there is an autoencoder's alone."""
    draw = torch.Generator().manual_seed(0)
    weights = DictionaryWeights(
        W_enc=torch.randn(4, 8, generator=draw), W_dec=torch.randn(8, 4, generator=draw), b_enc=torch.zeros(8),
        b_dec=torch.zeros(4),
    )  # fmt: skip
    about = About(site=Site("mlp_norm", 0), target=Site("mlp_out", 0))
    one = Dictionary(weights, Form(activation="topk", k=2, subtract_b_dec=False), about)
    assert written_as(one, "saelens").lost == (
        "that it writes to L0.mlp_out: SAELens opens it as an autoencoder at its input",
    )


def test_what_was_not_carried_is_told(tmp_path: Path):
    source = LAYOUTS["saelens jumprelu"](tmp_path / "from").path
    lost = convert(source, "gemma_scope", tmp_path / "to")
    assert any("toy" in each for each in lost)
    assert any("L1.resid_post" in each for each in lost)
    assert convert(source, "saelens", tmp_path / "same") == ()
    again = load_one(tmp_path / "same").about
    assert (again.model, again.site) == ("toy", Site("resid_post", 1))


def test_an_encoder_that_did_not_subtract_is_folded_into_one_that_does(tmp_path: Path):
    one, expected = read("dictionary_learning jumprelu", tmp_path / "from")
    assert isinstance(one, Dictionary)
    assert not one.form.subtract_b_dec
    save(replace(one, form=replace(one.form, activation="topk", k=4), weights=replace(one.weights, threshold=None)),
         tmp_path / "to", "sparsify")  # fmt: skip
    back = load_one(tmp_path / "to")
    assert back.form.subtract_b_dec
    ranked = replace(one, form=replace(one.form, activation="topk", k=4), weights=replace(one.weights, threshold=None))
    torch.testing.assert_close(back.encode(expected.x), ranked.encode(expected.x))


def test_saelens_is_told_its_version_so_that_it_keeps_the_metadata(tmp_path: Path):
    save(read("saelens standard", tmp_path / "from")[0], tmp_path / "to")
    config = json.loads((tmp_path / "to" / "cfg.json").read_text())
    assert config["metadata"]["sae_lens_version"].startswith("6.")
    assert "schema" not in config


def test_bfloat16_stays_bfloat16_but_where_numpy_has_none(tmp_path: Path):
    one = read("saelens jumprelu", tmp_path / "from")[0].to(dtype=torch.bfloat16)
    assert save(one, tmp_path / "saelens") == ()
    assert load_one(tmp_path / "saelens").dtype == torch.bfloat16
    assert any("bfloat16" in each for each in save(one, tmp_path / "npz", "gemma_scope"))
    assert load_one(tmp_path / "npz").dtype == torch.float32


@pytest.mark.parametrize(
    ("layout", "note"),
    [
        ("saelens scale beside it", "folded into the weights"),
        ("saelens batchtopk of a trainer", "depend on the batch"),
        ("saelens skip transcoder", "leaves the skip out"),
        ("saelens flat tanh-relu", "reads it as ReLU"),
        ("sparsify topk", "W_dec transposed"),
        ("dictionary_learning standard", "rescaled to norm 1"),
        ("dictionary_learning topk", "threshold is stored"),
        ("dictionary_learning batchtopk", "ranks the whole batch"),
        ("dictionary_learning batchtopk without threshold", "No threshold was learned"),
        ("dictionary_learning jumprelu", "does not say whether b_dec is subtracted"),
        ("dictionary_learning gated", "nor the factor"),
        ("openai topk", "layer-normed"),
        ("gemma_scope embedding", "sqrt"),
        ("gemma_scope transcoder", "without the norm's gain"),
        ("gemma_scope_2 cross-layer", "decoders summed"),
        ("circuit_tracer relu", "first position"),
        ("circuit_tracer cross-layer", "bfloat16"),
        ("llama_scope", "folded into the weights"),
        ("llama_scope by size", "SAELens leaves out"),
        ("llamascopium", "leaves thresholds"),
    ],
)
def test_a_reader_notes_what_it_folded_what_it_cannot_know_and_what_the_tool_does_otherwise(layout, note, tmp_path):
    found, _ = read(layout.replace("saelens scale", "saelens, scale"), tmp_path)
    assert any(note in each for each in found.about.notes), found.about.notes


def test_a_factor_that_is_not_there_is_said_to_be_missing(tmp_path: Path):
    expected = files.saelens_standard(tmp_path, scale=0.25)
    (tmp_path / "activation_scaler.json").unlink()
    one = load_one(expected.path)
    assert any("is not known" in note for note in one.about.notes)
    torch.testing.assert_close(one.encode(0.25 * expected.x), expected.latents)


@pytest.mark.parametrize(
    ("layout", "site", "target", "model"),
    [
        ("saelens standard", "L1.resid_post", None, "toy"),
        ("saelens heads", "L0.z", None, ""),
        ("saelens flat topk", "L0.q", None, "toy"),
        ("sparsify topk", "L2.mlp_out", None, ""),
        ("sparsify transcoder", "L2.mlp_norm", "L2.mlp_out", ""),
        ("dictionary_learning topk", "L1.resid_post", None, "toy"),
        ("gemma_scope", "L12.resid_post", None, "google/gemma-2-2b"),
        ("gemma_scope embedding", "embed", None, "google/gemma-2-2b"),
        ("gemma_scope transcoder", "L3.mlp_norm", "L3.mlp_out", "google/gemma-2-2b"),
        ("gemma_scope_2", "L4.mlp_norm", "L4.mlp_out", "google/gemma-3-1b-pt"),
        ("llama_scope", "L15.resid_post", None, ""),
        ("llamascopium", "L3.mlp_norm", "L3.mlp_out", ""),
    ],
)
def test_places_are_read_from_configs_and_names_of_folders(layout, site, target, model, tmp_path: Path):
    about = read(layout, tmp_path)[0].about
    assert (str(about.site), about.target and str(about.target), about.model) == (site, target, model)


# Bad input.


def altered(folder: Path, name: str = "cfg.json", **changes: object) -> None:
    path = folder / name
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            config.pop(key)
        else:
            config[key] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("layout", "file", "changes", "why"),
    [
        ("saelens standard", "cfg.json", {"d_sae": 99}, "d_sae = 99; the tensors have 20"),
        ("saelens standard", "cfg.json", {"d_in": 7}, "d_in = 7"),
        (
            "saelens standard",
            "cfg.json",
            {"architecture": "matching_pursuit"},
            "'matching_pursuit'.*one after the other",
        ),
        ("saelens standard", "cfg.json", {"architecture": "temporal"}, "'temporal'.*tokens before"),
        ("saelens standard", "cfg.json", {"architecture": "telepathic"}, "'telepathic'; known are standard"),
        ("saelens standard", "cfg.json", {"architecture": "jumprelu"}, "lacks threshold"),
        ("saelens jumprelu", "cfg.json", {"architecture": "standard"}, "Not known here: threshold"),
        ("saelens standard", "cfg.json", {"normalize_activations": "z-score"}, "'z-score'"),
        ("saelens standard", "cfg.json", {"dtype": "int8"}, "'int8'"),
        ("saelens topk", "cfg.json", {"k": None}, "needs k"),
        ("saelens topk", "cfg.json", {"k": 2.5}, "needs k"),
        ("saelens topk", "cfg.json", {"k": 21}, "k = 21.*has 20"),
        ("saelens transcoder", "cfg.json", {"apply_b_dec_to_input": True}, "transcoder"),
        ("saelens transcoder", "cfg.json", {"d_out": 6}, "d_out = 6"),
        ("saelens flat", "cfg.json", {"activation_fn_str": "gelu"}, "'gelu'"),
        ("sparsify topk", "cfg.json", {"k": None}, "needs k"),
        ("sparsify topk", "cfg.json", {"num_latents": 40}, "num_latents = 40"),
        ("sparsify topk", "cfg.json", {"num_latents": 0}, "num_latents = 192"),
        ("sparsify topk", "cfg.json", {"activation": "softmax"}, "'softmax'"),
        ("sparsify topk", "cfg.json", {"skip_connection": True}, "lacks W_skip"),
        ("sparsify groupmax", "cfg.json", {"k": 3}, "do not divide"),
        ("gemma_scope_2", "config.json", {"affine_connection": True}, "affine_connection = True"),
        ("gemma_scope_2", "config.json", {"architecture": "topk"}, "'topk'"),
        ("llama_scope", "hyperparams.json", {"jump_relu_threshold": None}, "needs jump_relu_threshold"),
        ("llama_scope", "hyperparams.json", {"dataset_average_activation_norm": None}, "by which inputs are scaled"),
        ("llama_scope", "hyperparams.json", {"d_sae": 21}, "d_sae = 21"),
        ("llamascopium", "config.json", {"sae_type": "lorsa"}, "'lorsa'"),
        ("llamascopium", "config.json", {"use_glu_encoder": True}, "GLU"),
    ],
)
def test_a_config_that_contradicts_its_tensors_is_refused(layout, file, changes, why, tmp_path: Path):
    path = LAYOUTS[layout](tmp_path).path
    altered(path, file, **changes)
    with pytest.raises(UnreadableWeights, match=why):
        load(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dict_class": "IdentityDict"}, "'IdentityDict'"),
        ({"dict_size": 21}, "dict_size = 21"),
        ({"k": 4}, "k = 4; the tensors have 3"),
        ({"dict_class": "GatedAutoEncoder"}, "lacks decoder_bias"),
    ],
)
def test_a_trainer_that_contradicts_its_tensors_is_refused(change, why, tmp_path: Path):
    path = files.learned_topk(tmp_path).path
    trainer = json.loads((path / "config.json").read_text())["trainer"]
    (path / "config.json").write_text(json.dumps({"trainer": trainer | change}))
    with pytest.raises(UnreadableWeights, match=why):
        load(path, allow_pickle=True)


def test_which_class_it_is_cannot_be_told_without_the_config(tmp_path: Path):
    path = files.learned_topk(tmp_path / "topk").path
    (path / "config.json").unlink()
    with pytest.raises(UnreadableWeights, match="AutoEncoderTopK or BatchTopKSAE"):
        load(path, allow_pickle=True)
    gated = files.learned_gated(tmp_path / "gated")
    (gated.path / "config.json").unlink()
    same(load(gated.path, allow_pickle=True), *gated[1:])


@pytest.mark.parametrize(("value", "why"), [(float("nan"), "no finite"), (float("inf"), "no finite")])
def test_weights_that_are_no_numbers_are_refused(value: float, why: str, tmp_path: Path):
    path = LAYOUTS["saelens standard"](tmp_path).path
    tensors = safetensors.torch.load_file(path / "sae_weights.safetensors")
    tensors["W_dec"][3, 2] = value
    files.put(path / "sae_weights.safetensors", tensors)
    with pytest.raises(UnreadableWeights, match=f"1 of {N * D} entries of W_dec.*{why}"):
        load(path)


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("saelens standard", "sae_weights.safetensors"),
        ("sparsify topk", "sae.safetensors"),
        ("dictionary_learning topk", "ae.pt"),
        ("gemma_scope", "params.npz"),
        ("gemma_scope_2", "params.safetensors"),
        ("circuit_tracer relu", "layer_1.safetensors"),
        ("circuit_tracer cross-layer", "W_dec_1.safetensors"),
    ],
)
def test_a_file_that_was_cut_short_is_said_to_be(layout: str, file: str, tmp_path: Path):
    path = LAYOUTS[layout](tmp_path).path / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((Corrupt, UnreadableWeights), match=file):
        load(path.parent, allow_pickle=True)


@pytest.mark.parametrize("layout", ["dictionary_learning topk", "openai topk"])
def test_a_pickle_is_read_only_where_it_is_allowed(layout: str, tmp_path: Path):
    path = LAYOUTS[layout](tmp_path).path
    with pytest.raises(PickleRefused, match="allow_pickle=True"):
        load(path)


def test_a_pickle_of_something_else_is_refused(tmp_path: Path):
    torch.save({"model.weight": torch.zeros(3)}, tmp_path / "model.pt")
    with pytest.raises(UnreadableWeights, match=r"model\.weight"):
        load(tmp_path / "model.pt", allow_pickle=True)


def test_a_folder_without_a_dictionary_says_what_it_holds(tmp_path: Path):
    with pytest.raises(UnknownDictionary, match="an empty folder"):
        load(tmp_path)
    (tmp_path / "readme.md").write_text("nothing")
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(UnknownDictionary, match=r"cfg\.json, readme\.md.*saelens: cfg\.json, sae_weights"):
        load(tmp_path)
    with pytest.raises(UnknownDictionary, match="a file of another kind"):
        load(tmp_path / "readme.md")
    with pytest.raises(UnknownDictionary, match="no such folder"):
        load(tmp_path / "nowhere")


def test_layers_that_do_not_fit_together_are_refused(tmp_path: Path):
    path = files.cross_layer(tmp_path).path
    (path / "W_dec_2.safetensors").unlink()
    with pytest.raises(UnreadableWeights, match="not both files of layer 2"):
        load(path)
    clt = files.gemma_scope_2_clt(tmp_path / "gemma").path
    (clt / "params_layer_2.safetensors").unlink()
    with pytest.raises(UnreadableWeights, match="2 layers' files"):
        load(clt)


def test_a_folder_that_holds_something_is_not_written_over(tmp_path: Path):
    one = read("saelens standard", tmp_path)[0]
    with pytest.raises(ValueError, match="holds something already"):
        save(one, tmp_path)
    with pytest.raises(ValueError, match="Formats that are written: saelens"):
        save(one, tmp_path / "new", "llama_scope")
    assert not (tmp_path / "new").exists()


# Sets and suites.


def test_a_set_gives_the_dictionary_of_a_layer(tmp_path: Path):
    found, expected = read("circuit_tracer jump", tmp_path)
    assert isinstance(found, DictionarySet)
    assert list(found) == [0, 1, 2]
    one = Dictionary.load(tmp_path, layer=1)
    assert isinstance(one, Dictionary)
    assert (one.about.site, one.about.target) == (Site("resid_mid", 1), Site("mlp_out", 1))
    torch.testing.assert_close(one.reconstruct(expected.x[1]), expected.reconstruction[1])
    torch.testing.assert_close(
        Dictionary.load(tmp_path / "layer_2.safetensors").encode(expected.x[2]), expected.latents[2]
    )
    with pytest.raises(UnknownDictionary, match=r"layer 7\. There are those of 0, 1, 2"):
        load(tmp_path, layer=7)
    with pytest.raises(UnknownDictionary, match="Give a layer"):
        load_one(tmp_path)


def test_a_set_says_how_a_layer_is_taken(tmp_path: Path):
    found, _ = read("circuit_tracer relu", tmp_path / "from")
    assert isinstance(found, DictionarySet)
    found[1].save(tmp_path / "to", "circuit_tracer")
    alone = load(tmp_path / "to")
    assert repr(alone).startswith("DictionarySet(1 layer: 1; set[1]: Dictionary(")


def test_a_layer_of_a_cross_layer_transcoder_is_no_dictionary(tmp_path: Path):
    found, expected = read("circuit_tracer cross-layer", tmp_path)
    assert isinstance(found, CrossLayerTranscoder)
    torch.testing.assert_close(found.encode_layer(expected.x[1], 1), expected.latents[1])
    with pytest.raises(UnknownDictionary, match="write together"):
        load(tmp_path, layer=1)


@pytest.mark.parametrize("format", ["saelens", "sparsify", "dictionary_learning"])
def test_a_set_is_written_into_a_folder_for_each_layer(format: str, tmp_path: Path):
    found, expected = read("circuit_tracer relu", tmp_path / "from")
    assert isinstance(found, DictionarySet)
    if format == "sparsify":
        found = DictionarySet({
            at: replace(one, form=replace(one.form, activation="topk", k=2)) for at, one in found.items()
        })  # fmt: skip
    save(found, tmp_path / "to", format)
    back = load(tmp_path / "to", allow_pickle=True)
    assert isinstance(back, DictionarySet)
    torch.testing.assert_close(back.encode(expected.x), found.encode(expected.x))
    torch.testing.assert_close(back.reconstruct(expected.x), found.reconstruct(expected.x))


SUITE = [  # Gemma Scope 2B's residual stream, layer 12 and a part of layer 5
    *[f"layer_12/width_16k/average_l0_{l0}" for l0 in (22, 41, 82, 176, 445)],
    *[f"layer_12/width_65k/average_l0_{l0}" for l0 in (21, 72, 141)],
    *[f"layer_5/width_16k/average_l0_{l0}" for l0 in (18, 68, 143)],
]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suite") / "gemma-scope-2b-pt-res"
    for folder in SUITE:
        files.gemma_scope(root, folder)
    return root


def test_canonical_is_the_published_l0_closest_to_100(suite: Path):
    one = load_one(suite, layer=12, width="16k")
    assert one.about.training["l0"] == 82
    assert one.about.site == Site("resid_post", 12)
    assert load_one(suite, layer=5, l0="canonical").about.training["l0"] == 68


@pytest.mark.parametrize(("l0", "found"), [(445, 445), (30, 22), (40, 41)])
def test_an_l0_that_is_asked_for_takes_the_closest(suite: Path, l0: int, found: int):
    assert load_one(suite, layer=12, width=16384, l0=l0).about.training["l0"] == found


def test_a_suite_without_a_layer_gives_one_dictionary_a_layer(suite: Path):
    found = load(suite, width="16k")
    assert isinstance(found, DictionarySet)
    assert {at: one.about.training["l0"] for at, one in found.items()} == {5: 68, 12: 82}


def test_a_choice_that_is_none_says_what_there_is(suite: Path):
    with pytest.raises(UnknownDictionary, match=r"or width \(16384, 65536\)"):
        load(suite, layer=12)
    with pytest.raises(UnknownDictionary, match="layers 5, 12"):
        load(suite, layer=3)
    with pytest.raises(UnknownDictionary, match="width 1m"):
        load(suite, layer=12, width="1m")
    with pytest.raises(ValueError, match="'16k' or '1m'"):
        load(suite, layer=12, width="wide")


def test_states_of_trainers_and_earlier_steps_are_no_dictionaries(tmp_path: Path):
    expected = files.learned_gated(tmp_path / "resid_post_layer_1" / "trainer_0")
    for name in ("state.pt", "optimizer_0.pt", "resid_post_layer_1/trainer_0/checkpoints/ae_100.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({}, tmp_path / name)
    same(load(tmp_path, allow_pickle=True), *expected[1:])


def test_a_list_of_transcoders_is_read_where_they_lie(tmp_path: Path):
    expected = [files.gemma_scope(tmp_path, f"layer_{i}/width_16k/average_l0_{i + 5}") for i in range(2)]
    lines = "".join(f"  - {each.path.relative_to(tmp_path)}/params.npz\n" for each in expected)
    (tmp_path / "config.yaml").write_text(f"model_name: toy\nmodel_kind: transcoder_set\ntranscoders:\n{lines}")
    found = load(tmp_path)
    assert isinstance(found, DictionarySet)
    torch.testing.assert_close(found[1].encode(expected[1].x), expected[1].latents)
    torch.testing.assert_close(load_one(tmp_path, layer=0).encode(expected[0].x), expected[0].latents)
    with pytest.raises(UnknownDictionary, match="lists 2 layers"):
        load(tmp_path, layer=2)


# The Hub.


@pytest.fixture
def hub(suite: Path, monkeypatch):
    """A repository that lies in a folder; what was fetched from it."""
    from micrographia.core.pretrained import hub

    asked: list[str] = []
    paths = [each.relative_to(suite).as_posix() for each in suite.rglob("*") if each.is_file()]
    monkeypatch.setattr(hub, "listing", lambda repository, revision, watch: paths)
    monkeypatch.setattr(hub, "fetched", lambda repository, names, revision, watch: asked.extend(names) or suite)
    return asked


def test_only_what_was_chosen_is_fetched_from_the_hub(hub: list[str]):
    one = Dictionary.load("google/gemma-scope-2b-pt-res", layer=12, width="16k")
    assert hub == ["layer_12/width_16k/average_l0_82/params.npz"]
    assert one.about.source == "google/gemma-scope-2b-pt-res"
    Dictionary.load("google/gemma-scope-2b-pt-res/layer_12/width_65k@main")
    assert hub[1:] == ["layer_12/width_65k/average_l0_72/params.npz"]


@pytest.mark.parametrize("error", ["OfflineModeIsEnabled", "RepositoryNotFoundError", "ConnectionError"])
def test_a_hub_that_gives_nothing_says_what_to_do(error: str, monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    kind = getattr(errors, error, None) or ConnectionError

    def fails(*given: object, **named: object) -> list[str]:
        raise kind.__new__(kind)

    def is_not_here(*given: object, **named: object) -> str:
        raise errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", fails)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", is_not_here)
    why = "Neither a folder here nor" if error.startswith("Repo") else "cannot be reached"
    with pytest.raises(UnknownDictionary, match=why):
        load("somebody/dictionaries")


def test_without_a_network_the_cache_is_looked_at(suite: Path, monkeypatch):
    import huggingface_hub

    from micrographia.core.pretrained.hub import listing

    def fails(*given: object, **named: object) -> list[str]:
        raise ConnectionError("no way")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", fails)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(suite))
    notes: list[object] = []
    assert "layer_5/width_16k/average_l0_68/params.npz" in listing("google/x", watch=notes.append)
    assert any("only what is in the cache" in str(each) for each in notes)


def test_rows_for_a_table(suite: Path, tmp_path: Path):
    assert {(row["layer"], row["latents"], row["l0"]) for row in inspect(suite)} >= {
        (12, 16384, 82.0),
        (5, 16384, 18.0),
    }
    (row,) = inspect(LAYOUTS["saelens skip transcoder"](tmp_path / "one").path)
    assert (row["format"], row["kind"], row["latents"], row["d_out"]) == ("saelens", "skip transcoder", N, 5)
    assert any("leaves the skip out" in note for note in row["notes"])
    assert [row["layer"] for row in inspect(files.circuit_tracer(tmp_path / "set").path)] == [0, 1, 2]
    (row,) = inspect(files.cross_layer(tmp_path / "clt").path)
    assert row["kind"] == "cross-layer transcoder"


def test_rows_of_many_tell_what_their_configs_say_unread(tmp_path: Path, monkeypatch):
    files.saelens_standard(tmp_path / "a")
    files.sparsify(tmp_path / "sparsify")
    files.learned_topk(tmp_path / "trainer_0")
    files.llama_scope(tmp_path)
    monkeypatch.setattr(Holding, "tensors", lambda *_: pytest.fail("read"))
    rows = {row["format"]: (row["latents"], row["d_in"], row["layer"]) for row in inspect(tmp_path)}
    assert rows == {
        "saelens": (N, D, 1), "sparsify": (N, D, 2), "dictionary_learning": (N, D, 1), "llama_scope": (N, D, 15),
    }  # fmt: skip


def test_every_activation_has_a_format_that_reads_it(all_read):
    found = {
        one[0].form.activation if isinstance(one, DictionarySet) else one.form.activation
        for one, _ in all_read.values()
    }
    assert found == set(ACTIVATIONS)
