"""Load the small transformer of one of our own Runs as a Model.

The Run's `model.json` holds architecture and vocabulary, its snapshots the weights. So every method and every command
accepts a Run in place of a Hugging Face model, offline.
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
    """Store architecture and vocabulary in the Run, beside its snapshots."""
    words = None
    if vocabulary is not None:
        words = {"words": list(vocabulary.words), "bos": vocabulary.bos, "pad": vocabulary.pad}
    content = {"architecture": dataclasses.asdict(arch), "vocabulary": words}
    folder.add_file(NAME, json_bytes(content))


def load_trained(
    run: Path | str, *, step: int | None = None, dtype: torch.dtype | None = None, device: str | None = None
) -> Transformer:
    """The network of a Run (a folder or a unique prefix) after `step` steps, by default its newest snapshot.

    Raises RunNotFound, Corrupt, and UnknownModel for a Run without a model or without this snapshot.
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
