"""Interpretation without a judge: each latent explained by a few cues on one half of the text, scored on the other.

Explanations are sets of tokens at which it fires, of tokens or pairs before, or the tokens whose logits it raises
most, if they follow. Each kind is chosen by F1 on the first half of the rows; a latent's explanation is the kind that
was best there (of equals the simplest); precision, recall and F1 are measured on the second half. The null gives each
latent another's explanation. A latent is called recognisable where precision and recall both reach `RECOGNISABLE`
there, with `FEWEST` firings or more. Cues are shallow: a latent that they do not explain may mean something all the
same. Axes: row pos latent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
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
    best_prefix,
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
LOGITS = "logits raised"
"""The kind of cue whose tokens come from the weights and not from the text."""


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
                "latents-explained", "Latents explained by tokens", self.rows(), group="Dictionary",
                caption=f"{len(self.recognisable)} of {live} latents that fire {FEWEST} times or more are recognisable "
                f"(precision and recall of {RECOGNISABLE:g} or more, held out). Detection accuracy {self.mean():.2f}, "
                f"with another latent's explanation {self.mean(null=True):.2f}.",
            )
        ]  # fmt: skip

    def __str__(self) -> str:
        lines = [str(self.figures()[0].caption)]
        lines += [
            f"  {each.latent:>7}  F1 {each.detected.f1:.2f}  {each.kind}: {each.text}"
            for each in self.recognisable[:20]
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
    first, second = rows_between(rows, 0, total // 2), rows_between(rows, total // 2, total)
    level = torch.zeros(len(chosen)) if levels is None else levels
    reading = _Reading(dictionary, model, place, chosen, level, counted, watch)
    pairs, fires, n_first = _counted_pairs(reading, first)
    sets = _chosen_sets(reading, first, pairs, fires)
    own = {latent: max(kinds, key=lambda each: each.f1) for latent, kinds in sets.items()}
    null = _deranged(len(chosen), generator)
    scores, n_second = _scored(reading, second, sets, own, null)
    spell = words or _speller(model)
    found = []
    for i, latent in enumerate(chosen.tolist()):
        by_kind = {kind: scores.detected(kind, i) for kind in scores.both if kind not in (OWN, NULL)}
        text = _said(own[i], spell, model.shape.d_vocab)
        numbers = scores.detected(OWN, i), scores.detected(NULL, i)
        found.append(Explained(latent, own[i].kind, text, own[i].f1, *numbers, int(scores.fires[i]), by_kind))
    return OfflineInterpretation(tuple(found), (n_first, n_second))


OWN, NULL = "own", "another's"


class _Reading(NamedTuple):
    """Everything that a pass over rows needs."""

    dictionary: Dictionary
    model: Model
    place: ReadWrite
    chosen: Tensor
    level: Tensor
    counted: Counted
    watch: Watch

    def blocks(self, rows: Any, stage: str) -> Any:
        """Of each block: ids, counted, and (token, latent) of every firing, tokens numbered among all places."""
        at_once = max(1, BLOCK_BYTES // (4 * len(self.chosen)))
        for block in read_blocks(
            self.model, [self.place.read], rows, self.counted, tokens_at_once=at_once, watch=self.watch, stage=stage
        ):
            values = latents_at(self.dictionary, block, self.place.read, self.chosen).flatten(0, 1)
            yield ids_of(block.inputs).cpu(), block.counted.cpu(), (values > self.level).nonzero()


def _counted_pairs(reading: _Reading, rows: Any) -> tuple[dict[str, PairCounts], Int[Tensor, "latent"], int]:
    """How often each latent fires at each cue, and at all, on these rows."""
    n_vocab = reading.model.shape.d_vocab
    found = {kind: PairCounts(n_vocab**2) for kind in CUES}
    fires, n = torch.zeros(len(reading.chosen), dtype=torch.int64), 0
    for ids, counted, on in reading.blocks(rows, "explaining latents"):
        for kind, cue in CUES.items():
            found[kind].add(on[:, 1], cue(ids, n_vocab).flatten()[on[:, 0]])
        fires += on[:, 1].bincount(minlength=len(fires))
        n += int(counted.sum())
    return found, fires, n


def _chosen_sets(reading: _Reading, rows: Any, pairs: dict[str, PairCounts], fires: Tensor) -> dict[int, list[CueSet]]:
    """Of each latent the best set of each kind of cue. Cues seen once are chance, and left out."""
    n_vocab = reading.model.shape.d_vocab
    promoted = promoted_tokens(reading.dictionary, reading.model, reading.place.write, reading.chosen, PROMOTED)
    seen = {kind: KeyCounts(each.keys.unique()) for kind, each in pairs.items()}
    if promoted is not None:
        seen["token that follows"] = KeyCounts(
            torch.cat([pairs["token that follows"].keys, promoted.flatten()]).unique()
        )
    for _, given in blocks_of(rows):
        counted, ids = reading.counted.mask(given).cpu(), ids_of(given).cpu()
        for kind, each in seen.items():
            each.add(CUES[kind](ids, n_vocab)[counted])
    found = {}
    for latent in range(len(reading.chosen)):
        n = int(fires[latent])
        sets = [
            _by_precision(kind, pairs[kind], seen[kind], latent, n) for kind in CUES if kind != "token that follows"
        ]
        if promoted is not None:
            sets.append(
                _by_logits(promoted[latent], pairs["token that follows"], seen["token that follows"], latent, n)
            )
        found[latent] = sets
    return found


def _by_precision(kind: str, pairs: PairCounts, seen: KeyCounts, latent: int, n_fires: int) -> CueSet:
    own = pairs.of(latent)
    keys, both = pairs.keys[own], pairs.counts[own]
    total = seen(keys)
    keys, both, total = (each[total > 1] for each in (keys, both, total))
    order = (both / total.clamp(min=1) + both * 1e-9).argsort(descending=True, stable=True)
    return CueSet(kind, *best_prefix(keys[order], both[order], total[order], n_fires, MOST_CUES))


def _by_logits(promoted: Tensor, pairs: PairCounts, seen: KeyCounts, latent: int, n_fires: int) -> CueSet:
    own = pairs.of(latent)
    at, there = _positions(pairs.keys[own], promoted)
    both = torch.where(there, pairs.counts[own][at], 0) if len(pairs.counts[own]) else torch.zeros_like(promoted)
    return CueSet(LOGITS, *best_prefix(promoted, both, seen(promoted), n_fires, len(promoted)))


def _positions(ordered: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    if not len(ordered):
        return torch.zeros_like(values), torch.zeros_like(values, dtype=torch.bool)
    at = torch.searchsorted(ordered, values.contiguous()).clamp(max=len(ordered) - 1)
    return at, ordered[at] == values


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
        right = _positions(on, token * n + latent)[1]
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
    reading: _Reading, rows: Any, sets: dict[int, list[CueSet]], own: dict[int, CueSet], null: Tensor
) -> tuple[_Scores, int]:
    kinds = list(dict.fromkeys(each.kind for every in sets.values() for each in every))
    n, n_vocab = len(reading.chosen), reading.model.shape.d_vocab
    scores = _Scores([*kinds, OWN, NULL], n)
    by_kind = {kind: {i: e for i, every in sets.items() for e in every if e.kind == kind} for kind in kinds}
    mine = {kind: {i: each for i, each in own.items() if each.kind == kind} for kind in kinds}
    theirs = {kind: {i: own[j] for i, j in enumerate(null.tolist()) if own[j].kind == kind} for kind in kinds}
    predictors = [
        (kind, name, Predictor.of(given[kind]))
        for name, given in ((None, by_kind), (OWN, mine), (NULL, theirs))
        for kind in kinds
    ]
    for ids, counted, on in reading.blocks(rows, "scoring explanations"):
        places = counted.flatten().nonzero()[:, 0]
        firing = (on[:, 0] * n + on[:, 1]).sort().values
        scores.fires += on[:, 1].bincount(minlength=n)
        scores.n += len(places)
        for kind, name, predictor in predictors:
            keys = CUES["token that follows" if kind == LOGITS else kind](ids, n_vocab).flatten()[places]
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
