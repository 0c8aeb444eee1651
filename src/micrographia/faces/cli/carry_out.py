"""What every command that makes a Run does around it: progress, interruption, report, and the result in print.

The commands hand over a function of `out`, `resume` and `watch` that gives a Run. Where the Run goes is chosen here, so
that an interrupted command can say exactly how to go on.
"""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from micrographia.core.claims import Run
from micrographia.core.errors import Interrupted
from micrographia.core.events import Progress, Watch, silent
from micrographia.faces.cli.options import Destination, Folder, only
from micrographia.faces.cli.progress import shown
from micrographia.faces.report.write import REPORT, write_report


def carry_out(
    make: Callable[..., Run], *, output: Destination, lab: str, identity: Any, command: str, words: Sequence[str]
) -> int:
    """Make the Run, write its report, print what it found. `command` and `words` are the command line.

    Without a folder in `output` the Run goes into a new one of this lab, named after `identity`, which is its Config.
    """
    from micrographia.core.store import new_run_path  # imports torch, which --help does without

    out = (output.out or new_run_path(lab, identity)).absolute()
    try:
        with shown() as watch:
            run = make(out=out, resume=output.resume, watch=watch)
            report = _report(run, watch) if output.report else None
    except (Interrupted, KeyboardInterrupt) as stop:
        reason = str(stop) or "Interrupted."
        raise Interrupted(f"{reason} Go on with:\n  {resume_command(command, words, out)}") from stop
    if output.json:
        print_json({"run": run.path, "report": report, **results_of(run)})
        return 0
    from micrographia.faces.terminal import print_run

    print_run(Console(), run, report=report, verbose=output.verbose)
    return 0


def _report(run: Run, watch: Watch = silent) -> Path:
    """The Run's report; one that is there already is kept."""
    place = run.path.absolute() / REPORT
    if place.exists():
        return place
    watch(Progress("write the report", 0, 1, "file"))
    write_report(run)
    watch(Progress("write the report", 1, 1, "file"))
    return place


def results_of(run: Run) -> dict[str, Any]:
    """The Run's results as they are printed, claims included."""
    results = dict(run.results or {})
    results.setdefault("config", dict(run.config))
    results.setdefault("claims", [judged.as_json() for judged in run.claims])
    return results


def print_json(content: Any) -> None:
    """One object on standard output: paths absolute, NaN as null."""
    from micrographia.core.store import plain

    print(json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False), file=sys.stdout)


def resume_command(command: str, words: Sequence[str], out: Path) -> str:
    """The command line that goes on where this one stopped."""
    _, kept = only(Folder, words)
    return " ".join(["micrographia", command, *map(shlex.quote, kept), "--resume", "--out", shlex.quote(str(out))])
