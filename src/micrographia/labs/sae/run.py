"""What is asked of dictionaries, and a Run out: load the model, read the text, train or evaluate, store.

A training goes on from its last checkpoint with `resume`, bit for bit; an evaluation starts again. One that is finished
is read from its folder.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.events import Watch, silent
from micrographia.core.fingerprint import weights_of
from micrographia.core.lab import Findings, run_in_folder
from micrographia.core.load import load_any
from micrographia.core.model import Model
from micrographia.core.runtime import allowed_cores, pick_device, provenance, settings, torch_dtype
from micrographia.core.store import RunFolder, new_run_path
from micrographia.labs.sae.config import Asked, Evaluate, Train, stored
from micrographia.labs.sae.evaluate import prepare_evaluate, read_dictionary
from micrographia.labs.sae.train import prepare_train

LAB = "sae"
Compute = Callable[[RunFolder, Watch], Findings]
"""What is left to do once everything that the user chose has been checked."""
Prepare = Callable[[Model, Watch], Compute]
PREPARE: Mapping[type, Callable[[Any], Prepare]] = {
    Train: lambda asked: partial(prepare_train, asked),
    Evaluate: lambda asked: partial(prepare_evaluate, asked, read_dictionary(asked)),
}
"""What can be checked without the model is checked before it is loaded."""


def run(asked: Asked, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train dictionaries, or evaluate one.

    `out`: the Run's folder, by default a new one under the runs root. A new folder is written only after the model is
    loaded and the text is read, so that what was mistyped can be corrected in the same place.
    Raises UnknownModel, UnknownSite, BadConfig, BadShape, UserError; RunExists, RunLocked, CannotWrite, Interrupted.
    """
    target, config = asked.target, stored(asked)
    device, threads = pick_device(target.device), target.threads or allowed_cores()
    place = out or new_run_path(LAB, config)
    about = {**provenance(target.seed, str(device), target.dtype, threads), "weights": weights_of(target.model)}

    def prepared() -> Compute:
        prepare, dtype = PREPARE[type(asked)](asked), torch_dtype(target.dtype)
        model = load_any(target.model, dtype=dtype, device=device, revision=target.revision, watch=watch)
        return prepare(model, watch)

    with settings(threads, str(device)):
        first = None if (place / "run.json").exists() else prepared()

        def work(folder: RunFolder, watch: Watch) -> Findings:
            return (first or prepared())(folder, watch)

        return run_in_folder(
            config, work, lab=LAB, preset=config["question"], about=about, out=place, resume=resume, watch=watch
        )
