"""Config -> Run: train a language model and a suite of dictionaries, or load them; measure, judge, store.

The lab's only orchestrator. The language model is a Run of its own within this one, each program of dictionaries has
checkpoints, and the suite is a folder that `mg.Suite.load` and SAELens open; what follows is computed anew. Of several
processes of torchrun the first does all of this, and the others train the dictionaries with it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from micrographia.core.claims import Run
from micrographia.core.config import with_fields
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.dictionaries.suite import INNER, SuiteMember, write_suite
from micrographia.core.distributed import current_group
from micrographia.core.errors import BadConfig
from micrographia.core.events import Watch, silent
from micrographia.core.lab import Findings, columns_of, run_lab
from micrographia.core.model import Model
from micrographia.core.questions import names
from micrographia.core.runtime import generator, pick_device
from micrographia.core.sites import Site
from micrographia.core.small.language_model import trained
from micrographia.core.small.split_text import SplitText, read_text
from micrographia.core.store import RunFolder, atomic, load_run, read_metrics
from micrographia.core.store.folder import PAGES
from micrographia.core.stream.harvest import vectors_of_tokens
from micrographia.core.train_loop import Rows as Columns
from micrographia.core.untrained import untrained
from micrographia.labs.gemma_scope.config import Config, preset_of
from micrographia.labs.gemma_scope.evaluate import Measurement, evaluate_suite, looked_into
from micrographia.labs.gemma_scope.figures import of_run, of_transcoders, of_transfer
from micrographia.labs.gemma_scope.measure import CLAIMS, matching, measures
from micrographia.labs.gemma_scope.members import WantedDictionary, places_of, without_weights
from micrographia.labs.gemma_scope.published import model_of, second_of, suite_of
from micrographia.labs.gemma_scope.reread import MODEL, reread
from micrographia.labs.gemma_scope.train import ACTIVATIONS, is_finished, train_suite
from micrographia.methods.dictionaries.features.build import build_missing

LAB = "gemma_scope"
PROGRAMS, UNTRAINED = "programs", "untrained"
TITLE = "A suite of dictionaries at every layer and sublayer"


class SuiteMaterial(NamedTuple):
    """What is measured."""

    model: Model
    text: SplitText
    suite: Mapping[WantedDictionary, Dictionary]
    columns: Columns | None = None
    second: Model | None = None
    """That the suite is evaluated on too."""


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train a suite of dictionaries at the layers and sublayers of a model, and put the report's questions to it.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig, UnknownModel, UnknownSite, UserError (too little text), NonFiniteLoss,
    Interrupted, CannotWrite.
    """
    if current_group().size > 1 and (out is None or config.suite.workers > 1 or config.published):
        raise BadConfig(
            "Asked for a Run by several processes of torchrun, which train together. Give the folder of the Run, "
            "workers=1, and no published suite, of which nothing is trained."
        )
    if out is not None and current_group().rank > 0:
        return _trained_beside(config, out)
    preset = preset_of(config)
    return run_lab(config, _work, lab=LAB, preset=preset, claims=CLAIMS, out=out, resume=resume, watch=watch)


def _trained_beside(config: Config, out: Path) -> Run:
    """What a process after the first does: it trains the dictionaries with it, and writes nothing."""
    if not config.published and not is_finished(out):
        current_group().wait()
        threads, device = load_run(out).config["threads"], str(pick_device(config.machine.device))
        config = with_fields(config, threads=threads, device=device)
        for place in (PROGRAMS, UNTRAINED) if config.suite.untrained else (PROGRAMS,):
            null = place == UNTRAINED
            train_suite(config, *reread(config, out, null=null), out / place, silent, null=null)
    return load_run(out)


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    made = _material(config, folder, watch)
    every = _evaluated(config, made.suite, made.model, made.text, "evaluate", watch)
    found, transcoders = ([each for each in every if each.transcodes == wanted] for wanted in (False, True))
    null = _null(config, made, folder, watch)
    loss_rows = made.text.held_out[: max(1, config.loss_tokens // config.n_ctx)]
    member, deep = looked_into(made.suite, made.model, loss_rows, made.text.sources, watch)
    second = "evaluate on the second model"
    abroad = [] if made.second is None else _evaluated(config, made.suite, made.second, made.text, second, watch)
    if not config.published and not (folder.path / INNER).exists():
        members = [SuiteMember(made.suite[each.member], each.member.l0, each.row()) for each in every]
        write_suite(folder.path / INNER, members, about={"lab": LAB, "config": folder.config})
    shown = {
        f"{each.site}-{each.width}-l0_{each.l0:g}": one for each, one in made.suite.items() if each[1:] == member[1:]
    }
    build_missing(shown, made.model, made.text.held_out, folder.path / PAGES, seed=config.seed, watch=watch)
    results = {
        "title": TITLE,
        "dictionaries": [each.row() for each in found],
        "transcoders": [each.row() for each in transcoders],
        "untrained": [each.row() for each in null],
        "in_depth": {"name": member.name, **deep.as_json()},
        "transferred": [each.row() for each in abroad],
        "text": dict(made.text.train.about),
    }
    figures = [
        *of_run(found, null, made.columns), *of_transcoders(found, transcoders), *of_transfer(every, abroad),
        *deep.figures(member.name),
    ]  # fmt: skip
    for place in (folder.path / PROGRAMS / ACTIVATIONS, folder.path / UNTRAINED / ACTIVATIONS):
        if place.exists():
            atomic.remove(place)
    told, table = [*opening(found, null), deep.sentence()], columns_of(results["dictionaries"])
    return Findings(
        results, figures, measures(found, null, transcoders), table, told, [] if config.published else [USE]
    )


USE = "The suite is in the folder `suite` of the Run: `mg.Suite.load(RUN)`; SAELens opens each of its folders."


def _material(config: Config, folder: RunFolder, watch: Watch) -> SuiteMaterial:
    """The model and its suite, each trained or as the config names it. Raises UnknownSite before anything is read."""
    vectors_of_tokens([Site.parse(f"L0.{kind}") for kind in names(config.suite.sites)])
    if not config.model:
        places_of(config, without_weights(config))
        text = read_text(config, folder, watch)
        model = trained(config, text, folder.path / MODEL, lab=LAB, preset=preset_of(config), watch=watch)
        columns = {name: list(column) for name, column in read_metrics(folder.path / MODEL).items()}
    else:
        model, columns = model_of(config, watch), None
        text = read_text(config, folder, watch, model.tokenizer)
    second = second_of(config, model, watch)
    if config.published:
        suite = suite_of(config, model, watch)
    else:
        current_group().wait()
        suite = train_suite(config, model, text.train, folder.path / PROGRAMS, watch)
    return SuiteMaterial(model, text, suite, columns, second)


def _null(config: Config, made: SuiteMaterial, folder: RunFolder, watch: Watch) -> list[Measurement]:
    """The narrowest part of the suite, on the model without its training."""
    if config.published or not config.suite.untrained:
        return []
    model = untrained(made.model, config.seed)
    suite = train_suite(
        config, model, made.text.train, folder.path / UNTRAINED, watch, null=True, what="without training: "
    )
    return _evaluated(config, suite, model, made.text, "evaluate without training", watch)


def _evaluated(
    config: Config,
    suite: Mapping[WantedDictionary, Dictionary],
    model: Model,
    text: SplitText,
    stage: str,
    watch: Watch,
) -> list[Measurement]:
    loss_rows = max(1, config.loss_tokens // config.n_ctx)
    return evaluate_suite(
        suite, model, text.held_out, loss_rows=loss_rows, generator=generator(config.seed), stage=stage, watch=watch
    )


def opening(found: Sequence[Measurement], null: Sequence[Measurement]) -> list[str]:
    """What the model and the suite are worth, and what the null says."""
    sites = len({each.member.site for each in found})
    best = min(found, key=lambda each: each.fidelity.delta_loss)
    worst = max(found, key=lambda each: each.fidelity.delta_loss)
    said = [
        f"{len(found)} dictionaries at {sites} sites of a model with a loss of {found[0].clean_loss:.2f} nats a token "
        f"on held-out text. Spliced in, the best costs {best.fidelity.delta_loss:.3f} nats ({best.member.name}), the "
        f"worst {worst.fidelity.delta_loss:.3f} ({worst.member.name}).",
    ]
    both = matching(found, null)
    alike = [each.member.name for each, other in both if other.fidelity.fvu <= each.fidelity.fvu]
    if alike:
        said.append(
            f"Of {len(both)} dictionaries of the model without its training, {len(alike)} leave no more variance "
            f"unexplained than those of the model: {', '.join(alike[:4])}{' ...' if len(alike) > 4 else ''}."
        )
    return said
