"""Interpretation without a judge: each latent explained by a few cues on one half of the text, scored on the other.

Explanations are sets of tokens at which it fires, of tokens or pairs before, or the tokens whose logits it raises
most, if they follow. Each kind is chosen by F1 on the first half of the rows; a latent's explanation is the kind that
was best there (of equals the simplest); precision, recall and F1 are measured on the second half. The null gives each
latent another's explanation. A latent is called recognisable where precision and recall both reach `RECOGNISABLE`
there, with `FEWEST` firings or more. Cues are shallow: a latent that they do not explain may mean something all the
same. Axes: row pos latent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import UserError
from micrographia.core.events import Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.core.sites import SiteLike
from micrographia.core.tokens import ids_of
from micrographia.methods.dictionaries.evaluation.contexts import BLOCK_BYTES, latents_at
from micrographia.methods.dictionaries.evaluation.cues import (
    CUES,
    CueSet,
    KeyCounts,
    PairCounts,
    Predictor,
    best_prefixes,
    found_in,
    tokens_of,
)
from micrographia.methods.dictionaries.evaluation.effects_on_logits import promoted_tokens
from micrographia.methods.dictionaries.evaluation.reading import (
    Counted,
    ReadWrite,
    blocks_of,
    counted_by,
    n_rows,
    place_for,
    read_blocks,
    rows_between,
)

RECOGNISABLE = 0.5
FEWEST = 10
MOST_CUES = 20
"""In one explanation: more are a list, no explanation."""
PROMOTED = 50
LOGITS, FOLLOWS = "logits raised", "token that follows"
"""The kind of cue whose tokens come from the weights and not from the text, and the one that it is seen by."""


LISTED = 20
"""Latents that a table shows; the results have all."""


class Detected(NamedTuple):
    """How well an explanation tells where a latent fires."""

    precision: float
    recall: float
    f1: float
    accuracy: float
    """Detection accuracy: mean of the true-positive and true-negative rate, as on equally many of both kinds."""


class Explained(NamedTuple):
    """A latent's explanation and its scores on text that it was not chosen on."""

    latent: int
    kind: str
    text: str
    chosen_f1: float
    """On the text that it was chosen on."""
    detected: Detected
    null: Detected
    """The same explanation's scores for another latent in its place."""
    n_fires: int
    """On the held-out half."""
    by_kind: dict[str, Detected]

    @property
    def is_recognisable(self) -> bool:
        found = self.detected
        return self.n_fires >= FEWEST and min(found.precision, found.recall) >= RECOGNISABLE


@dataclass(frozen=True, slots=True)
class OfflineInterpretation:
    """All latents that were asked for."""

    explained: tuple[Explained, ...]
    n_tokens: tuple[int, int]
    """Of the half that explanations were chosen on, and of the half that they were scored on."""

    @property
    def recognisable(self) -> list[Explained]:
        """Best first."""
        return sorted((e for e in self.explained if e.is_recognisable), key=lambda each: -each.detected.f1)

    def mean(self, what: str = "accuracy", null: bool = False) -> float:
        """Over latents that fire `FEWEST` times or more on the held-out half; NaN where none does."""
        live = [each for each in self.explained if each.n_fires >= FEWEST]
        values = [getattr(each.null if null else each.detected, what) for each in live]
        return sum(values) / len(values) if values else float("nan")

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "latent": each.latent,
                "kind": each.kind,
                "explanation": each.text,
                **each.detected._asdict(),
                "null_f1": each.null.f1,
                "firings": each.n_fires,
                "recognisable": each.is_recognisable,
            }
            for each in sorted(self.explained, key=lambda each: -each.detected.f1)
        ]

    def figures(self) -> list[Figure]:
        live = sum(each.n_fires >= FEWEST for each in self.explained)
        return [
            figures.table(
                "latents-explained", "Latents explained by tokens", self.rows()[:LISTED], group="Dictionary",
                caption=f"{len(self.recognisable)} of {live} latents that fire {FEWEST} times or more are recognisable "
                f"(precision and recall of {RECOGNISABLE:g} or more, held out). Detection accuracy {self.mean():.2f}, "
                f"with another latent's explanation {self.mean(null=True):.2f}. Shown are the best {LISTED}.",
            )
        ]  # fmt: skip

    def __str__(self) -> str:
        lines = [str(self.figures()[0].caption)]
        lines += [
            f"  {each.latent:>7}  F1 {each.detected.f1:.2f}  {each.kind}: {each.text}"
            for each in self.recognisable[:LISTED]
        ]
        return "\n".join(lines)


def explain_offline(
    dictionary: Dictionary,
    model: Model,
    rows: Any,
    site: SiteLike | None = None,
    *,
    generator: Generator,
    latents: Int[Tensor, "latent"] | None = None,
    levels: Float[Tensor, "latent"] | None = None,
    counted: Counted | None = None,
    words: Callable[[int], str] | None = None,
    watch: Watch = silent,
) -> OfflineInterpretation:
    """Explanations of these latents (None: all), from cues. `levels`: what each must exceed to count as firing (0).

    `words` spells a token, by default as the model's tokenizer does. Cost: a run of all rows up to the Site, and two
    more looks at the tokens of the first half. Memory: distinct pairs of latent and cue. Raises UserError for fewer
    than two rows, and for latents of which there are not two.
    """
    total = n_rows(rows)
    chosen = torch.arange(dictionary.n_latents) if latents is None else latents.long()
    if total < 2 or len(chosen) < 2:
        raise UserError(
            f"Explanations are chosen on half of the rows, scored on the others, and compared with another latent's. "
            f"Found {total} rows and {len(chosen)} latents. Give two or more of each."
        )
    place = place_for(dictionary, model, site)
    counted = counted_by(model, rows) if counted is None else counted
    halves = rows_between(rows, 0, total // 2), rows_between(rows, total // 2, total)
    level = torch.zeros(len(chosen)) if levels is None else levels
    reading = _Reading(dictionary, model, place, chosen, level, counted, halves, watch)
    promoted = promoted_tokens(dictionary, model, place.write, chosen, PROMOTED)
    return explain_firings(
        reading, chosen, model.shape.d_vocab, promoted, generator=generator, words=words or _speller(model)
    )


class FiringBlock(NamedTuple):
    """Where latents fire in some rows."""

    ids: Int[Tensor, "row pos"]
    counted: Bool[Tensor, "row pos"]
    places: Int[Tensor, "firing"]
    """In the rows, as row * n_pos + pos."""
    latents: Int[Tensor, "firing"]
    """From 0 on, of those that are explained."""


@runtime_checkable
class FiringSource(Protocol):
    """The firings of some latents on two halves of a text, 0 and 1."""

    def firings(self, half: int) -> Iterator[FiringBlock]: ...

    def tokens(self, half: int) -> Iterator[tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]]:
        """Ids, and which of them count."""
        ...


def explain_firings(
    source: FiringSource,
    latents: Int[Tensor, "latent"],
    n_vocab: int,
    promoted: Int[Tensor, "latent n"] | None,
    *,
    generator: Generator,
    words: Callable[[int], str],
) -> OfflineInterpretation:
    """`explain_offline` from firings that are known: `latents` are the numbers of the source's, in their order.

    `promoted`: the tokens whose logits each raises most, None where that is not known. Reads the firings of each half
    once, and the tokens of the first half twice.
    """
    pairs, fires, n_first = _counted_pairs(source, len(latents), n_vocab)
    sets = _chosen_sets(source, pairs, fires, n_vocab, promoted)
    own = {latent: max(kinds, key=lambda each: each.f1) for latent, kinds in sets.items()}
    null = _deranged(len(latents), generator)
    scores, n_second = _scored(source, n_vocab, sets, own, null)
    found = []
    for i, latent in enumerate(latents.tolist()):
        by_kind = {kind: scores.detected(kind, i) for kind in scores.both if kind not in (OWN, NULL)}
        text = _said(own[i], words, n_vocab)
        numbers = scores.detected(OWN, i), scores.detected(NULL, i)
        found.append(Explained(latent, own[i].kind, text, own[i].f1, *numbers, int(scores.fires[i]), by_kind))
    return OfflineInterpretation(tuple(found), (n_first, n_second))


OWN, NULL = "own", "another's"


class _Reading(NamedTuple):
    """A source that runs the model."""

    dictionary: Dictionary
    model: Model
    place: ReadWrite
    chosen: Tensor
    level: Tensor
    counted: Counted
    halves: tuple[Any, Any]
    watch: Watch

    def firings(self, half: int) -> Iterator[FiringBlock]:
        at_once = max(1, BLOCK_BYTES // (4 * len(self.chosen)))
        stage = ("explaining latents", "scoring explanations")[half]
        for block in read_blocks(
            self.model, [self.place.read], self.halves[half], self.counted, tokens_at_once=at_once, watch=self.watch,
            stage=stage,
        ):  # fmt: skip
            values = latents_at(self.dictionary, block, self.place.read, self.chosen).flatten(0, 1)
            place, latent = (values > self.level).nonzero(as_tuple=True)
            yield FiringBlock(ids_of(block.inputs).cpu(), block.counted.cpu(), place, latent)

    def tokens(self, half: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _, given in blocks_of(self.halves[half]):
            yield ids_of(given).cpu(), self.counted.mask(given).cpu()


def _counted_pairs(
    source: FiringSource, n: int, n_vocab: int
) -> tuple[dict[str, PairCounts], Int[Tensor, "latent"], int]:
    """How often each of n latents fires at each cue, and at all, on the first half."""
    found = {kind: PairCounts(n_vocab**2) for kind in CUES}
    fires, n_tokens = torch.zeros(n, dtype=torch.int64), 0
    for block in source.firings(0):
        for kind, cue in CUES.items():
            found[kind].add(block.latents, cue(block.ids, n_vocab).flatten()[block.places])
        fires += block.latents.bincount(minlength=n)
        n_tokens += int(block.counted.sum())
    return found, fires, n_tokens


def _chosen_sets(
    source: FiringSource, pairs: dict[str, PairCounts], fires: Tensor, n_vocab: int, promoted: Tensor | None
) -> dict[int, list[CueSet]]:
    """Of each latent the best set of each kind of cue. Cues seen once are chance, and left out."""
    seen = {kind: KeyCounts(each.keys.unique()) for kind, each in pairs.items()}
    if promoted is not None:
        keys = torch.cat([pairs[FOLLOWS].keys, promoted.flatten()]).unique()
        seen[FOLLOWS] = KeyCounts(keys)
    for ids, counted in source.tokens(0):
        for kind, each in seen.items():
            each.add(CUES[kind](ids, n_vocab)[counted])
    sets = [_by_precision(kind, pairs[kind], seen[kind], fires) for kind in CUES if kind != FOLLOWS]
    if promoted is not None:
        latents = torch.arange(len(fires))[:, None].expand_as(promoted)
        sets.append(_sets(LOGITS, promoted, pairs[FOLLOWS].of(latents, promoted), seen[FOLLOWS](promoted), fires))
    return {latent: list(each) for latent, each in enumerate(zip(*sets))}


def _by_precision(kind: str, pairs: PairCounts, seen: KeyCounts, fires: Tensor) -> list[CueSet]:
    latents, keys, both = pairs.latents, pairs.keys, pairs.counts
    total = seen(keys)
    order = (total > 1).nonzero()[:, 0]
    order = order[(both / total.clamp(min=1) + both * 1e-9)[order].argsort(descending=True, stable=True)]
    order = order[latents[order].argsort(stable=True)]
    latent = latents[order]
    n = latent.bincount(minlength=len(fires))
    rank = torch.arange(len(order)) - (n.cumsum(0) - n)[latent]
    kept = rank < MOST_CUES
    tables = torch.zeros(3, len(fires), MOST_CUES, dtype=torch.int64)
    tables[:, latent[kept], rank[kept]] = torch.stack([keys, both, total])[:, order[kept]]
    return _sets(kind, tables[0], tables[1], tables[2], fires)


def _sets(kind: str, keys: Tensor, both: Tensor, seen: Tensor, fires: Tensor) -> list[CueSet]:
    """The best prefix of each latent's cues, (latent, cue)."""
    lengths, f1 = best_prefixes(both, seen, fires)
    return [
        CueSet(kind, tuple(each[:n]), score) for each, n, score in zip(keys.tolist(), lengths.tolist(), f1.tolist())
    ]


class _Scores:
    """Predictions and firings that met, of every kind of explanation."""

    def __init__(self, kinds: list[str], n: int) -> None:
        self.both = {kind: torch.zeros(n, dtype=torch.int64) for kind in kinds}
        self.said = {kind: torch.zeros(n, dtype=torch.int64) for kind in kinds}
        self.fires = torch.zeros(n, dtype=torch.int64)
        self.n = 0

    def add(self, kind: str, hits: tuple[Tensor, Tensor], on: Tensor) -> None:
        """`hits`: (place, latent) predicted; `on`: sorted place * latents + latent of every firing."""
        token, latent = hits
        n = len(self.fires)
        right = found_in(on, token * n + latent)[1]
        self.said[kind] += latent.bincount(minlength=n)
        self.both[kind] += latent[right].bincount(minlength=n)

    def detected(self, kind: str, latent: int) -> Detected:
        both, said, true = (int(each[latent]) for each in (self.both[kind], self.said[kind], self.fires))
        quiet = self.n - true
        recall = both / true if true else 0.0
        wrong = (said - both) / quiet if quiet else 0.0
        precision = both / said if said else 0.0
        return Detected(precision, recall, 2 * both / max(said + true, 1), (recall + 1 - wrong) / 2)


def _scored(
    source: FiringSource, n_vocab: int, sets: dict[int, list[CueSet]], own: dict[int, CueSet], null: Tensor
) -> tuple[_Scores, int]:
    kinds = list(dict.fromkeys(each.kind for every in sets.values() for each in every))
    n = len(sets)
    scores = _Scores([*kinds, OWN, NULL], n)
    by_kind = {kind: {i: e for i, every in sets.items() for e in every if e.kind == kind} for kind in kinds}
    mine = {kind: {i: each for i, each in own.items() if each.kind == kind} for kind in kinds}
    theirs = {kind: {i: own[j] for i, j in enumerate(null.tolist()) if own[j].kind == kind} for kind in kinds}
    predictors = [
        (kind, name, Predictor.of(given[kind]))
        for name, given in ((None, by_kind), (OWN, mine), (NULL, theirs))
        for kind in kinds
    ]
    for ids, counted, at, latents in source.firings(1):
        places = counted.flatten().nonzero()[:, 0]
        firing = (at * n + latents).sort().values
        scores.fires += latents.bincount(minlength=n)
        scores.n += len(places)
        for kind, name, predictor in predictors:
            keys = CUES[FOLLOWS if kind == LOGITS else kind](ids, n_vocab).flatten()[places]
            token, latent = predictor.predictions(keys)
            scores.add(name or kind, (places[token], latent), firing)
    return scores, scores.n


def _deranged(n: int, generator: Generator) -> Int[Tensor, "latent"]:
    """Another latent for each: a random cycle through all of them."""
    order = torch.randperm(n, generator=generator)
    found = torch.empty_like(order)
    found[order] = order.roll(1)
    return found


def _speller(model: Model) -> Callable[[int], str]:
    tokenizer = model.tokenizer
    return str if tokenizer is None else lambda token: repr(tokenizer.decode([token]))


def _said(cues: CueSet, spell: Callable[[int], str], n_vocab: int) -> str:
    if not cues.keys:
        return "nothing found"
    kind = "token" if cues.kind == LOGITS else cues.kind
    return ", ".join(" ".join(spell(token) for token in tokens_of(kind, key, n_vocab)) for key in cues.keys)
