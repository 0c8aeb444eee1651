"""Neuronpedia's files carry their field names out, and what they hold comes back; damaged ones are refused."""

import dataclasses
import json

import pytest
from bundled import HOSTILE, built, mixed

from micrographia.core.errors import BadBundle, RunExists
from micrographia.methods.dictionaries.features.neuronpedia import (
    LEFT_EMPTY,
    UNKNOWN,
    export_neuronpedia,
    import_neuronpedia,
)

pytestmark = pytest.mark.usefixtures("unchecked")
# What sae-dashboard 0.8.0 wrote for a small model.
BATCH_FIELDS = {"model_id", "layer", "sae_set", "sae_id_suffix", "features"}
FIELDS = {
    "feature_index", "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1",
    "correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson", "correlated_features_indices",
    "correlated_features_l1", "correlated_features_pearson", "neg_str", "neg_values", "pos_str", "pos_values",
    "frac_nonzero", "freq_hist_data_bar_values", "freq_hist_data_bar_heights", "logits_hist_data_bar_heights",
    "logits_hist_data_bar_values", "n_prompts_total", "n_tokens_in_prompt", "dataset", "decoder_weights_dist",
    "activations", "vector",
}  # fmt: skip
ACTIVATION_FIELDS = {"bin_min", "bin_max", "bin_contains", "tokens", "values", "qualifying_token_index"}
SKIPPED_FIELDS = {"model_id", "layer", "sae_set", "log_sparsity", "skipped_indexes"}


def activation(values, at, *, top=False, low=0.0, high=1.0):
    return {
        "bin_min": -1 if top else low, "bin_max": high, "bin_contains": -1 if top else 0.25,
        "tokens": [f"w{i}" for i in range(len(values))], "values": values, "qualifying_token_index": at,
        "dfa_values": [], "dfa_maxValue": 0, "dfa_targetIndex": -1,
    }  # fmt: skip


def feature(index, *activations, **changes):
    """As the other tool writes it."""
    return {
        **{name: [] for name in FIELDS},
        "feature_index": index, "frac_nonzero": 0.125, "n_prompts_total": 4, "n_tokens_in_prompt": 8, "dataset": "",
        "pos_str": [HOSTILE, "w1"], "pos_values": [0.5, 0.25], "neg_str": ["w2"], "neg_values": [-0.5],
        "correlated_features_indices": [0], "correlated_features_pearson": [0.75],
        "neuron_alignment_indices": [3], "neuron_alignment_values": [0.5], "neuron_alignment_l1": [0.1],
        "freq_hist_data_bar_values": [0.5, 2.0], "freq_hist_data_bar_heights": [3, 1],
        "activations": list(activations), **changes,
    }  # fmt: skip


def write(folder, *batches, skipped=()):
    folder.mkdir()
    for number, features in enumerate(batches):
        batch = {"model_id": "gpt2", "layer": 5, "sae_set": "res-jb", "sae_id_suffix": None, "features": features}
        (folder / f"batch-{number}.json").write_text(json.dumps(batch))
    (folder / "skipped_indexes.json").write_text(json.dumps({"skipped_indexes": list(skipped)}))
    return folder


@pytest.fixture
def bundle(tmp_path):
    return built(tmp_path / "one")


def exported(bundle, folder):
    return export_neuronpedia(bundle, folder, model_id="reader", layer=0, sae_set="res", dataset="made", batch=3)


def test_exported_files_have_the_fields_of_the_other_tool(tmp_path, bundle):
    assert exported(bundle, tmp_path / "out") == LEFT_EMPTY
    names = sorted(each.name for each in (tmp_path / "out").iterdir())
    assert names == ["batch-0.json", "batch-1.json", "batch-2.json", "run_settings.json", "skipped_indexes.json"]
    found = [json.loads((tmp_path / "out" / f"batch-{i}.json").read_text()) for i in range(3)]
    assert [[each["feature_index"] for each in batch["features"]] for batch in found] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    for batch in found:
        assert batch.keys() == BATCH_FIELDS
        for each in batch["features"]:
            assert each.keys() == FIELDS
            assert each["activations"]
            assert all(one.keys() == ACTIVATION_FIELDS for one in each["activations"])
            assert each["frac_nonzero"] == bundle.page(each["feature_index"])["n_fires"] / 600
    skipped = json.loads((tmp_path / "out" / "skipped_indexes.json").read_text())
    assert skipped.keys() == SKIPPED_FIELDS
    assert skipped["skipped_indexes"] == [8]
    with pytest.raises(RunExists):
        exported(bundle, tmp_path / "out")


def test_what_was_exported_comes_back(tmp_path, bundle):
    exported(bundle, tmp_path / "out")
    back = import_neuronpedia(tmp_path / "out", tmp_path / "back")
    assert back.about["n_latents"] == 9
    assert (back.about["model"], back.about["dead"], back.about["d_in"]) == ("reader", 1, None)
    for mine, theirs in zip(bundle.pages(range(8)), back.pages(range(8))):
        for name in ("n_fires", "density"):
            assert theirs[name] == mine[name]
        assert theirs["dead"] == mine["dead"]
        assert theirs["max"] == pytest.approx(mine["max"], rel=1e-4)
        assert theirs["histogram"]["counts"] == mine["histogram"]["counts"]
        for name in ("correlated", "neurons"):
            assert [at for at, _ in theirs[name]] == [at for at, _ in mine[name]]
            assert [v for _, v in theirs[name]] == pytest.approx([v for _, v in mine[name]], rel=1e-4)
        for side in ("positive", "negative"):
            assert [text for text, _ in theirs["logits"][side]] == [text for text, _ in mine["logits"][side]]
        passages = [[each for group in page["groups"] for each in group["passages"]] for page in (mine, theirs)]
        assert len(passages[0]) == len(passages[1])
        for one, other in zip(*passages):
            assert (one["tokens"], one["at"]) == (other["tokens"], other["at"])
            assert other["values"] == pytest.approx(one["values"], rel=1e-4)


def test_tiny_activations_come_back(tmp_path):
    own = mixed()
    tiny = dataclasses.replace(own.weights, W_enc=own.weights.W_enc * 1e-5, b_enc=own.weights.b_enc * 1e-5)
    bundle = built(tmp_path / "one", dataclasses.replace(own, weights=tiny))
    exported(bundle, tmp_path / "out")
    back = import_neuronpedia(tmp_path / "out", tmp_path / "back")
    assert 0 < max(back.index()["max"]) < 1e-4
    for mine, theirs in zip(bundle.pages(range(8)), back.pages(range(8))):
        assert theirs["max"] == pytest.approx(mine["max"], rel=1e-4)
        assert theirs["histogram"]["counts"] == mine["histogram"]["counts"]
        assert sum(len(each["passages"]) for each in theirs["groups"]) == sum(
            len(each["passages"]) for each in mine["groups"]
        )


def test_counted_tokens_that_cannot_be_are_refused(tmp_path, bundle):
    exported(bundle, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "run_settings.json").read_text())
    assert settings["n_tokens_counted"] == bundle.about["n_tokens"] == 540
    for n in (0, 601, "many"):
        (tmp_path / "out" / "run_settings.json").write_text(json.dumps({**settings, "n_tokens_counted": n}))
        with pytest.raises(BadBundle, match="run_settings"):
            import_neuronpedia(tmp_path / "out", tmp_path / "back")


def test_a_correlation_that_is_none_is_missing(tmp_path):
    some = {"correlated_features_indices": [0, 1, 2], "correlated_features_pearson": [float("nan"), 0.5, None]}
    found = import_neuronpedia(write(tmp_path / "in", [feature(2, **some)]), tmp_path / "out")
    assert found.page(2)["correlated"] == [[1, 0.5]]


def test_files_of_the_other_tool_are_read(tmp_path):
    top = [activation([0.0, 2.0, 0.5], 1, top=True, high=2.0), activation([1.5, 0.0], -1, top=True, high=2.0)]
    empty = activation([0.0, 0.0], 1, top=True, high=2.0)  # which it fills its groups with
    others = [activation([0.5], 0, high=1.0), activation([0.0, 1.5], 1, low=1.0, high=2.0)]
    source = write(tmp_path / "in", [feature(1, *top, empty, *others)], [feature(4)], skipped=[0, 5])
    found = import_neuronpedia(source, tmp_path / "out")
    assert found.about["n_latents"] == 6
    assert (found.about["n_tokens"], found.about["site"]) == (32, "layer 5, res-jb")
    page = found.page(1)
    assert [group["name"] for group in page["groups"]] == ["top", "interval 1 of 2", "interval 2 of 2"]
    assert [[each["values"] for each in group["passages"]] for group in page["groups"]] == [
        [[0.0, 2.0, 0.5], [1.5, 0.0]], [[0.0, 1.5]], [[0.5]],
    ]  # fmt: skip
    assert [each["at"] for each in page["groups"][0]["passages"]] == [1, 0]
    assert page["groups"][0]["passages"][0]["tokens"] == ["w0", "w1", "w2"]
    assert page["logits"] == {"positive": [[HOSTILE, 0.5], ["w1", 0.25]], "negative": [["w2", -0.5]]}
    assert (page["n_fires"], page["max"], page["correlated"], page["neurons"]) == (4, 2.0, [[0, 0.75]], [[3, 0.5]])
    assert sum(page["histogram"]["counts"]) == 4
    assert page["histogram"]["counts"][10] == 3
    assert page["label"] == ""
    assert [found.page(i)["label"] for i in (0, 2, 3, 5)] == ["", UNKNOWN, UNKNOWN, ""]


@pytest.mark.parametrize(
    "features",
    [
        [feature(3), feature(3)],
        [feature(3), feature(1)],
        [feature(2**40)],
        [feature(-1)],
        [feature("0")],
        [feature(0, activation([1.0], 4))],
        [feature(0, {**activation([1.0], 0), "tokens": [7]})],
        [feature(0, {**activation([1.0], 0), "values": ["high"]})],
        [feature(0, activation([1.0], 0) | {"bin_max": None})],
        [feature(0, pos_str=None)],
        [feature(0, pos_str=[{}])],
        [feature(0, pos_values=["much"])],
        [feature(0, activation([1.0], 0), freq_hist_data_bar_heights=["many", 1])],
        [feature(0, frac_nonzero="often")],
        [feature(0, activation([1.0], 0), freq_hist_data_bar_values=[1])],
        [feature(0, correlated_features_indices=[2**70])],
        [feature(0, n_prompts_total="four")],
        [feature(0, n_prompts_total=-4)],
        [feature(0, frac_nonzero=1.5)],
        [feature(0, frac_nonzero=-0.5)],
        [feature(0, frac_nonzero=float("nan"))],
        [feature(0, correlated_features_indices=[1])],
        [feature(0, correlated_features_indices=[-1])],
        [feature(0, freq_hist_data_bar_heights=[3, -1])],
        [feature(0, freq_hist_data_bar_heights=[3, 2**31])],
        [feature(0, freq_hist_data_bar_values=[0.5, float("inf")])],
        [{"feature_index": 0}],
        [7],
    ],
)  # fmt: skip
def test_features_that_are_not_as_they_should_be_are_refused(tmp_path, features):
    source = write(tmp_path / "in", features)
    with pytest.raises(BadBundle, match=r"batch-0\.json"):
        import_neuronpedia(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"features": []}', '{"features": 3, "model_id": 1, "layer": 1, "sae_set": 1}']
)
def test_files_that_are_no_batches_are_refused(tmp_path, text):
    source = write(tmp_path / "in", [feature(0)])
    (source / "batch-1.json").write_text(text)
    with pytest.raises(BadBundle, match=r"batch-1\.json"):
        import_neuronpedia(source, tmp_path / "out")
    with pytest.raises(BadBundle, match=r"holds no batch-0\.json"):
        import_neuronpedia(tmp_path, tmp_path / "out")


def test_a_list_of_skipped_latents_that_is_none_is_refused(tmp_path):
    source = write(tmp_path / "in", [feature(0)])
    for text in (
        "{}",
        '{"skipped_indexes": [1e9]}',
        '{"skipped_indexes": [99999999999]}',
        '{"skipped_indexes": ["a"]}',
    ):
        (source / "skipped_indexes.json").write_text(text)
        with pytest.raises(BadBundle, match="skipped"):
            import_neuronpedia(source, tmp_path / "out")
    (source / "skipped_indexes.json").unlink()
    assert import_neuronpedia(source, tmp_path / "out").about["dead"] == 0
