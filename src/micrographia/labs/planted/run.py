"""Config -> Run: every method applied to every planted circuit, and the table of what each misses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from micrographia.core import figures
from micrographia.core.claims import Run
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings, run_lab
from micrographia.core.store import RunFolder
from micrographia.core.titles import METHODS
from micrographia.labs.planted.config import Config, preset_of
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


def of_findings(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """A row for each circuit and direction, a column for each method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    named: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        star = "" if row["misses"] == row["theory_says"] else " *"
        found = named.setdefault((row["circuit"], row["mode"]), {"circuit": row["circuit"], "mode": row["mode"]})
        found[row["method"]] = f"{row['misses']}{star}"
    return [
        figures.table(
            "planted",
            "Planted circuits: what each method misses",
            list(named.values()),
            columns={"circuit": "circuit", "mode": "direction"} | {name: METHODS[name] for name in methods},
            caption="Seven circuits built by hand, whose every part is known. A star marks what theory does not "
            "predict.",
            claims=("planted-circuits-as-theory-says", "two-false-negatives"),
            group="Planted circuits",
        )
    ]
