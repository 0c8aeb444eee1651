"""Folders whose files are damaged, missing, of another model or of an adapter: the error names the file or weight."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

from micrographia.core.errors import UnknownModel
from micrographia.core.pretrained import load
from micrographia.core.store.damage import damage_of

W = "model.safetensors"
INDEX = f"{W}.index.json"
SHARD = "model-00002-of-00006.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    whole, sharded = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("sharded")
    zoo.fresh("llama").save_pretrained(whole)
    zoo.fresh("llama").save_pretrained(sharded, max_shard_size="20KB")
    return whole, sharded


def first(name: str, n: int) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:n])


def holding(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def without(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def changed(folder: Path) -> None:
        state = load_file(folder / W)
        change(state)
        save_file(state, folder / W, metadata={"format": "pt"})

    return changed


def configured(**values: object) -> Change:
    def changed(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        holding("config.json", json.dumps(config | values))(folder)

    return changed


def pickled(content: str) -> Change:
    return lambda folder: (without(W)(folder), holding("pytorch_model.bin", content)(folder))


def adapter(*gone: str) -> Change:
    text = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "someone/base"})
    return lambda folder: (without(*gone)(folder), holding("adapter_config.json", text)(folder))


UP = "model.layers.1.mlp.up_proj.weight"
BROKEN: dict[str, tuple[Change, str]] = {
    "cut short": (first(W, 60_000), rf"{W} holds 60,000 bytes where its header promises 106,304"),
    "cut short in the header": (first(W, 50), rf"{W} is cut short \(50 bytes"),
    "empty": (first(W, 0), rf"{W} is empty"),
    "a pointer": (holding(W, POINTER), rf"{W} is a pointer of Git LFS.*git lfs pull"),
    "no header": (holding(W, "\x02" + "\0" * 7 + "[]"), rf"{W} has a header that cannot be read"),
    "a pickle cut short": (pickled("xx"), r"pytorch_model\.bin is cut short or damaged"),
    "a pointer to a pickle": (pickled(POINTER), r"pytorch_model\.bin is a pointer of Git LFS"),
    "a pointer to the configuration": (holding("config.json", POINTER), r"config\.json cannot be read \(is a pointer"),
    "no JSON": (holding("config.json", "{"), r"config\.json cannot be read \(Expecting"),
    "no object": (holding("config.json", "[]"), r"config\.json cannot be read \(it holds a list"),
    "another shape": (
        weights(lambda s: s.update({UP: torch.ones(47, 32)})),
        rf"{UP} has the shape \(47, 32\).*\(48, 32\)",
    ),
    "a weight missing": (weights(lambda s: s.pop(UP)), rf"lack 1 of its weights, such as {UP}"),
    "a layer too many": (configured(num_hidden_layers=2), r"no use of 9 weights.*model\.layers\.2\."),
    "a bias too many": (
        weights(lambda s: s.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)})),
        r"no use of 1 weight .*layers\.0\.self_attn\.q_proj\.bias",
    ),
    "sizes that contradict": (configured(num_attention_heads=5), "not a multiple of the number of attention heads"),
    "an unknown activation": (configured(hidden_act="blah"), "KeyError: 'blah'.*Check them and config.json"),
    "an adapter beside": (adapter(), r"adapter_config\.json beside full weights.*someone/base.*merge_and_unload.*move"),
    "an adapter alone": (adapter(W, "config.json"), r"adapter_config\.json alone.*'someone/base'.*merge_and_unload"),
}  # fmt: skip
SHARDED: dict[str, tuple[Change, str]] = {
    "one missing": (without(SHARD), f"download is incomplete: 1 of the 6 files.*{SHARD}"),
    "one cut short": (first(SHARD, 100), f"{SHARD} is cut short"),
    "one a pointer": (holding(SHARD, POINTER), f"{SHARD} is a pointer of Git LFS"),
    "an index that is none": (holding(INDEX, "{"), f"{INDEX} cannot be read"),
}


def refused(folder: Path, change: Change, said: str, into: Path) -> None:
    shutil.copytree(folder, into)
    change(into)
    with pytest.raises(UnknownModel, match=rf"(?s){said}"):
        load(into)


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_a_folder_is_said_by_name(what, folders, tmp_path):
    refused(folders[0], *BROKEN[what], tmp_path / "model")


@pytest.mark.parametrize("what", SHARDED)
def test_what_is_wrong_with_one_of_many_files_is_said_by_name(what, folders, tmp_path):
    refused(folders[1], *SHARDED[what], tmp_path / "model")


def test_whole_files_are_found_whole_and_load(folders):
    for folder in folders:
        assert not any(damage_of(file) for file in folder.iterdir())
        assert torch.equal(load(folder).run(zoo.tokens()).logits, load(folders[0]).run(zoo.tokens()).logits)


def test_weights_outside_the_layers_that_nothing_uses_are_told_and_old_tables_are_not(folders, tmp_path):
    shutil.copytree(folders[0], tmp_path / "model")
    more = {"score.weight": torch.zeros(2, 32), "model.layers.0.self_attn.masked_bias": torch.zeros(1)}
    weights(lambda state: state.update(more))(tmp_path / "model")
    told = []
    load(tmp_path / "model", watch=told.append)
    assert [note.text.startswith("1 weight in the files of") and "score.weight" in note.text for note in told] == [True]
