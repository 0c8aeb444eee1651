"""Write and read the claims and Figures of a Run.

`claims.json` holds every field of each claim. `figures.json` holds the figures without their arrays, and
`figures.safetensors` the arrays under "<figure>.<entry>", so that a Figure read back equals the one written.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from micrographia.core.claims import Claim, Judged
from micrographia.core.errors import UserError
from micrographia.core.figures import Figure
from micrographia.core.store.exact import Arrays, pack, unpack
from micrographia.core.store.formats import arrays_bytes, json_bytes, read_arrays, read_json, whole

CLAIMS, FIGURES, ARRAYS = "claims.json", "figures.json", "figures.safetensors"
_CLAIM_FIELDS = tuple(field.name for field in dataclasses.fields(Claim))
_FIGURE_FIELDS = tuple(field.name for field in dataclasses.fields(Figure))


def claims_files(claims: Sequence[Judged]) -> dict[str, bytes]:
    """The file of claims: the fields of `Judged.as_json`, and the conditions under which a claim is judged."""
    return {CLAIMS: json_bytes({"claims": [_judged_record(judged) for judged in claims]})}


def read_claims(folder: Path) -> tuple[Judged, ...]:
    """The judged claims of a finished Run."""
    with whole(folder / CLAIMS):
        return tuple(_judged(record) for record in read_json(folder / CLAIMS)["claims"])


def figures_files(figures: Sequence[Figure]) -> dict[str, bytes]:
    """The two files of figures."""
    names = [figure.name for figure in figures]
    if len(set(names)) < len(names):
        twice = sorted(name for name in set(names) if names.count(name) > 1)
        raise UserError(f"Asked to store two figures of one name: {twice}. Rename one.")
    arrays: Arrays = {}
    records = [_figure_record(figure, arrays) for figure in figures]
    return {FIGURES: json_bytes({"figures": records}), ARRAYS: arrays_bytes(arrays)}


def read_figures(folder: Path) -> tuple[Figure, ...]:
    """The figures of a finished Run, equal to those that were stored."""
    arrays = read_arrays(folder / ARRAYS)
    with whole(folder / FIGURES):
        return tuple(_figure(record, arrays) for record in read_json(folder / FIGURES)["figures"])


def _judged_record(judged: Judged) -> dict[str, Any]:
    own = ("presets", "when", "holds", "fails")
    return {**judged.as_json(), **{name: getattr(judged.claim, name) for name in own}}


def _judged(record: Mapping[str, Any]) -> Judged:
    fields: dict[str, Any] = {name: record[name] for name in _CLAIM_FIELDS if name in record}
    fields["presets"] = tuple(fields["presets"])
    claim = Claim(**fields)
    return Judged(
        claim=claim, measured=record["measured"], verdict=record["verdict"], null_measured=record["null_measured"]
    )


def _figure_record(figure: Figure, arrays: Arrays) -> dict[str, Any]:
    return {name: pack(getattr(figure, name), name=figure.name, arrays=arrays) for name in _FIGURE_FIELDS}


def _figure(record: Mapping[str, Any], arrays: Arrays) -> Figure:
    fields = {name: unpack(record[name], arrays) for name in _FIGURE_FIELDS if name in record}
    return Figure(**(_as_widget(fields) if fields["kind"] == "explorer" else fields))


def _as_widget(fields: dict[str, Any]) -> dict[str, Any]:
    """A figure of a kind that existed until version 0.1.0, as a widget."""
    return {**fields, "kind": "widget", "data": {"asset": "micrographia.labs.grokking:explorer.js", **fields["data"]}}
