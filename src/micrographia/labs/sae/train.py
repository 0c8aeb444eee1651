"""Train dictionaries on a model's activations: the recipes that were asked for, side by side, and what they became."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from micrographia.core.config import read_object
from micrographia.core.dictionaries.dictionary import FIRST_TOKEN, KEPT, LEFT_OUT, Dictionary
from micrographia.core.dictionaries.formats.save import written_as
from micrographia.core.errors import BadConfig
from micrographia.core.events import Watch
from micrographia.core.lab import Findings
from micrographia.core.model import Model
from micrographia.core.questions import names, numbers
from micrographia.core.sites import Site, one_site, select
from micrographia.core.store import RunFolder
from micrographia.core.store.folder import DICTIONARIES, PAGES
from micrographia.core.stream.batches import ActivationStream
from micrographia.labs.sae.config import PENALISED, Train
from micrographia.labs.sae.findings import counted, evaluated, findings, looked_at
from micrographia.labs.sae.text import as_read, rows_for, rows_holding
from micrographia.methods.dictionaries.features.build import build_missing
from micrographia.methods.dictionaries.training.presets import PRESETS, shortened
from micrographia.methods.dictionaries.training.recipe import Recipe, recipe_fields, recipe_from, seed_at
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries

DEAD_SHARE = 5
"""A latent is dead when it was silent for a fifth of the training, at most for the recipe's own number of tokens."""
LOSS_SHARE = 5
"""The losses with the dictionary spliced in are measured on a fifth of the held-out tokens."""
BEGUN = Recipe(k=1, revival="auxk")
"""What others begin from."""
MATRYOSHKA = (16, 8, 4, 2)
"""The prefixes of a matryoshka dictionary are these parts of its width."""


class Planned(NamedTuple):
    """One dictionary to train: its name, its place in the batches, and how."""

    name: str
    site: Site
    recipe: Recipe


def prepare_train(asked: Train, model: Model, watch: Watch) -> Any:
    """Read the sites, the text and the recipes; what remains is to train."""
    sites = select(model.sites, names(asked.site))
    target = None if asked.writes is None else one_site(model.sites, asked.writes)
    rows = rows_for(asked.reading, model, asked.held_out + asked.tokens, watch)
    n_held = rows_holding(asked.reading, asked.held_out)
    if len(rows) < 2 * n_held:
        raise BadConfig(
            f"The text has {len(rows)} rows of {rows.n_ctx} tokens, of which {n_held} were to be held out. Give more "
            "text, or lower --held-out."
        )
    held = rows.between(0, n_held)
    each = len(amounts_of(asked)) * asked.seeds
    readings = [(site, target) if target else site for site in sites for _ in range(each)]
    stream = ActivationStream(
        model, readings, rows.between(n_held), batch=asked.batch, buffer_bytes=asked.buffer * 2**20,
        seed=asked.target.seed, sink=not asked.reading.keep_first, steps=steps_of(asked), watch=watch,
    )  # fmt: skip
    d_in, d_out = stream.widths()
    members = members_of(asked, sites, d_in)

    def work(folder: RunFolder, watch: Watch) -> Findings:
        found = train_dictionaries(
            stream, [each.recipe for each in members], d_in=d_in, d_out=d_out, seed=asked.target.seed, folder=folder,
            watch=watch, course=Course(checkpoint_every=asked.checkpoint_every),
        )  # fmt: skip
        named = {each.name: _placed(made, asked, each.site, target) for each, made in zip(members, found)}
        measured = evaluated(asked, model, named, held, asked.held_out // LOSS_SHARE, watch)
        first = named[members[0].name]
        told = looked_at(asked, model, first, members[0].site, held, watch) if asked.latents else None
        if asked.pages:
            place, own = folder.path / PAGES, counted(asked, model, held)
            build_missing(named, model, held, place, seed=asked.target.seed, counted=own, watch=watch)
        lost, files = saved(named, asked.layout)
        kind, width = asked.recipe or asked.kind, members[0].recipe.n_latents
        many = "one dictionary" if len(named) == 1 else f"{len(named)} dictionaries"
        opening = [f"Trained {many} by {kind}, {width:,} latents each, for {steps_of(asked):,} steps."]
        own = {"recipes": {each.name: recipe_fields(each.recipe) for each in members}, "not_saved": lost}
        return findings(measured, as_read(rows), opening=opening, files=files, own=own, latents=told)

    return work


def _placed(one: Dictionary, asked: Train, site: Site, target: Site | None) -> Dictionary:
    """The same dictionary, told of its model, where it reads and writes, and what was done with first tokens."""
    training = {**one.about.training, FIRST_TOKEN: KEPT if asked.reading.keep_first else LEFT_OUT}
    return replace(one, about=replace(one.about, model=asked.target.model, site=site, target=target, training=training))


def saved(dictionaries: Mapping[str, Dictionary], layout: str) -> tuple[dict[str, list[str]], dict[str, bytes]]:
    """What the format could not carry, by dictionary, and the files, each dictionary in a folder of its own."""
    lost, files = dict[str, list[str]](), dict[str, bytes]()
    for name, each in dictionaries.items():
        written = written_as(each, layout)
        lost[name] = list(written.lost)
        files |= {f"{DICTIONARIES}/{name}/{file}": data for file, data in written.files.items()}
    return lost, files


def steps_of(asked: Train) -> int:
    return max(1, round(asked.tokens / asked.batch))


def amounts_of(asked: Train) -> tuple[float, ...]:
    """The L0s, or the coefficients of the penalty; one that is not read where a recipe says it."""
    return numbers(asked, "sparsity" if asked.sparsity else "l0")


def members_of(asked: Train, sites: Sequence[Site], d_in: int) -> list[Planned]:
    """Every site with every L0 or coefficient and every seed, in that order."""
    found = []
    for site in sites:
        for amount in amounts_of(asked):
            for i in range(asked.seeds):
                seed = asked.target.seed + i
                own = seed if len(sites) == 1 else seed_at(seed, str(site))
                recipe = replace(recipe_for(asked, d_in, amount), seed=own)
                found.append(Planned(_name(asked, site, amount, i), site, recipe))
    return found


def recipe_for(asked: Train, d_in: int, amount: float) -> Recipe:
    """The Recipe of one dictionary; `amount` is its L0, or the coefficient of its penalty.

    A published recipe keeps its kind, its sparsity and what it does for dead latents.
    """
    width, steps = asked.width or 8 * d_in, steps_of(asked)
    own: dict[str, Any] = {"n_latents": width} | ({} if asked.lr is None else {"lr": asked.lr})
    if asked.recipe is not None:
        begun = _published(asked.recipe)
        prefixes = tuple(sorted({n * width // begun.n_latents for n in begun.prefixes} - {0}))
        return replace(shortened(begun, steps, batch=asked.batch), **own, prefixes=prefixes)
    own |= {"steps": steps, "batch": asked.batch, "revival": asked.revival}
    own["dead_after"] = min(BEGUN.dead_after, max(asked.batch, asked.tokens // DEAD_SHARE))
    if asked.revival == "resample":
        own["revive_at"] = tuple(steps * i // 10 for i in (2, 4, 6))
    return replace(BEGUN, **own, **sparsity_of(asked.kind, amount, width))


def sparsity_of(kind: str, amount: float, width: int) -> dict[str, Any]:
    """The fields of a Recipe that say how sparse: `amount` is an L0, or the coefficient of an L1 penalty."""
    if kind in PENALISED:
        return {"kind": kind, "sparsity": amount, "k": None, "l0": None}
    if kind == "jumprelu":
        return {"kind": kind, "l0": amount, "k": None}
    if amount != int(amount):
        raise BadConfig(f"A dictionary of the kind {kind} keeps a whole number of latents. Found an L0 of {amount}.")
    if kind == "matryoshka":
        prefixes = tuple(sorted({width // part for part in MATRYOSHKA if width // part}))
        return {"kind": "batchtopk", "k": int(amount), "prefixes": prefixes}
    return {"kind": kind, "k": int(amount)}


def _name(asked: Train, site: Site, amount: float, seed: int) -> str:
    """What sets this dictionary apart from those beside it."""
    parts = [str(site)]
    if len(amounts_of(asked)) > 1:
        parts.append(f"{'l1' if asked.kind in PENALISED else 'l0'}_{amount:g}")
    return "-".join([*parts, *([f"seed{asked.target.seed + seed}"] if asked.seeds > 1 else [])])


def _published(recipe: str) -> Recipe:
    """The published recipe of this name, or the one in a file."""
    if recipe in PRESETS:
        return PRESETS[recipe]()
    if Path(recipe).is_file():
        return recipe_from(read_object(Path(recipe)))
    raise BadConfig(f"Asked for the recipe {recipe!r}. There are {', '.join(PRESETS)}; or give a JSON FILE.")
