"""Evaluate a dictionary in its model: read it from whatever files hold it, and measure it on a text."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.formats.load import several_at
from micrographia.core.errors import BadConfig
from micrographia.core.events import Watch
from micrographia.core.lab import Findings
from micrographia.core.model import Model
from micrographia.core.questions import names
from micrographia.core.sites import Site, one_site
from micrographia.core.store import RunFolder
from micrographia.core.stream.rows import TokenRows
from micrographia.labs.sae.config import Evaluate
from micrographia.labs.sae.findings import counted, evaluated, findings, looked_at
from micrographia.labs.sae.text import as_read, rows_for, rows_holding
from micrographia.methods.dictionaries.evaluation.by_group import by_source
from micrographia.methods.dictionaries.evaluation.evaluate import Evaluation
from micrographia.methods.dictionaries.evaluation.in_depth import InDepth, in_depth


def read_dictionary(asked: Evaluate) -> Dictionary:
    """The one dictionary that was asked for. Of several, the site chooses too. Needs no model."""
    one = Dictionary.load(
        asked.dictionary, site=asked.site if several_at(asked.dictionary) else None, layer=asked.layer,
        width=asked.width, l0=asked.l0, allow_pickle=asked.allow_pickle,
        device=asked.target.device if asked.target.device != "auto" else None,
    )  # fmt: skip
    if not isinstance(one, Dictionary):
        raise BadConfig(f"{asked.dictionary} holds several dictionaries: {one!r}. Choose one with --layer.")
    if asked.site is None and one.about.site is None:
        raise BadConfig(
            f"The files of {asked.dictionary} do not say where it reads. Give --site, such as L5.resid_post."
        )
    return one


def prepare_evaluate(asked: Evaluate, one: Dictionary, model: Model, watch: Watch) -> Any:
    """Read the text; what remains is to measure."""
    site = _place(asked, one, model)
    target = one_site(model.sites, asked.writes) if asked.writes else one.about.target
    rows = rows_for(asked.reading, model, asked.tokens, watch)
    read = _texts(asked, model, rows, watch)

    def work(folder: RunFolder, watch: Watch) -> Findings:
        name = one.about.source.rstrip("/").rsplit("/", 1)[-1] or str(site)
        found = evaluated(asked, model, {name: one}, rows, asked.loss_tokens, watch, site=site, target=target)
        opening = [f"{one!r}, from {asked.dictionary}.", *one.about.notes]
        own = {"dictionary": repr(one), "notes": list(one.about.notes)}
        told = looked_at(asked, model, one, site, rows, watch) if asked.latents else None
        deep = _in_depth(asked, model, one, found[name], rows, read, watch)
        return findings(found, as_read(rows), opening=opening, files={}, own=own, latents=told, deep=deep)

    return work


def _place(asked: Evaluate, one: Dictionary, model: Model) -> Site:
    """Where it reads: as its files say, if the site chose it; else as was asked."""
    known = one.about.site
    if known is not None and (asked.site is None or several_at(asked.dictionary)):
        return known
    return one_site(model.sites, asked.site or "")


def _texts(asked: Evaluate, model: Model, rows: TokenRows, watch: Watch) -> dict[str, Tensor]:
    """The rows whose losses are measured by text, as many of each."""
    n = min(len(rows), rows_holding(asked.reading, asked.loss_tokens)) if asked.loss_tokens else 0
    others = {
        text: rows_for(replace(asked.reading, text=text), model, asked.loss_tokens, watch)
        for text in names(asked.beside or "")
    }
    return {asked.reading.text or "text": rows[:n], **{name: each[:n] for name, each in others.items()}}


def _in_depth(
    asked: Evaluate,
    model: Model,
    one: Dictionary,
    found: Evaluation,
    rows: TokenRows,
    read: Mapping[str, Tensor],
    watch: Watch,
) -> InDepth | None:
    """What else the report on Gemma Scope asks, of a model that predicts its next token."""
    if found.place is None or not asked.loss_tokens:
        return None
    text, *others = read
    sources = rows.sources()
    groups = None if sources is None else by_source(sources, len(read[text]))
    return in_depth(
        one, model, found.place, read[text], counted(asked, model, rows), found.metrics.mean,
        text=text, others={name: read[name] for name in others}, sources=groups, watch=watch,
    )  # fmt: skip
