"""`micrographia sae inspect PATH` and `sae convert PATH --to FORMAT --out DIR`: dictionaries as files.

Every format is recognised by what is in the folder. A pickled file is read only with --allow-pickle, tensors alone.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from micrographia.faces.cli.options import Printed, Switch

PATH = (tyro.conf.Positional, tyro.conf.arg(metavar="PATH"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(Printed):
    path: Annotated[str, *PATH]
    """A folder or file of dictionaries, a Run of yours, or a name on the hub."""
    allow_pickle: Switch = False
    """Read a pickled file (.pt), of tensors alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion(Source):
    to: str
    """The format to write: saelens, sparsify, dictionary-learning, gemma-scope, gemma-scope-2, circuit-tracer, openai."""
    out: Path
    """The new folder."""
    layer: int | None = None
    """Which dictionary, of several."""
