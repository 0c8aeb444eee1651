"""Bundle: a feature bundle on disk, read by range: one latent's page without the others.

The folder holds `bundle.json` (what it is of, and the size and hash of every file), `index.parquet` (a row a latent),
`pages.parquet` (a row a latent, in row groups of `GROUP`) and `tokens.parquet` (a row a token of the vocabulary). What
a token is called comes from a tokenizer that anybody may have made: strings here are data, never markup.
Axes: latent.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from micrographia.core.errors import BadBundle, Corrupt, UserError
from micrographia.core.store.formats import plain, read_json
from micrographia.core.store.ranges import RangeTable
from micrographia.methods.dictionaries.features.head import (
    HEAD,
    INDEX,
    PAGES,
    TOKENS,
    check_files,
    check_head,
    check_pages,
)
from micrographia.methods.dictionaries.features.matching import MATCHING, compare_folders

GROUP = 64
"""Latents in a row group of pages: what reading one page reads."""
BINS = 40
"""Of a histogram, from 0 to the largest activation."""
FOUND_TOKENS = 50
"""Tokens that `by_token` tells at most."""


class Bundle:
    """A feature bundle. Threads may share one; it holds index and vocabulary, 100 bytes or so a latent and token."""

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self.folder = folder
        self._head = head
        self._pages = RangeTable(folder / PAGES)

    @classmethod
    def open(cls, folder: Path | str) -> "Bundle":
        """The bundle in this folder. Raises BadBundle for one that is none, was cut short or is of another format."""
        folder = Path(folder)
        if not (folder / HEAD).is_file():
            raise BadBundle(
                f"Asked for a feature bundle in {folder}, which holds no {HEAD}. Give one that `build_bundle` wrote."
            )
        try:
            head = read_json(folder / HEAD)
            check_head(folder, head)
            found = cls(folder, head)
        except Corrupt as error:
            raise BadBundle(f"{error} A bundle is built again with `build_bundle`.") from error
        check_pages(folder, head, found._pages)
        return found

    @property
    def about(self) -> dict[str, Any]:
        """What it is of: name, model, site, n_latents, d_in, n_tokens, n_rows, dead, format, weights (SHA-256) ...

        `signed`: whether activations below 0 are among them. Then `max` and histograms are of their sizes.
        """
        return dict(self._head["about"])

    @property
    def n_latents(self) -> int:
        return self._head["about"]["n_latents"]

    @property
    def n_ctx(self) -> int:
        """Tokens of a row."""
        return self._head["n_ctx"]

    @cached_property
    def n_vocab(self) -> int:
        """Tokens of the vocabulary of the model that it was built with."""
        return len(self._texts)

    def index(self) -> dict[str, list[Any]]:
        """Columns over all latents: latent, density, max, label, precision, accuracy (None where unknown), dead."""
        return {name: list(column) for name, column in self._index.items()}

    def page(self, latent: int) -> dict[str, Any]:
        """All that is known of a latent, in JSON's own types. Reads one row group. Raises UserError, BadBundle."""
        return self.pages([latent])[0]

    def pages(self, latents: Sequence[int]) -> list[dict[str, Any]]:
        """The pages of several latents, each row group read once where they ascend."""
        for each in latents:
            if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each < self.n_latents:
                raise UserError(
                    f"Asked for latent {each!r}; this bundle has {self.n_latents}: 0 to {self.n_latents - 1}."
                )
        found, held, first = [], {}, -1
        for each in latents:
            if each // GROUP != first:
                first = each // GROUP
                held = self._read(self._pages, first * GROUP, min((first + 1) * GROUP, self.n_latents))
            found.append(self._page(each, {name: column[each - first * GROUP] for name, column in held.items()}))
        return found

    def by_token(self, text: str) -> list[dict[str, Any]]:
        """Tokens that contain the text, that itself first, each with the latents of largest mean activation on it."""
        strings, (latents, means) = self._texts, self._on_tokens
        near = [i for i, each in enumerate(strings) if text in each and latents[i][0] >= 0] if text else []
        near.sort(key=lambda i: (strings[i] != text, strings[i].strip() != text.strip(), len(strings[i]), i))
        return [_on_token(strings[i], latents[i], means[i]) for i in near[:FOUND_TOKENS]]

    def tokens(self) -> list[dict[str, Any]]:
        """All tokens on which anything fires, as `by_token` gives them."""
        rows = zip(self._texts, *self._on_tokens)
        return [_on_token(text, latents, means) for text, latents, means in rows if latents[0] >= 0]

    def compare(self, other: "Bundle") -> dict[str, Any]:
        """For each latent its best match in another bundle; see `compare_folders`. Raises BadBundle."""
        for each in (self, other):
            if MATCHING in each._head["files"]:
                check_files(each.folder, each._head["files"], MATCHING)
        try:
            return compare_folders(self.folder, other.folder)
        except Corrupt as error:
            raise BadBundle(f"{error} A bundle is built again with `build_bundle`.") from error

    @cached_property
    def _index(self) -> dict[str, list[Any]]:
        found = self._read(RangeTable(self.folder / INDEX), 0, self.n_latents)
        return {name: plain(column) for name, column in found.items()}

    @cached_property
    def _texts(self) -> list[str]:
        return self._read(RangeTable(self.folder / TOKENS), columns=["text"])["text"]

    @cached_property
    def _on_tokens(self) -> tuple[Any, Any]:
        found = self._read(RangeTable(self.folder / TOKENS), columns=["latents", "means"])
        return found["latents"], found["means"]

    def _read(
        self, table: RangeTable, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None
    ) -> dict[str, Any]:
        try:
            return table.rows(start, stop, columns)
        except Corrupt as error:
            raise BadBundle(f"{error} A bundle is built again with `build_bundle`.") from error

    def _page(self, latent: int, row: Mapping[str, Any]) -> dict[str, Any]:
        text = self._texts
        n_fires, largest = int(row["n_fires"]), float(row["max"])
        bins = len(row["histogram"])
        words = lambda at, by: [[text[i], v] for i, v in _pairs(row[at], row[by])]  # noqa: E731
        return {
            "latent": latent,
            "label": row["label"],
            "label_kind": row["label_kind"] or None,
            **{name: plain(float(row[name])) for name in ("precision", "recall", "accuracy")},
            "density": n_fires / self._head["about"]["n_tokens"],
            "n_fires": n_fires,
            "max": largest,
            "dead": n_fires == 0,
            "histogram": {"edges": [largest * i / bins for i in range(bins + 1)], "counts": row["histogram"].tolist()},
            "logits": {"positive": words("raised", "raised_by"), "negative": words("lowered", "lowered_by")},
            "neighbours": _pairs(row["neighbours"], row["cosines"]),
            "correlated": _pairs(row["correlated"], row["correlations"]),
            "neurons": _pairs(row["neurons"], row["weights"]),
            "decoder_l1": float(row["decoder_l1"]),
            "groups": self._groups(row),
        }

    def _groups(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        names, sizes = zip(*self._head["groups"])
        passages = [self._passage(row, i) for i in range(sum(sizes))]
        spans = pairwise([0, *accumulate(sizes)])
        shown = [(name, [each for each in passages[a:b] if each]) for name, (a, b) in zip(names, spans)]
        return [{"name": name, "passages": inside} for name, inside in shown if inside]

    def _passage(self, row: Mapping[str, Any], i: int) -> dict[str, Any] | None:
        """None where there is none."""
        place = int(row["places"][i])
        if place < 0:
            return None
        before, window, n_ctx = (self._head[name] for name in ("before", "window", "n_ctx"))
        ids, values = (row[name][i * window : (i + 1) * window] for name in ("ids", "values"))
        there = ids >= 0
        text = self._texts
        return {
            "tokens": [text[j] for j in ids[there].tolist()],
            "values": values[there].tolist(),
            "at": int(there[:before].sum()),
            "row": place // n_ctx,
            "pos": place % n_ctx,
        }


def find_bundles(folder: Path | str) -> dict[str, Path]:
    """The folders of all bundles in or below this one, by their path from it ("." for itself), sorted."""
    folder = Path(folder)
    return {each.parent.relative_to(folder).as_posix(): each.parent for each in sorted(folder.rglob(HEAD))}


def _on_token(text: str, latents: Any, means: Any) -> dict[str, Any]:
    return {"token": text, "latents": _pairs(latents, means)}


def _pairs(places: Any, values: Any) -> list[list[Any]]:
    return [[int(at), float(value)] for at, value in zip(places, values) if at >= 0]
