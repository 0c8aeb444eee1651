"""Building a feature bundle: one pass of the model, then every latent's page, written range by range.

Cost beside the run: 2 d_in latents FLOPs a token to encode; once 2 latents (latents + d_vocab) d_out for neighbours and
logits; a few sorts of all firings. Memory beside the model: about 1.5 GB and 32 bytes a token (firings wait on disk, 8
bytes each). Axes: latent.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from micrographia.core.dictionaries.dictionary import FIRST_TOKEN, Dictionary
from micrographia.core.events import Progress, Watch, renamed, silent
from micrographia.core.model import Model
from micrographia.core.runtime import generator as generator_of
from micrographia.core.sites import SiteLike
from micrographia.core.store import atomic
from micrographia.core.store.formats import tensors_bytes
from micrographia.core.store.ranges import Part
from micrographia.methods.dictionaries.evaluation.effects_on_logits import LogitEffects, logit_effects
from micrographia.methods.dictionaries.evaluation.offline import PROMOTED
from micrographia.methods.dictionaries.evaluation.reading import Counted, ReadWrite, counted_by, place_for
from micrographia.methods.dictionaries.features.bundle import BINS, Bundle
from micrographia.methods.dictionaries.features.by_token import ByToken
from micrographia.methods.dictionaries.features.firings import (
    FiringStore,
    LatentFirings,
    record_firings,
    weights_hash,
)
from micrographia.methods.dictionaries.features.head import FORMAT
from micrographia.methods.dictionaries.features.labels import label_latents, unlabelled
from micrographia.methods.dictionaries.features.matching import MATCHING, matching_tensors
from micrographia.methods.dictionaries.features.passages import PassageChoice, choose_passages
from micrographia.methods.dictionaries.features.together import FiringTogether
from micrographia.methods.dictionaries.features.weights import largest_units, nearest_rows
from micrographia.methods.dictionaries.features.writing import refuse_existing, write_bundle

LOGITS, NEIGHBOURS, NEURONS, OF_A_TOKEN = 10, 8, 10, 10
RANGE_FIRINGS, RANGE_LATENTS = 2**22, 1024
"""Of the latents whose pages are made at once."""


def build_bundle(
    dictionary: Dictionary,
    model: Model,
    rows: Any,
    site: SiteLike | None,
    folder: Path | str,
    *,
    generator: Generator,
    counted: Counted | None = None,
    labels: bool = True,
    choice: PassageChoice | None = None,
    name: str = "",
    watch: Watch = silent,
) -> Bundle:
    """Build the bundle of a dictionary on these rows of tokens in a new folder; whole or not at all.

    The pass over the model is kept beside it, in FOLDER.firings, until the bundle is whole: a build that was stopped
    goes on from there. `generator` draws the passages of quantiles, and the labels' null. `labels`: explain latents by
    tokens, on half of the rows, and score that on the others. Raises RunExists for a folder that is there, UnknownSite,
    BadShape for a dictionary that does not fit the model, UserError where no token counts, CannotWrite.
    """
    folder = Path(folder).absolute()
    refuse_existing(folder)
    place = place_for(dictionary, model, site)
    counted = counted_by(model, rows) if counted is None else counted
    passed = folder.with_name(f"{folder.name}.firings")
    store = record_firings(dictionary, model, place.read, rows, counted, passed, watch=watch)
    making = _Making(dictionary, model, place, store, choice or PassageChoice(), generator, labels, watch)
    compared = {MATCHING: tensors_bytes(matching_tensors(making.unit, store))}
    bundle = write_bundle(folder, making.pages(), making.tokens, lambda: making.head(name or folder.name), compared)
    atomic.remove(passed)
    return bundle


def build_missing(
    dictionaries: Mapping[str, Dictionary],
    model: Model,
    rows: Any,
    folder: Path,
    *,
    seed: int,
    counted: Counted | None = None,
    watch: Watch = silent,
) -> None:
    """A bundle of each dictionary by its name, at its own Site, in FOLDER/NAME; those that are there are left."""
    for name, each in dictionaries.items():
        if not (place := folder / name).exists():
            told = renamed(watch, f"pages of {name}")
            build_bundle(each, model, rows, None, place, generator=generator_of(seed), counted=counted, watch=told)


class _Making:
    """The parts of one bundle, in the order in which they are asked for: pages, then index, tokens and head."""

    def __init__(
        self,
        dictionary: Dictionary,
        model: Model,
        place: ReadWrite,
        store: FiringStore,
        choice: PassageChoice,
        generator: Generator,
        labels: bool,
        watch: Watch,
    ) -> None:
        self.dictionary, self.model, self.place, self.store = dictionary, model, place, store
        self.choice, self.generator, self.watch = choice, generator, watch
        self.signed = False
        self.labels, self.spelled = labels, [_spelled(model, i) for i in range(model.shape.d_vocab)]
        self.by_token = ByToken(store, model.shape.d_vocab, OF_A_TOKEN)
        self.together = FiringTogether(store)
        self.decoder = dictionary.decoder.detach().float().cpu()
        self.unit = torch.nn.functional.normalize(self.decoder, dim=1)

    def tokens(self) -> Part:
        return {
            "text": self.spelled,
            "seen": self.by_token.seen.numpy(),
            "latents": self.by_token.latents.numpy(),
            "means": self.by_token.means.numpy(),
        }

    def head(self, name: str) -> dict[str, Any]:
        store, choice = self.store, self.choice
        about = {
            "name": name,
            "model": self.dictionary.about.model,
            "site": str(self.place.read),
            "n_latents": store.n_latents,
            "d_in": self.dictionary.d_in,
            "n_tokens": store.n_tokens,
            "n_rows": store.n_rows,
            "dead": int((store.counts == 0).sum()),
            "format": FORMAT,
            "weights": weights_hash(self.dictionary),
            "correlated_on": self.together.n_tokens,
            "first_token": self.dictionary.about.training.get(FIRST_TOKEN),
            "signed": self.signed,
        }
        shape = {"n_ctx": store.n_ctx, "before": choice.before, "window": choice.window}
        return {"about": about, "groups": [list(each) for each in choice.groups], **shape}

    def pages(self) -> Iterator[dict[str, Any]]:
        for each in self.store.ranges(RANGE_FIRINGS, RANGE_LATENTS):
            self.watch(Progress("pages of latents", each.start, self.store.n_latents, "latent"))
            firings = self.store.between(each.start, each.stop)
            self.signed |= bool((firings.value < 0).any())
            self.by_token.add(firings, each.start, len(each))
            yield self._activity(firings, each) | self._passages(firings, each) | self._told(firings, each)
        self.watch(Progress("pages of latents", self.store.n_latents, self.store.n_latents, "latent"))

    def _activity(self, firings: LatentFirings, each: range) -> dict[str, Any]:
        n, size = len(each), firings.value.abs()
        largest = torch.zeros(n).scatter_reduce_(0, firings.latent, size, "amax")
        bins = (size / largest[firings.latent] * BINS).long().clamp(max=BINS - 1)
        histogram = (firings.latent * BINS + bins).bincount(minlength=n * BINS).view(n, BINS)
        near = self.together.most(each.start, each.stop, NEIGHBOURS)
        return {
            "n_fires": firings.counts(n).numpy(),
            "max": largest.numpy(),
            "histogram": histogram.int().numpy(),
            "correlated": near.latents.int().numpy(),
            "correlations": near.correlations.float().numpy(),
        }

    def _passages(self, firings: LatentFirings, each: range) -> dict[str, Any]:
        found = choose_passages(firings, len(each), self.store, self.choice, self.generator)
        ids, values = found.ids.flatten(1).int(), found.values.flatten(1)
        return {"places": found.places.numpy(), "ids": ids.numpy(), "values": values.numpy()}

    def _told(self, firings: LatentFirings, each: range) -> dict[str, Any]:
        """What needs the weights, and labels, which need them too."""
        n, latents = len(each), torch.arange(each.start, each.stop)
        near = nearest_rows(self.unit, each.start, each.stop, NEIGHBOURS)
        units = largest_units(self.decoder[each.start : each.stop], NEURONS)
        effects = logit_effects(self.dictionary, self.model, self.place.write, latents, PROMOTED, LOGITS)
        promoted = None if effects is None else effects.raised
        labels = (
            label_latents(self.store, firings, n, self.spelled, promoted, self.generator)
            if self.labels
            else unlabelled(n)
        )
        return {
            **_columns(_none(n) if effects is None else effects),
            **{"neighbours": near.places.int().numpy(), "cosines": near.values.numpy()},
            **{"neurons": units.places.int().numpy(), "weights": units.values.numpy()},
            **{"decoder_l1": self.decoder[each.start : each.stop].abs().sum(1).numpy()},
            **labels,
        }


def _columns(effects: LogitEffects) -> dict[str, Any]:
    """As many as are shown."""
    cut = {name: each[:, :LOGITS] for name, each in effects._asdict().items()}
    return {name: (each if name.endswith("_by") else each.int()).numpy() for name, each in cut.items()}


def _none(n: int) -> LogitEffects:
    """Of a dictionary that writes into no stream."""
    ids, values = torch.full((n, 1), -1), torch.zeros(n, 1)
    return LogitEffects(ids, values, ids, values)


def _spelled(model: Model, token: int) -> str:
    """A token's text, as data; what no file can hold (half of a surrogate pair) replaced."""
    text = str(token) if model.tokenizer is None else model.tokenizer.decode([token])
    return text.encode("utf-8", "replace").decode()
