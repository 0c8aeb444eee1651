"""The dictionaries of a suite, trained: programs one after the other or side by side, each with a folder of its own.

A program is a task that can be stopped and done again: it reads model and text, or stored activations, from the Run,
and its folder holds its checkpoints. So workers train programs to their ends, and what they trained is then read as
after any interruption.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from micrographia.core.dictionaries.dictionary import FIRST_TOKEN, LEFT_OUT, Dictionary
from micrographia.core.distributed import current_group
from micrographia.core.events import Note, Watch, renamed, silent
from micrographia.core.lab import for_each_network, raise_failed
from micrographia.core.model import Model
from micrographia.core.runtime import allowed_cores, settings
from micrographia.core.sites import Site
from micrographia.core.store import load_run
from micrographia.core.store.verify import RUN
from micrographia.core.stream.batches import ActivationStream
from micrographia.core.stream.harvest import harvester
from micrographia.core.stream.rows import TokenRows
from micrographia.core.stream.stored import StoredActivations, open_activations, store_activations
from micrographia.labs.gemma_scope.config import Config
from micrographia.labs.gemma_scope.members import Program, SuitePlan, WantedDictionary, places_of, plan_suite, recipe_of
from micrographia.labs.gemma_scope.reread import reread
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries

CHECKPOINT_EVERY = 100
ACTIVATIONS = "activations"
"""The folder of stored activations, beside those of the programs."""
Source = StoredActivations | tuple[Model, TokenRows]
"""What a program reads: the activations on disk, or the model's on the text."""


def train_suite(
    config: Config, model: Model, rows: TokenRows, folder: Path, watch: Watch, *, null: bool = False, what: str = ""
) -> dict[WantedDictionary, Dictionary]:
    """Every dictionary of the config, trained to the end, or gone on with. `null`: of the least width alone.

    What it takes is said before anything is read. Raises Interrupted and NonFiniteLoss.
    """
    places = [each for each in places_of(config, model) if not null or each.read == each.write]
    reading = harvester(model, list(dict.fromkeys(site for each in places for site in each)), rows)
    widths = {site: kept.width for site, kept in reading.kinds().items()}
    plan = plan_suite(config, model, widths, int(reading.count().sum()), narrow=null)
    watch(Note(f"{what}{plan}"))
    source = _stored(model, list(widths), rows, folder, watch) if plan.stored_bytes else (model, rows)
    if plan.workers > 1:
        _side_by_side(config, plan, folder, watch, null=null)
    found: dict[WantedDictionary, Dictionary] = {}
    with settings(threads_of(config), config.machine.device):
        for program in plan.programs:
            found |= _train(config, program, plan, source, folder, renamed(watch, f"train {what}{program.name}"))
    return {member: found[member] for member in plan.members}


def _stored(model: Model, sites: Sequence[Site], rows: TokenRows, folder: Path, watch: Watch) -> StoredActivations:
    with current_group().first_before_others():
        return store_activations(model, sites, rows, folder / ACTIVATIONS, watch=watch)


def _side_by_side(config: Config, plan: SuitePlan, folder: Path, watch: Watch, *, null: bool) -> None:
    """Train the programs that are not finished, each as a task."""
    left = [each.name for each in plan.programs if not is_finished(folder / each.name)]
    done = for_each_network(
        train_program, dict.fromkeys(left, config), folder, workers=plan.workers, watch=watch, noun="program",
        plan=plan, null=null,
    )  # fmt: skip
    raise_failed(done)


def train_program(config: Config, out: str, *, plan: SuitePlan, null: bool) -> None:
    """A task: the program that has the name of this folder, which lies two below that of the Run, with model and text.

    It is trained to the end, or gone on with.
    """
    folder = Path(out).parent
    (program,) = [each for each in plan.programs if each.name == Path(out).name]
    with settings(threads_of(config), config.machine.device):
        stored = plan.stored_bytes > 0
        source = open_activations(folder / ACTIVATIONS) if stored else reread(config, folder.parent, null=null)
        _train(config, program, plan, source, folder, silent)


def threads_of(config: Config) -> int:
    """The threads of each process that trains: its part of the Run's, at least one."""
    return max(1, (config.machine.threads or allowed_cores()) // max(config.suite.workers, current_group().size))


def is_finished(run: Path) -> bool:
    """Whether there is a Run here, and finished."""
    return (run / RUN).is_file() and load_run(run).status == "finished"


def _train(
    config: Config, program: Program, plan: SuitePlan, source: Source, folder: Path, watch: Watch
) -> dict[WantedDictionary, Dictionary]:
    """One program: each member reads its Site of the same tokens."""
    device, members = config.machine.device, program.members
    sites = [member.site if member.target is None else (member.site, member.target) for member in members]
    transcode = any(member.target is not None for member in members)
    apart = [i for i, member in enumerate(members) if member.target is None] if transcode else []
    choices: dict[str, Any] = {
        "batch": plan.batch,
        "buffer_bytes": config.suite.buffer_mb * 2**20 // plan.workers,
        "seed": config.seed,
        "steps": plan.steps,
        "watch": watch,
    }
    if isinstance(source, StoredActivations):
        stream = ActivationStream.of(source, sites, device=device, **choices)
    else:
        model, rows = source
        stream = ActivationStream(model, sites, rows, **choices)
    course = Course(checkpoint_every=CHECKPOINT_EVERY, like=torch.zeros((), device=device))
    recipes = [recipe_of(member, config) for member in members]
    made = train_dictionaries(
        stream, recipes, d_in=program.d_in, autoencoders=apart, seed=config.seed, folder=folder / program.name,
        watch=watch, course=course,
    )  # fmt: skip
    return {member: placed(one, member, config) for member, one in zip(members, made, strict=True)}


def placed(one: Dictionary, member: WantedDictionary, config: Config) -> Dictionary:
    """The same dictionary, told of which model and place it is; that of `z` reads heads."""
    training = {**one.about.training, FIRST_TOKEN: LEFT_OUT}
    about = dataclasses.replace(
        one.about, site=member.site, target=member.target, model=config.model, training=training
    )
    return dataclasses.replace(one, about=about, form=dataclasses.replace(one.form, heads=member.site.kind == "z"))
