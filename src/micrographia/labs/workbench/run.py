"""A question in, a Run out: load the model, read the prompts, ask, and store. The workbench's only orchestrator.

A question is answered in one go. One that was interrupted is asked again from its beginning by `resume`; one that is
finished is read from its folder, without loading the model.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.errors import MicrographiaError
from micrographia.core.events import Watch, silent
from micrographia.core.model import Model
from micrographia.core.runtime import allowed_cores, generator, pick_device, provenance, settings
from micrographia.core.store import RunFolder, load_run, new_run_path
from micrographia.labs.workbench.answer import Work
from micrographia.labs.workbench.attribute import ask_attribute
from micrographia.labs.workbench.circuit import ask_circuit
from micrographia.labs.workbench.config import Question, kind_of, stored
from micrographia.labs.workbench.lens import ask_lens
from micrographia.labs.workbench.patch import ask_patch
from micrographia.labs.workbench.target import load_target
from micrographia.labs.workbench.trace import ask_trace

LAB = "workbench"
ASKING: Mapping[str, Callable[[Any, Model], Work]] = {
    "patch": ask_patch,
    "attribute": ask_attribute,
    "trace": ask_trace,
    "circuit": ask_circuit,
    "lens": ask_lens,
}


def run(question: Question, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Ask a model a question.

    `out`: the Run's folder, by default a new one under the runs root. Nothing is written before the model is loaded and
    the prompts are read, so that what was mistyped can be asked again in the same place.
    Raises UnknownModel, UnknownSite, BadPrompt, BadConfig, UserError, MissingExtra; RunExists, RunLocked, CannotWrite.
    """
    target, config = question.target, stored(question)
    threads = target.threads or allowed_cores()
    device = str(pick_device(target.device))
    place = out or new_run_path(LAB, config)

    def opened() -> RunFolder:
        about = provenance(target.seed, device, target.dtype, threads)
        return RunFolder.open(place, lab=LAB, preset=kind_of(question), config=config, provenance=about, resume=resume)

    if (place / "run.json").exists():
        with opened() as folder:  # refuses, before anything is loaded, what is not to be written to
            if folder.status == "finished":
                return load_run(folder.path)
    with settings(threads, device):
        work = ASKING[kind_of(question)](question, load_target(target, watch))
        with opened() as folder:
            _answer(work, folder, target.seed, watch)
    return load_run(folder.path)


def _answer(work: Work, folder: RunFolder, seed: int, watch: Watch) -> None:
    try:
        answer = work(generator(seed), watch)
    except (MicrographiaError, KeyboardInterrupt) as error:
        folder.set_status("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    folder.finish({**answer.results, "config": folder.config}, (), answer.figures, answer.table)
