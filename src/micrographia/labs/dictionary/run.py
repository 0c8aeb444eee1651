"""Config -> Run: train the language model and its dictionaries, or load published ones; measure, judge, store.

The lab's only orchestrator. The language model is a Run of its own within this one, and dictionaries have checkpoints,
so that an interrupted Run goes on; what follows is computed anew.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from micrographia.core.claims import Run
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Note, Watch, silent
from micrographia.core.lab import Findings, run_lab
from micrographia.core.model import Model
from micrographia.core.runtime import generator
from micrographia.core.small.language_model import trained
from micrographia.core.small.split_text import read_text
from micrographia.core.store import RunFolder, read_metrics
from micrographia.core.train_loop import Rows as Columns
from micrographia.labs.dictionary.config import Config, preset_of
from micrographia.labs.dictionary.figures import of_run
from micrographia.labs.dictionary.measure import CLAIMS, measures
from micrographia.labs.dictionary.published import autoencoders, model_of
from micrographia.labs.dictionary.recipes import PLACE, published_names
from micrographia.labs.dictionary.tables import latents, shown_latents, tables
from micrographia.labs.dictionary.train import Moment, train_all
from micrographia.methods.dictionaries.evaluation.reading import counted_by
from micrographia.methods.dictionaries.geometry.analysis import DictionaryGeometry, analyse
from micrographia.methods.dictionaries.geometry.firing_together import top_contexts
from micrographia.methods.dictionaries.geometry.rare import RARE

LAB = "dictionary"
MODEL, DICTIONARIES = "model", "dictionaries"
SHOWN_ROWS = 1_024
"""Held-out rows that top contexts are looked for in."""
FEW = 10


class Material(NamedTuple):
    """What is measured."""

    model: Model
    dictionaries: Mapping[str, Dictionary]
    published: Sequence[str]
    """The names of those of the published recipe."""
    held_out: Tensor
    course: Sequence[Moment] = ()
    columns: Columns | None = None


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train a language model and dictionaries of its neurons, and ask what they consist of.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig, UserError (too little text), NonFiniteLoss, Interrupted, CannotWrite.
    """
    preset = preset_of(config)
    return run_lab(config, _work, lab=LAB, preset=preset, claims=CLAIMS, out=out, resume=resume, watch=watch)


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    made = _material(config, folder, watch)
    random = generator(config.seed)
    loss_rows = max(1, config.loss_tokens // config.n_ctx)
    dictionaries = made.dictionaries
    measured = (dictionaries, made.model, PLACE, made.held_out)
    analysed = analyse(*measured, loss_rows=loss_rows, generator=random, watch=watch)
    first = analysed[made.published[0]]
    shown, counted = shown_latents(first), counted_by(made.model)
    found = top_contexts(first.dictionary, shown, made.model, PLACE, made.held_out[:SHOWN_ROWS], counted)
    records = {**tables(analysed, made.published), "latents": latents(first, found)}
    named = {f"latent {i}": contexts for i, contexts in found.items()}
    results = {**records, "course": [each._asdict() for each in made.course], "title": TITLE}
    figures = of_run(analysed, records, made.course, named, made.columns)
    judged = measures(analysed, made.published, made.model.weights.W_out[0])
    table = {"dictionary": list(analysed), "l0": [a.metrics.l0 for a in analysed.values()]}
    return Findings(results, figures, judged, table, opening(first, watch), [] if config.model else [MODEL_USE])


TITLE = "Dictionaries of the neurons of a one-layer language model"
MODEL_USE = f"The language model is a Run of its own, as in `micrographia patch --model RUN/{MODEL} ...`."


def _material(config: Config, folder: RunFolder, watch: Watch) -> Material:
    """The model and its dictionaries, each trained or as the config names it."""
    if not config.model:
        text = read_text(config, folder, watch)
        model = trained(config, text, folder.path / MODEL, lab=LAB, preset=preset_of(config), watch=watch)
        columns = {name: list(column) for name, column in read_metrics(folder.path / MODEL).items()}
    else:
        model, columns = model_of(config, watch), None
        text = read_text(config, folder, watch, model.tokenizer)
    if config.published:
        found = autoencoders(config, watch)
        return Material(model, found, list(found), text.held_out)
    dictionaries, course = train_all(config, model, text, folder.path / DICTIONARIES, watch)
    return Material(model, dictionaries, published_names(config), text.held_out, course, columns)


def opening(first: DictionaryGeometry, watch: Watch) -> list[str]:
    """What the language model and the first dictionary are worth, and how fine a frequency these tokens tell."""
    n = first.firing.n_tokens
    if n * RARE < FEW:
        watch(
            Note(
                f"{n:,} held-out tokens tell no frequency of {RARE:g}: take held_out {FEW / RARE:,.0f} or more.",
                "warning",
            )
        )
    return [
        f"The language model has a loss of {first.worth.clean_loss:.2f} nats a token on held-out text; with the first "
        f"dictionary spliced in {first.recovered:.1%} of it is recovered (L0 {first.metrics.l0:.1f}, FVU "
        f"{first.metrics.fvu:.2f}).",
        f"Frequencies are of {n:,} held-out tokens: one firing is {1 / n:.1e}, and a rare latent fires fewer than "
        f"{n * RARE:.0f} times.",
    ]
