"""`micrographia sae inspect PATH` and `sae convert PATH --to FORMAT --out DIR`: dictionaries as files.

A format is recognised by what is in the folder. A pickled file is read only with --allow-pickle, tensors alone.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse

SHOWN = {
    "path": "path", "format": "format", "kind": "kind", "activation": "activation", "layer": "layer", "site": "site",
    "latents": "latents", "d_in": "d_in", "l0": "L0",
}  # fmt: skip
"""The columns of `inspect`; --json has all."""
MOST = 40
"""Rows that `inspect` prints."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspected(Printed):
    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """A folder or file of dictionaries of any format, or a Run that trained some."""
    allow_pickle: bool = False
    """Read a pickled file (.pt), of tensors alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion(Inspected):
    to: str
    """The tool that shall read it: saelens, sparsify, cross_layer, circuit_tracer, gemma_scope_2, gemma_scope,
    dictionary_learning or openai."""
    out: Path
    """The new folder."""
    site: str | None = None
    """Which site of a suite: L1.z, or a kind such as z."""
    layer: int | None = None
    """Which, of several."""
    width: str | None = None
    """Which width of a suite, such as 16k."""
    l0: str | None = None
    """Which L0 of a suite: a number, or canonical, the nearest to 100."""


def inspect(words: Sequence[str]) -> int:
    """`micrographia sae inspect PATH`: what a folder or file of dictionaries holds, and what its reader noted."""
    asked = parse(Inspected, words, prog="micrographia sae inspect", description=inspect.__doc__ or "")
    from micrographia.core.dictionaries import conversion

    rows = conversion.inspect(_path(asked.path), allow_pickle=asked.allow_pickle)
    if asked.json:
        print_json({"path": asked.path, "dictionaries": rows})
        return 0
    from micrographia.core.figures import table
    from micrographia.faces.tables import table_of
    from micrographia.faces.terminal import print_table

    console = Console()
    columns = {key: title for key, title in SHOWN.items() if any(row.get(key) not in (None, "") for row in rows)}
    columns = {key: title for key, title in columns.items() if key != "path" or len(rows) > 1}
    print_table(console, table_of(table("dictionaries", "Dictionaries", rows[:MOST], columns=columns).data))
    if len(rows) > MOST:
        console.print(f"... and {len(rows) - MOST:,} more; --json prints all.", markup=False, highlight=False)
    for note in dict.fromkeys(note for row in rows for note in row.get("notes", ())):
        console.print(note, markup=False, highlight=False)
    return 0


def convert(words: Sequence[str]) -> int:
    """`micrographia sae convert PATH --to FORMAT --out DIR`: write a dictionary in another tool's format."""
    asked = parse(Conversion, words, prog="micrographia sae convert", description=convert.__doc__ or "")
    from micrographia.core.dictionaries import conversion

    choices: dict[str, Any] = {"site": asked.site, "layer": asked.layer, "width": asked.width, "l0": asked.l0}
    lost = conversion.convert(_path(asked.path), asked.to, asked.out, allow_pickle=asked.allow_pickle, **choices)
    if asked.json:
        print_json({"path": asked.path, "format": asked.to, "out": asked.out.absolute(), "not_carried": list(lost)})
        return 0
    console = Console()
    for line in (f"Written as {asked.to}: {asked.out}", *(f"Not carried: {each}" for each in lost)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _path(text: str) -> str:
    """The folder of a Run that is named by the beginning of its name; else the text as it is."""
    if Path(text).expanduser().exists() or "/" in text:
        return text
    from micrographia.core.errors import RunNotFound
    from micrographia.core.store import find_run

    try:
        return str(find_run(text))
    except RunNotFound:
        return text
