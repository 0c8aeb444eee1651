"""Config -> Run: every method applied to every planted circuit. The lab's only orchestrator."""

from pathlib import Path

from micrographia.core.claims import Run
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.lab import Findings, run_lab
from micrographia.core.store import RunFolder
from micrographia.labs.planted.config import Config, preset_of
from micrographia.labs.planted.figures import of_findings
from micrographia.labs.planted.measure import CLAIMS, findings, measures
from micrographia.labs.planted.theory import MODES, PLANTED, WAYS


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Compare what every method finds with what theory says of it.

    `out`: the Run's folder, by default a new one under the runs root. Raises RunExists, RunLocked, BadConfig,
    CannotWrite.
    """
    preset = preset_of(config)
    return run_lab(
        config, _work, lab="planted", preset=preset, claims=CLAIMS, dtype="float64", out=out, resume=resume, watch=watch
    )


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    rows, n = [], len(PLANTED) * len(WAYS) * len(MODES)
    for row in findings():
        watch(Progress("planted circuits", len(rows), n, "case"))
        rows.append(row)
    watch(Progress("planted circuits", n, n, "case"))
    results = {"planted_circuits": rows, "title": "What each method misses of planted circuits"}
    return Findings(results, of_findings(rows), measures(rows), {"area": [row["area"] for row in rows]})
