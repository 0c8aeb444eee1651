"""Load the small transformer of one of our own Runs as a Model.

The Run's `model.json` holds architecture and vocabulary, its snapshots the weights. So every method and every command
accepts a Run in place of a Hugging Face model, offline.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from micrographia.core.byte_pairs import FILE, BytePairs, read_byte_pairs
from micrographia.core.claims import Run
from micrographia.core.errors import Corrupt, RunNotFound, UnknownModel, UserError
from micrographia.core.model_packages import about_shipped, shipped_models
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import (
    RunFolder,
    find_run,
    json_bytes,
    load_run,
    read_json,
    read_tensors,
    snapshots,
    verify,
)
from micrographia.core.tokens import Vocabulary
from micrographia.core.training import Layout

NAME = "model.json"
STATE = "state.safetensors"  # of a checkpoint
SHIPPED = "model.safetensors"


def describe_model(folder: RunFolder, arch: Architecture, tokenizer: Vocabulary | BytePairs | None = None) -> None:
    """Store architecture and vocabulary in the Run, beside its snapshots; of byte pairs in a file of their own."""
    words = None
    if isinstance(tokenizer, BytePairs):
        folder.add_file(FILE, tokenizer.to_bytes())
    elif tokenizer is not None:
        words = {"words": list(tokenizer.words), "bos": tokenizer.bos, "pad": tokenizer.pad}
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
        inside = sorted(found.parent for depth in ("*", "*/*") for found in path.glob(f"{depth}/{NAME}"))
        hint = (
            f"It holds {'one' if len(inside) == 1 else 'several'}: give {' or '.join(map(str, inside))}."
            if inside
            else "Give another Run."
        )
        raise UnknownModel(f"Asked for the model of the Run {path}. Found no {NAME} with snapshots. {hint}")
    chosen = max(kept) if step is None else step
    if chosen not in kept:
        raise UnknownModel(f"Asked for step {step} of the Run {path}. Found {', '.join(map(str, kept))}. Choose one.")
    found = read_json(path / NAME)
    arch = _architecture(path / NAME, found)
    stored = read_tensors(kept[chosen])
    _check_weights(kept[chosen], arch, stored)
    weights = {name: stored[name].to(dtype=dtype, device=device) for name in arch.weight_shapes()}
    return Transformer(arch, weights, _tokenizer(path, found["vocabulary"]))


def load_shipped(name: str, *, dtype: torch.dtype | None = None, device: str | None = None) -> Transformer:
    """A model that comes with this package, in float32 unless another `dtype` is asked for. A few MB."""
    folder, about = shipped_models()[name], about_shipped(name)
    arch, stored = _architecture(folder / NAME, dict(about)), read_tensors(folder / SHIPPED)
    _check_weights(folder / SHIPPED, arch, stored)
    weights = {each: stored[each].to(dtype=dtype or torch.float32, device=device) for each in arch.weight_shapes()}
    return Transformer(arch, weights, _tokenizer(folder, about["vocabulary"]))


def _tokenizer(path: Path, words: Mapping[str, Any] | None) -> Vocabulary | BytePairs | None:
    """The words of `model.json`, else the byte pairs beside it, if there are any."""
    if words:
        return Vocabulary(tuple(words["words"]), words["bos"], words["pad"])
    return read_byte_pairs(path / FILE) if (path / FILE).is_file() else None


def holds_model(run: Path) -> bool:
    """Whether a network was trained in this Run, or several were; a question to a model leaves none."""
    return (run / NAME).is_file() or any(run.glob(f"*/*/{NAME}"))


def _architecture(file: Path, found: dict[str, Any]) -> Architecture:
    try:
        return Architecture(**found["architecture"])
    except (TypeError, LookupError) as error:
        raise Corrupt(
            f"Asked for the architecture in {file}. Found none that this version can read ({error}). Restore the file."
        ) from error


def _check_weights(file: Path, arch: Architecture, stored: Mapping[str, torch.Tensor]) -> None:
    """Raise Corrupt where a snapshot's weights are not those of the architecture, by name and shape."""
    shapes = arch.weight_shapes()
    found = {name: tuple(stored[name].shape) if name in stored else None for name in {**shapes, **stored}}
    wrong = [name for name, shape in found.items() if name not in shapes or shape != tuple(shapes[name])]
    if wrong:
        wanted = tuple(shapes[wrong[0]]) if wrong[0] in shapes else "no such weight"
        raise Corrupt(
            f"Asked for the weights in {file}. {wrong[0]} has the shape {found[wrong[0]]}, where {NAME} says {wanted} "
            f"({len(wrong)} such). The files are of different Runs or were altered: restore them."
        )


def weights_file(path: Path) -> Path:
    """The file of weights at a path: of a Run (folder or name) the newest snapshot, of a checkpoint its state."""
    if path.is_file():
        return path
    if (path / STATE).is_file():
        return path / STATE
    kept = snapshots(path)
    if kept:
        return kept[max(kept)]
    if not path.exists():
        with suppress(RunNotFound):
            return weights_file(find_run(path))
    found = "a folder without snapshots" if path.is_dir() else "nothing there"
    raise UserError(
        f"Asked for the weights of {path}. Found {found}. Give a file of weights, a Run of one network, or a snapshot "
        "in one."
    )


def run_around(file: Path) -> Run | None:
    """The Run of ours that a snapshot or a checkpoint's state lies in."""
    place = file.absolute().parent
    root = place.parent if place.name == "snapshots" else place.parents[1] if file.name == STATE else None
    return load_run(root) if root is not None and (root / "run.json").is_file() else None


def read_inside(file: Path, run: Run, arch: Architecture) -> tuple[dict[str, torch.Tensor], int]:
    """The weights in a snapshot or a checkpoint's state of a Run, and their step. Raises Corrupt."""
    inside = file.absolute().relative_to(run.path).as_posix()
    damage = [problem for problem in verify(run.path) if problem.file == inside]
    if damage:
        raise Corrupt(f"Asked for {inside} of {run.path}. It is {damage[0].what}. Choose another snapshot.")
    weights = read_tensors(file)
    if file.name != STATE:
        return weights, int(file.stem)
    return Layout(arch.weight_shapes()).member(weights["weights"], 0), int(file.absolute().parent.name)
