"""Config -> Run: train every arm, ask both ways, look into the weights, judge, store. The lab's only orchestrator."""

from pathlib import Path

from micrographia.core.claims import Run
from micrographia.core.config import flat
from micrographia.core.events import Watch, silent
from micrographia.core.lab import Findings, columns_of, run_lab
from micrographia.core.store import RunFolder
from micrographia.labs.reversal.config import Config, preset_of
from micrographia.labs.reversal.evidence import ReversalEvidence, evidence
from micrographia.labs.reversal.figures import arm_rows, exact, of_run
from micrographia.labs.reversal.finetune.config import FineTuning
from micrographia.labs.reversal.finetune.study import study
from micrographia.labs.reversal.measure import CLAIMS, measures

LAB = "reversal"
TITLE = "Why 'A is B' does not give 'B is A'"


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Teach facts in one direction to every arm, or to the pretrained model of the config, and ask for the other.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there: every
    program from its last checkpoint. Raises RunExists, RunLocked, BadConfig, NonFiniteLoss, CannotWrite,
    Interrupted, and for a pretrained model what loading it raises.
    """
    preset, work = preset_of(config), _fine_tuned if config.model else _work
    return run_lab(config, work, lab=LAB, preset=preset, claims=CLAIMS, out=out, resume=resume, watch=watch)


def _fine_tuned(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    machine = {"device": config.machine.device, "threads": config.machine.threads}
    return study(FineTuning(model=config.model, seed=config.seed, **machine, **flat(config.tuning)), folder, watch)


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    found = evidence(config, folder.path, lab=LAB, watch=watch)
    rows = arm_rows(found)
    results = {"title": TITLE, "arms": rows}
    flat_rows = [{name: _number(value) for name, value in row.items()} for row in rows]
    return Findings(results, of_run(found), measures(found), columns_of(flat_rows), opening(found))


def _number(value: object) -> object:
    """The estimate of an interval."""
    return next(iter(value.values())) if isinstance(value, dict) else value


def opening(found: ReversalEvidence) -> list[str]:
    """What was measured, before any verdict."""
    ahead, back = (exact(found.scores["plain"][kind]) for kind in ("forward", "reverse"))
    return [
        f"Facts taught in one direction are answered in it {ahead.estimate:.1%} of the time ({ahead.low:.1%} to "
        f"{ahead.high:.1%}), and in the other {back.estimate:.1%} ({back.low:.1%} to {back.high:.1%})."
    ]
