"""Which places of which texts are probed, what is true there, and which texts judge the probe.

A label belongs to a text, and is read at its last token, at chosen positions or at every token; or to positions of the
texts, or to several things at each. Texts are split as wholes, those of one group together: rows of one text are alike,
and so are texts of one template, so that a split by row would judge a probe on what it was fitted to.
Axes: text pos row item.
"""

import math
from collections.abc import Hashable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig, BadPrompt, BadShape, UserError
from micrographia.core.tokens import Inputs, ids_of, lengths_of, mask_of
from micrographia.methods.probes.fit import IGNORED

At = str | Sequence[int]
"""Where a text is read: "last", "all", or positions."""
FEWEST = 4
"""Labels that a probe is fitted to, and that judge it, at least. Our choice: fewer tell no accuracy."""


class LabelledPlaces(NamedTuple):
    """Rows to read, each a position of a text, with what is true there. `group` numbers the group of every text."""

    text: Int[Tensor, "row"]
    pos: Int[Tensor, "row"]
    labels: Int[Tensor, "row item"]
    classes: tuple[str, ...]
    group: Int[Tensor, "text"]
    by_text: bool
    """Whether labels are those of texts: all rows of one have the same."""

    @property
    def n_groups(self) -> int:
        return int(self.group.max()) + 1


def labelled_places(
    inputs: Inputs, labels: Sequence[Any] | Tensor, *, at: At | None = None, groups: Sequence[Hashable] | None = None
) -> LabelledPlaces:
    """The places of these texts that have a label.

    `labels`: a class for each text, names or whole numbers; or a tensor (text, pos) or (text, pos, item) of classes
    from 0 on, -1 where there is none. `at`, of labels of texts: "last" (the default), "all" tokens, or positions,
    counted from a text's first token, or from its end where negative. `groups`: one for each text; None: texts
    that are alike are one.
    Raises BadShape for labels that do not fit the texts; UserError for no labels, one class, or names beside numbers;
    BadPrompt for a position that a text does not have.
    """
    ids, mask = ids_of(inputs), mask_of(inputs)
    first = ids.shape[1] - lengths_of(ids, None if mask is None else mask.cpu())
    named = (
        ids.cpu().unique(dim=0, return_inverse=True)[1] if groups is None else numbered(groups, len(ids), "groups")[0]
    )
    if isinstance(labels, Tensor) and labels.ndim > 1:
        if at is not None:
            raise UserError(f"Labels for positions were given, and at={at!r}. Leave `at` out: the labels say where.")
        text, pos, own = _of_positions(labels, ids, first)
        return _checked(LabelledPlaces(text, pos, own, tuple(map(str, range(int(own.max()) + 1))), named, False))
    own, classes = numbered(labels.tolist() if isinstance(labels, Tensor) else labels, len(ids), "labels")
    text, pos = _of_texts("last" if at is None else at, first, ids.shape[1])
    return _checked(LabelledPlaces(text, pos, own[text][:, None], classes, named, True))


def numbered(values: Any, n: int, what: str) -> tuple[Int[Tensor, "text"], tuple[str, ...]]:
    """Every value as its place among the different ones, in order, and their names.

    >>> numbered(["sad", "glad", "sad"], 3, "labels")
    (tensor([1, 0, 1]), ('glad', 'sad'))
    """
    listed = [values] if isinstance(values, str) or not hasattr(values, "__len__") else list(values)
    if len(listed) != n:
        raise BadShape(f"There are {n} texts, but {len(listed)} {what}. Give one for each text.")
    listed = [int(each) if isinstance(each, Integral) and not isinstance(each, bool) else each for each in listed]
    kinds = {str if isinstance(each, str) else int if isinstance(each, int) else type(each) for each in listed}
    if len(kinds) > 1 or not kinds <= {str, int}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise UserError(f"The {what} should be names, or whole numbers. Found values of type {found}.")
    known = {value: i for i, value in enumerate(sorted(set(listed)))}
    return torch.tensor([known[value] for value in listed]), tuple(map(str, known))


def _of_positions(
    labels: Tensor, ids: Int[Tensor, "text pos"], first: Int[Tensor, "text"]
) -> tuple[Int[Tensor, "row"], Int[Tensor, "row"], Int[Tensor, "row item"]]:
    """The rows with a label. Padding has none."""
    whole = labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    if labels.ndim not in (2, 3) or labels.shape[:2] != ids.shape or whole:
        raise BadShape(
            f"Labels for positions should be whole numbers of shape (text, pos) or (text, pos, item), here "
            f"{tuple(ids.shape)}. Found {labels.dtype} of shape {tuple(labels.shape)}."
        )
    own = labels.cpu().long().reshape(*ids.shape, -1)
    if int(own.min()) < IGNORED:
        raise UserError(f"Labels count from 0, with -1 where there is none. Found {int(own.min())}.")
    there = (own != IGNORED).any(-1) & (torch.arange(ids.shape[1]) >= first[:, None])
    if not bool(there.any()):
        raise UserError("Probes were asked for, and no position has a label. Give a class from 0 on at some of them.")
    text, pos = there.nonzero().unbind(1)
    return text, pos, own[text, pos]


def _of_texts(at: At, first: Int[Tensor, "text"], n_pos: int) -> tuple[Int[Tensor, "row"], Int[Tensor, "row"]]:
    if isinstance(at, str) and at not in ("last", "all"):
        raise UserError(f"Asked to read at {at!r}. There are 'last', 'all', and positions such as [0, -1].")
    if not isinstance(at, str | Sequence):
        raise UserError(f"Asked to read at {at!r}. Give 'last', 'all', or positions such as [0, -1].")
    if at == "all":
        text, pos = (torch.arange(n_pos) >= first[:, None]).nonzero().unbind(1)
        return text, pos
    chosen = torch.tensor([-1] if at == "last" else list(at))
    if chosen.is_floating_point() or not len(chosen):
        raise UserError(f"Asked to read at {at!r}. Give 'last', 'all', or positions such as [0, -1].")
    pos = torch.where(chosen >= 0, first[:, None] + chosen, n_pos + chosen)
    lacking = ((pos < first[:, None]) | (pos >= n_pos)).nonzero()
    if len(lacking):
        text, which = lacking[0].tolist()
        raise BadPrompt(
            f"Asked to read at position {int(chosen[which])}. Text {text} has {n_pos - int(first[text])} tokens. "
            "Choose positions that every text has."
        )
    return torch.arange(len(first)).repeat_interleave(len(chosen)), pos.flatten()


def _checked(places: LabelledPlaces) -> LabelledPlaces:
    known = places.labels[places.labels != IGNORED].unique()
    if len(known) < 2:
        only = places.classes[int(known[0])]
        raise UserError(f"Probes were asked for, and every label is {only!r}. A probe needs two classes at least.")
    return places


def split_places(
    places: LabelledPlaces, test_share: float, generator: Generator
) -> tuple[Int[Tensor, "train"], Int[Tensor, "test"]]:
    """The rows that probes are fitted to, and those that judge them: whole groups of texts.

    Classes of texts are spread evenly over the two. Raises BadConfig for a share outside (0, 1), UserError for too few
    texts or groups, and for a class that is in one of the two alone.
    """
    if not 0 < test_share < 1:
        raise BadConfig(f"The share of test texts must lie between 0 and 1, not {test_share}.")
    n = places.n_groups
    order = torch.randperm(n, generator=generator)
    if places.by_text:
        first = torch.full((n,), len(places.group)).scatter_reduce(
            0, places.group, torch.arange(len(places.group)), "amin"
        )
        of_text = torch.zeros(len(places.group), dtype=torch.int64).index_put((places.text,), places.labels[:, 0])
        order = order[of_text[first][order].argsort(stable=True)]
    ends = ((torch.arange(n + 1) * test_share) + 0.5).floor()  # every 1 / share-th
    tested = torch.zeros(n, dtype=torch.bool)
    tested[order] = ends[1:] > ends[:-1]
    judged = tested[places.group[places.text]]
    train, test = (~judged).nonzero()[:, 0], judged.nonzero()[:, 0]
    if min(len(train), len(test)) < FEWEST:
        raise UserError(
            f"Of {n} texts or groups, a probe would be fitted to {len(train)} labels and judged on {len(test)}. Each "
            f"needs {FEWEST} at least. Give more texts, or another share of test texts."
        )
    if places.by_text:
        _check_classes(places, train, test, test_share)
    return train, test


def _check_classes(
    places: LabelledPlaces, train: Int[Tensor, "train"], test: Int[Tensor, "test"], share: float
) -> None:
    for number, name in enumerate(places.classes):
        own = places.labels[:, 0] == number
        if not (bool(own[train].any()) and bool(own[test].any())):
            n = len(places.group[places.text[own]].unique())
            raise UserError(
                f"The class {name!r} has {n} texts or groups, all of them on one side of the split into training and "
                f"test texts. Give it at least {math.ceil(max(1 / share, 1 / (1 - share)))}, or leave it out."
            )


def shuffled_labels(places: LabelledPlaces, rows: Int[Tensor, "row"], generator: Generator) -> Int[Tensor, "row item"]:
    """The labels of these rows dealt out anew: among their texts where texts have labels, else among the rows."""
    if not places.by_text:
        return places.labels[rows][torch.randperm(len(rows), generator=generator)]
    texts = places.text[rows].unique()
    of_text = torch.zeros(len(places.group), dtype=torch.int64).index_put((places.text,), places.labels[:, 0])
    dealt = of_text.clone()
    dealt[texts] = of_text[texts[torch.randperm(len(texts), generator=generator)]]
    return dealt[places.text[rows]][:, None]
