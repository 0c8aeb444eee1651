"""Evaluate a dictionary in its model: read it from whatever files hold it, and measure it on a text."""

from typing import Any

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadConfig
from micrographia.core.events import Watch
from micrographia.core.lab import Findings
from micrographia.core.model import Model
from micrographia.core.sites import one_site
from micrographia.core.store import RunFolder
from micrographia.labs.sae.config import Evaluate
from micrographia.labs.sae.findings import evaluated, findings, looked_at
from micrographia.labs.sae.text import as_read, rows_for


def prepare_evaluate(asked: Evaluate, model: Model, watch: Watch) -> Any:
    """Read the dictionary and the text; what remains is to measure."""
    one = Dictionary.load(
        asked.dictionary, layer=asked.layer, width=asked.width, l0=asked.l0, allow_pickle=asked.allow_pickle,
        device=asked.target.device if asked.target.device != "auto" else None,
    )  # fmt: skip
    if not isinstance(one, Dictionary):
        raise BadConfig(f"{asked.dictionary} holds several dictionaries: {one!r}. Choose one with --layer.")
    site = one_site(model.sites, asked.site) if asked.site else one.about.site
    if site is None:
        raise BadConfig(
            f"The files of {asked.dictionary} do not say where it reads. Give --site, such as L5.resid_post."
        )
    target = one_site(model.sites, asked.writes) if asked.writes else one.about.target
    rows = rows_for(asked.reading, model, asked.tokens, watch)

    def work(folder: RunFolder, watch: Watch) -> Findings:
        name = one.about.source.rstrip("/").rsplit("/", 1)[-1] or str(site)
        found = evaluated(asked, model, {name: one}, rows, asked.loss_tokens, watch, site=site, target=target)
        opening = [f"{one!r}, from {asked.dictionary}.", *one.about.notes]
        own = {"dictionary": repr(one), "notes": list(one.about.notes)}
        told = looked_at(asked, model, one, site, rows, watch) if asked.latents else None
        return findings(found, as_read(rows), opening=opening, files={}, own=own, latents=told)

    return work
