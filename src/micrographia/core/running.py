"""Run a Config in the folder of its Run: start it, resume it, or read it if it is finished.

This fixes the device, the number of threads (stored in the Run and reused on resumption) and the provenance. The work
itself is the lab's.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.events import Note, Watch
from micrographia.core.runtime import allowed_cores, busy_warning, pick_device, provenance
from micrographia.core.store import RunFolder, load_run, new_run_path

Work = Callable[[Any, RunFolder, Watch], None]
"""(config, with its threads and device settled; folder; watch): everything up to a finished folder."""


def carry_out(
    config: Any,
    work: Work,
    *,
    lab: str,
    preset: str,
    dtype: str,
    out: Path | None,
    resume: bool,
    watch: Watch,
) -> Run:
    """Do the `work` of a Config in its Run's folder, unless it is finished there; the Run.

    `config` is a dataclass with `seed`, `device` and `threads` among its fields. `out`: the folder, by default a new
    one under the runs root; with `resume`, the Run there is continued. A busy machine gives a Note.
    Raises RunExists, RunLocked, BadConfig (another config is stored there, or no such device), CannotWrite.
    """
    device, threads = str(pick_device(config.device)), config.threads or allowed_cores()
    stored = dataclasses.asdict(config)
    about = provenance(config.seed, device, dtype, threads)
    place = out or new_run_path(lab, stored)
    with RunFolder.open(place, lab=lab, preset=preset, config=stored, provenance=about, resume=resume) as folder:
        if folder.status != "finished":
            threads = folder.config["threads"]
            if warning := busy_warning(threads):
                watch(Note(warning, "warning"))
            work(dataclasses.replace(config, threads=threads, device=device), folder, watch)
    return load_run(folder.path)
