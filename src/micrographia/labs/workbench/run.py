"""A question in, a Run out: load the model, read the prompts, compute, and store.

A question is answered in one go. One that was interrupted starts again from its beginning with `resume`; one that is
finished is read from its folder, without loading the model: a warning says so where its weights have changed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.events import Watch, silent
from micrographia.core.fingerprint import weights_of
from micrographia.core.lab import Findings, run_in_folder
from micrographia.core.load import load_any
from micrographia.core.prompts import LanguageModel
from micrographia.core.runtime import allowed_cores, generator, pick_device, provenance, settings, torch_dtype
from micrographia.core.store import RunFolder, new_run_path
from micrographia.labs.workbench.ablate import prepare_ablate
from micrographia.labs.workbench.attribute import prepare_attribute
from micrographia.labs.workbench.circuit import prepare_circuit
from micrographia.labs.workbench.config import Question, kind_of, stored
from micrographia.labs.workbench.findings import Compute
from micrographia.labs.workbench.generate import prepare_generate, prepare_steer
from micrographia.labs.workbench.heads import prepare_heads
from micrographia.labs.workbench.lens import prepare_lens
from micrographia.labs.workbench.patch import prepare_patch
from micrographia.labs.workbench.probe import prepare_probe
from micrographia.labs.workbench.trace import prepare_trace

LAB = "workbench"
PREPARE: Mapping[str, Callable[[Any, LanguageModel], Compute]] = {
    "patch": prepare_patch,
    "attribute": prepare_attribute,
    "trace": prepare_trace,
    "circuit": prepare_circuit,
    "lens": prepare_lens,
    "ablate": prepare_ablate,
    "probe": prepare_probe,
    "heads": prepare_heads,
    "steer": prepare_steer,
    "generate": prepare_generate,
}


def run(question: Question, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Put a question to a model.

    `out`: the Run's folder, by default a new one under the runs root. A new folder is written only after the model is
    loaded and the prompts are read, so that what was mistyped can be corrected in the same place.
    Raises UnknownModel, UnknownSite, BadPrompt, BadConfig, UserError, MissingExtra; RunExists, RunLocked, CannotWrite.
    """
    target, config, kind = question.target, stored(question), kind_of(question)
    device, threads = pick_device(target.device), target.threads or allowed_cores()
    place = out or new_run_path(LAB, config)
    about = {**provenance(target.seed, str(device), target.dtype, threads), "weights": weights_of(target.model)}

    def prepared() -> Compute:
        dtype = torch_dtype(target.dtype)
        model: Any = load_any(target.model, dtype=dtype, device=device, revision=target.revision, watch=watch)
        return PREPARE[kind](question, model)

    with settings(threads, str(device)):
        first = None if (place / "run.json").exists() else prepared()

        def work(folder: RunFolder, watch: Watch) -> Findings:
            return (first or prepared())(generator(target.seed), watch)

        return run_in_folder(config, work, lab=LAB, preset=kind, about=about, out=place, resume=resume, watch=watch)
