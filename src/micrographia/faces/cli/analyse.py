"""`micrographia grok analyse FILE`: analyse a network that someone else trained."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from micrographia.faces.cli.carry_out import carry_out
from micrographia.faces.cli.options import Destination, parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the weights alone do not show. Each guess is checked by the accuracy on all pairs, and printed."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A Run, a checkpoint, or a state dict: safetensors, npz, or (with --allow-pickle) pth."""
    modulus: int | None = None
    """p; by default from the widths of embedding and unembedding together."""
    act: Literal["relu", "gelu", "gelu_new", "silu", "tanh", "square", "swiglu"] | None = None
    """Activation of the neurons."""
    operation: Literal["add", "subtract", "multiply", "polynomial"] | None = None
    """What the network computes."""
    split: str | None = None
    """Which pairs it was trained on: shuffle, randperm, none, or a file."""
    train_fraction: float | None = None
    """Share of the pairs it was trained on."""
    seed: int | None = None
    """Seed of that split. Without --split both known ways to split are tried, and the credible one is named."""
    allow_pickle: bool = False
    """Read a .pth or .pt file. A pickle can run code; here only tensors and plain values are built from it."""
    output: Destination = dataclasses.field(default_factory=Destination)


def main(words: Sequence[str]) -> int:
    found = parse(Arguments, words, prog="micrographia grok analyse", description=__doc__ or "")
    choices = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    file, output = choices.pop("file"), choices.pop("output")
    from micrographia.labs.grokking.identify.run import analyse

    make, identity = partial(analyse, file, **choices), {"file": str(file.absolute()), **choices}
    return carry_out(make, output=output, lab="grokking", identity=identity, command="grok analyse", words=words)
