"""A small transformer that one of our own Runs trained, as a Model again.

The Run's `model.json` says architecture and vocabulary; its snapshots hold the weights. So every instrument and every
command takes a Run where it takes a model of Hugging Face, with no network connection.
"""

import dataclasses
from pathlib import Path

import torch

from micrographia.core.errors import UnknownModel
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import RunFolder, find_run, json_bytes, read_json, read_tensors, snapshots
from micrographia.core.tokens import Vocabulary

NAME = "model.json"


def describe_model(folder: RunFolder, arch: Architecture, vocabulary: Vocabulary | None = None) -> None:
    """Write down, in the Run, what its snapshots are snapshots of."""
    words = None
    if vocabulary is not None:
        words = {"words": list(vocabulary.words), "bos": vocabulary.bos, "pad": vocabulary.pad}
    content = {"architecture": dataclasses.asdict(arch), "vocabulary": words}
    folder.add_file(NAME, json_bytes(content))


def load_trained(
    run: Path | str, *, step: int | None = None, dtype: torch.dtype | None = None, device: str | None = None
) -> Transformer:
    """The network of a Run (a folder or a unique prefix) after `step` steps, by default its newest snapshot.

    Raises RunNotFound, Corrupt, and UnknownModel for a Run that holds no model or has no such snapshot.
    """
    path = find_run(run)
    kept = snapshots(path)
    if not (path / NAME).is_file() or not kept:
        inside = sorted(found.parent for found in path.glob(f"*/*/{NAME}"))
        hint = f"It holds several: give {' or '.join(map(str, inside))}." if inside else "Give another Run."
        raise UnknownModel(f"Asked for the model of the Run {path}. Found no {NAME} with snapshots. {hint}")
    chosen = max(kept) if step is None else step
    if chosen not in kept:
        raise UnknownModel(f"Asked for step {step} of the Run {path}. Found {', '.join(map(str, kept))}. Choose one.")
    found = read_json(path / NAME)
    arch = Architecture(**found["architecture"])
    weights = {name: weight.to(dtype=dtype, device=device) for name, weight in read_tensors(kept[chosen]).items()}
    words = found["vocabulary"]
    vocabulary = Vocabulary(tuple(words["words"]), words["bos"], words["pad"]) if words else None
    return Transformer(arch, {name: weights[name] for name in arch.weight_shapes()}, vocabulary)
