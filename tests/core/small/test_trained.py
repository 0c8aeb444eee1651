"""A network of one of our Runs, loaded again as a Model."""

from pathlib import Path

import pytest
import torch

from micrographia.core.errors import Corrupt, UnknownModel
from micrographia.core.small.trained import describe_model, load_trained
from micrographia.core.store import RunFolder, json_bytes, read_tensors, write_bytes, write_tensors
from micrographia.core.tokens import Vocabulary
from small import A_FEW, small_model, some_tokens

ARCH = A_FEW["modern"]
WORDS = Vocabulary(tuple("abcdefg"), bos=0)


def a_run(path: Path, *, described: bool = True) -> Path:
    about = {"threads": 1}
    with RunFolder.open(path, lab="ioi", preset="tiny", config={}, provenance=about, resume=False) as folder:
        if described:
            describe_model(folder, ARCH, WORDS)
        for step in (0, 5):
            folder.save_snapshot(step, small_model(ARCH, seed=step).state)
        folder.finish({}, [], [], {"step": [0.0]})
    return path


def test_the_newest_snapshot_or_the_one_asked_for_is_the_model(tmp_path):
    run = a_run(tmp_path / "run")
    tokens = some_tokens(ARCH)
    for step, seed in ((None, 5), (5, 5), (0, 0)):
        found = load_trained(run, step=step)
        assert torch.equal(found.run(tokens).logits, small_model(ARCH, seed=seed).run(tokens).logits)
    assert found.tokenizer == WORDS
    assert load_trained(run, dtype=torch.float64).weights.W_E.dtype == torch.float64


def test_a_run_without_a_model_or_step_is_refused(tmp_path):
    with pytest.raises(UnknownModel, match=r"no model\.json"):
        load_trained(a_run(tmp_path / "bare", described=False))
    with pytest.raises(UnknownModel, match="Found 0, 5"):
        load_trained(a_run(tmp_path / "run"), step=3)


def test_a_run_of_several_networks_names_theirs(tmp_path):
    outer = a_run(tmp_path / "run", described=False)
    a_run(outer / "networks" / "seed-0")
    with pytest.raises(UnknownModel, match=r"give .*networks/seed-0"):
        load_trained(outer)


def test_damaged_or_foreign_weights_of_a_run_are_told_by_file_and_name(tmp_path):
    run = a_run(tmp_path / "run")
    file = run / "snapshots" / "00000005.safetensors"
    stored = {key: value.clone() for key, value in read_tensors(file).items()}  # which lie in the file itself
    whole = file.read_bytes()
    name = "blocks.0.attn.W_Q"
    for content, said in (
        (whole[:-40], rf"{file.name}: holds {len(whole) - 40:,} bytes where its header promises {len(whole):,}"),
        (b"", f"{file.name}: is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", f"{file.name}: is a pointer of Git LFS"),
    ):
        file.write_bytes(content)
        with pytest.raises(Corrupt, match=said):
            load_trained(run)
    for changed, said in (
        ({name: stored[name][:-1]}, rf"{name} has the shape .* says"),
        ({"blocks.9.attn.W_Q": stored[name]}, r"blocks\.9\.attn\.W_Q .* no such weight"),
    ):
        write_tensors(file, stored | changed)
        with pytest.raises(Corrupt, match=said):
            load_trained(run)
    write_tensors(file, {key: value for key, value in stored.items() if key != name})
    with pytest.raises(Corrupt, match=rf"{name} has the shape None"):
        load_trained(run)
    write_bytes(run / "model.json", json_bytes({"architecture": {"nothing": 1}, "vocabulary": None}))
    with pytest.raises(Corrupt, match=r"model\.json"):
        load_trained(run)
