"""Writing a bundle's folder from pages as they are made: whole or not at all, in memory of a few row groups.

Axes: latent; columns of pages are arrays (latent,) or (latent, n), or lists of strings.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from micrographia.core.errors import RunExists
from micrographia.core.store import manifest
from micrographia.core.store.atomic import new_folder, write_chunks
from micrographia.core.store.formats import json_bytes
from micrographia.core.store.ranges import Part, table_chunks
from micrographia.methods.dictionaries.features.bundle import GROUP, Bundle
from micrographia.methods.dictionaries.features.head import HEAD, INDEX, PAGES, TOKENS, sealed

INDEXED = ("n_fires", "max", "label", "precision", "accuracy")
"""Columns of pages that the index needs."""


def write_bundle(
    folder: Path,
    pages: Iterable[Mapping[str, Any]],
    tokens: Callable[[], Part],
    head: Callable[[], Mapping[str, Any]],
    more: Mapping[str, bytes] = MappingProxyType({}),
) -> Bundle:
    """A new bundle of these pages, all latents in order; tokens and head are asked for once the last page is written.

    `more`: other files by name. Raises RunExists for a folder that is there, CannotWrite.
    """
    refuse_existing(folder)
    kept: dict[str, list[Any]] = {name: [] for name in INDEXED}
    with new_folder(folder) as draft:
        write_chunks(draft / PAGES, table_chunks(_noted(_regrouped(pages), kept)))
        whole = head()
        write_chunks(draft / INDEX, table_chunks([_index(kept, whole["about"]["n_tokens"])]))
        write_chunks(draft / TOKENS, table_chunks([tokens()]))
        for name, data in more.items():
            write_chunks(draft / name, [data])
        files = manifest.entries(draft, [INDEX, PAGES, TOKENS, *more])
        write_chunks(draft / HEAD, [json_bytes(sealed({**whole, "files": files}))])
    return Bundle.open(folder)


def refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise RunExists(f"Asked for a feature bundle in {folder}, which is there. Choose another folder, or remove it.")


def _noted(parts: Iterable[dict[str, Any]], kept: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for part in parts:
        for name, columns in kept.items():
            columns.append(part[name])
        yield part


def _index(kept: Mapping[str, list[Any]], n_tokens: int) -> dict[str, Any]:
    n_fires = np.concatenate(kept["n_fires"])
    return {
        "latent": np.arange(len(n_fires)),
        "density": n_fires / n_tokens,
        "max": np.concatenate(kept["max"]),
        "label": list(chain(*kept["label"])),
        **{name: np.concatenate(kept[name]) for name in ("precision", "accuracy")},
        "dead": n_fires == 0,
    }


def _regrouped(parts: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same rows in parts of `GROUP`, the last one shorter."""
    rest: dict[str, Any] = {}
    for part in parts:
        rest = {name: _joined(rest[name], column) if rest else column for name, column in part.items()}
        n = len(rest["n_fires"])
        for start in range(0, n - n % GROUP, GROUP):
            yield {name: column[start : start + GROUP] for name, column in rest.items()}
        rest = {name: column[n - n % GROUP :] for name, column in rest.items()}
    if rest and len(rest["n_fires"]):
        yield rest


def _joined(first: Any, second: Any) -> Any:
    return [*first, *second] if isinstance(first, list) else np.concatenate([first, second])
