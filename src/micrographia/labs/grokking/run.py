"""Config -> Run: train, measure, judge, store. The lab's only orchestrator.

Everything is resumable: training goes on from its newest checkpoint, and what follows is computed anew from the
snapshots, which is a matter of seconds.
"""

import dataclasses
from pathlib import Path

from micrographia.core.claims import Run
from micrographia.core.errors import Interrupted, NonFiniteLoss
from micrographia.core.events import Note, Watch, silent
from micrographia.core.runtime import allowed_cores, busy_warning, pick_device, provenance, settings
from micrographia.core.store import RunFolder, load_run, new_run_path
from micrographia.labs.grokking.config import Config, preset_of
from micrographia.labs.grokking.train import train_network

LAB = "grokking"


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train a network on the config's problem and take it apart.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig (another config is stored there), NonFiniteLoss, Interrupted, CannotWrite.
    """
    threads = config.threads or allowed_cores()
    stored = dataclasses.asdict(config)
    device = str(pick_device(config.device))
    about = provenance(config.seed, device, config.dtype, threads)
    place = out or new_run_path(LAB, stored)
    with RunFolder.open(
        place, lab=LAB, preset=preset_of(config), config=stored, provenance=about, resume=resume
    ) as folder:
        if folder.status == "finished":
            return load_run(folder.path)
        threads = folder.config["threads"]
        if warning := busy_warning(threads):
            watch(Note(warning, "warning"))
        with settings(threads, device):
            _train_and_judge(dataclasses.replace(config, threads=threads, device=device), folder, watch)
    return load_run(folder.path)


def _train_and_judge(config: Config, folder: RunFolder, watch: Watch) -> None:
    try:
        rows = train_network(config, folder, watch)
    except (Interrupted, NonFiniteLoss) as error:
        folder.set_status("interrupted" if isinstance(error, Interrupted) else "failed")
        raise
    folder.finish({"config": folder.config}, [], [], rows)
