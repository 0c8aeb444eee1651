"""The dictionaries of a suite, trained: a program at a time, each with checkpoints in a folder of its own."""

import dataclasses
from pathlib import Path

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Note, Watch, renamed
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.core.stream.batches import ActivationStream
from micrographia.core.stream.harvest import harvester
from micrographia.core.stream.rows import TokenRows
from micrographia.labs.gemma_scope.config import Config
from micrographia.labs.gemma_scope.members import Program, SuitePlan, WantedDictionary, plan_suite, recipe_of, sites_of
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries

CHECKPOINT_EVERY = 100


def train_suite(
    config: Config, model: Model, rows: TokenRows, folder: Path, watch: Watch, *, narrow: bool = False, what: str = ""
) -> dict[WantedDictionary, Dictionary]:
    """Every dictionary of the config, trained to the end, or gone on with. `narrow`: of the least width alone.

    What it takes is said before anything is read. Raises Interrupted and NonFiniteLoss.
    """
    plan = plan_suite(config, model, widths_of(config, model, rows), narrow=narrow)
    watch(Note(f"{what}{plan}"))
    found: dict[WantedDictionary, Dictionary] = {}
    for program in plan.programs:
        found |= _train(config, program, plan, model, rows, folder, renamed(watch, f"train {what}{program.name}"))
    return {member: found[member] for member in plan.members}


def widths_of(config: Config, model: Model, rows: TokenRows) -> dict[Site, int]:
    """The length of the activation at each Site, heads as one."""
    return {site: kept.width for site, kept in harvester(model, sites_of(config, model), rows).kinds().items()}


def _train(
    config: Config, program: Program, plan: SuitePlan, model: Model, rows: TokenRows, folder: Path, watch: Watch
) -> dict[WantedDictionary, Dictionary]:
    """One program: each member reads its Site of the same tokens."""
    stream = ActivationStream(
        model, [member.site for member in program.members], rows, batch=plan.batch,
        buffer_bytes=config.suite.buffer_mb * 2**20, seed=config.seed, steps=plan.steps, watch=watch,
    )  # fmt: skip
    course = Course(checkpoint_every=CHECKPOINT_EVERY, like=model.weights.W_E.new_zeros(()).float())
    recipes = [recipe_of(member, config) for member in program.members]
    made = train_dictionaries(
        stream, recipes, d_in=program.d_in, seed=config.seed, folder=folder / program.name, watch=watch, course=course
    )
    return {member: placed(one, member.site, config) for member, one in zip(program.members, made, strict=True)}


def placed(one: Dictionary, site: Site, config: Config) -> Dictionary:
    """The same dictionary, told of which model and Site it is; that of `z` reads heads."""
    about = dataclasses.replace(one.about, site=site, target=None, model=config.model)
    return dataclasses.replace(one, about=about, form=dataclasses.replace(one.form, heads=site.kind == "z"))
