"""Headings, sentences and tables, as all faces hold them before they draw: what an outline is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from micrographia.faces import words

Cell = str | int | float | bool | Sequence[Any] | None


@dataclass(frozen=True, slots=True)
class Table:
    """`strong` rows are set off; `texts` are the columns of words, all others hold numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    strong: frozenset[int] = frozenset()
    texts: frozenset[int] = frozenset({0})
    notes: Sequence[str] = ()
    """A remark on each row, where there is room for it."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it. `essential` sections are printed after a command, the others asked for."""

    id: str
    title: str
    lead: str = ""
    table: Table | None = None
    paragraphs: Sequence[str] = field(default=())
    lines: Sequence[str] = field(default=())
    """Preformatted text."""
    essential: bool = True


def flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as (name, value) pairs: restricted_loss {"i": x} is ("restricted loss, i", x)."""
    pairs = []
    for key, inner in mapping.items():
        label = f"{prefix}, {words.name(key)}" if prefix else words.name(key)
        deeper = isinstance(inner, Mapping) and not words.is_interval(inner)
        pairs += flat(inner, label) if deeper else [(label, inner)]
    return pairs


COLUMNS = {
    "k": "k",
    "energy": "logit energy",
    "p_value": "p-value",
    "loss_change": "loss rise without",
    "ratio": "to the network's",
    "own_neurons": "own neurons",
    "name": "what",
    "fve": "variance explained",
    "cosine": "as cos(w_k(a+b))",
    "sine": "as sin(w_k(a+b))",
    "group": "setting",
    "n_key_frequencies": "key frequencies",
    "fourier": "Fourier algorithm",
}


NOTE = "says"
RECORD_COLUMNS = ("name", "head", "k", "fve", "loss", "ratio", "accuracy", "train_loss", "test_loss")


def as_records(content: Any) -> list[Mapping[str, Any]]:
    """A list of mappings as it is; a mapping of mappings with the outer key as `name`; anything else is none."""
    if not content or isinstance(content, str) or not isinstance(content, Mapping | Sequence):
        return []
    if isinstance(content, Mapping) and all(isinstance(row, Mapping) for row in content.values()):
        return [{"name": words.name(key), **row} for key, row in content.items()]
    return list(content) if all(isinstance(row, Mapping) for row in content) else []


def records(
    rows: Sequence[Mapping[str, Any]], *, first: Sequence[str] = RECORD_COLUMNS, strong: frozenset[int] = frozenset()
) -> Table:
    """Records as a table: the columns named in `first`, then the others; what a row `says` is its note."""
    seen = dict.fromkeys(key for row in rows for key in row if key != NOTE)
    keys = [key for key in first if key in seen] + [key for key in seen if key not in first]
    cells = [[row.get(key) for key in keys] for row in rows]
    texts = frozenset(i for i in range(len(keys)) if any(isinstance(row[i], str) for row in cells))
    notes = [str(row.get(NOTE) or "") for row in rows] if any(row.get(NOTE) for row in rows) else ()
    return Table([COLUMNS.get(key, words.name(key)) for key in keys], cells, strong, texts, notes)
