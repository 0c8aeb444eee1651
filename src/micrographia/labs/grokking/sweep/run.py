"""Plan -> Run: train every network of a sweep, and say what holds across seeds and choices.

Each member is an ordinary Run of the lab below `members/`; the sweep's own Run holds a row for each, a group for each
setting, and figures. Interrupted sweeps go on where they were.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from micrographia.core import intervals
from micrographia.core.claims import Run
from micrographia.core.config import flat
from micrographia.core.errors import Interrupted
from micrographia.core.events import Watch, silent
from micrographia.core.runtime import pick_device, provenance
from micrographia.core.store import RunFolder, load_run, new_run_path
from micrographia.core.tasks import Done
from micrographia.labs.grokking.members import train_all
from micrographia.labs.grokking.run import LAB
from micrographia.labs.grokking.sweep import figures
from micrographia.labs.grokking.sweep.config import Member, SweepConfig, members, setting_name, settings
from micrographia.labs.grokking.sweep.rows import Row, group_of, row_of, train_and_sum_up

PRESET = "sweep"


def sweep(
    plan: SweepConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    watch: Watch = silent,
) -> Run:
    """Train all members, `workers` at a time (by default one a core), and put their rows together.

    Cost: that of the members; a member of the default plan takes about 20 s of one core. A member that fails is a row
    of the table. Raises RunExists, RunLocked, BadConfig (another plan is stored there), Interrupted, CannotWrite.
    """
    stored = dataclasses.asdict(plan) | {"base": flat(plan.base)}
    about = provenance(None, pick_device(plan.base.machine.device), plan.base.dtype, threads=1)
    place = out or new_run_path(LAB, stored)
    with RunFolder.open(place, lab=LAB, preset=PRESET, config=stored, provenance=about, resume=resume) as folder:
        if folder.status != "finished":
            _train_and_compare(plan, folder, workers, watch)
    return load_run(folder.path)


def _train_and_compare(plan: SweepConfig, folder: RunFolder, workers: int | None, watch: Watch) -> None:
    chosen = members(plan)
    configs = {member.name: member.config for member in chosen}
    try:
        done = train_all(train_and_sum_up, configs, folder.path, runner=plan.runner, workers=workers, watch=watch)
    except Interrupted:
        folder.set_status("interrupted")
        raise
    results = compare(plan, chosen, done) | {"config": folder.config}
    folder.finish(results, [], figures.of_sweep(plan, results), _columns(results["members"]))


def compare(plan: SweepConfig, chosen: Sequence[Member], done: Mapping[str, Done]) -> dict[str, Any]:
    """Rows, groups and sentences of a sweep whose members have all ended."""
    rows = [row_of(member, done[member.name].result, done[member.name].error) for member in chosen]
    groups = [
        group_of(setting_name(plan, each), each, [row for row, member in zip(rows, chosen) if member.setting == each])
        for each in settings(plan)
    ]
    return {
        "members": rows,
        "groups": groups,
        "failures": [{"member": row["member"], "error": row["error"]} for row in rows if row["error"]],
        "summary": sentences(plan, rows, groups),
        "claims": [],
    }


def sentences(plan: SweepConfig, rows: Sequence[Row], groups: Sequence[Row]) -> list[str]:
    """What was found, in plain words."""
    done = [row for row in rows if row["status"] == "finished"]
    said = [f"{len(rows)} networks: {len(groups)} settings at {len(plan.seeds)} seeds. {_failures(rows)}"]
    grokked = sum(row["epochs_to_grok"] is not None for row in done)
    said.append(f"{_share(grokked, len(done))} grokked within {plan.base.epochs:,} epochs (test accuracy 99 %).")
    said += [_speed(group) for group in groups[:MOST_GROUPS]]
    if len(groups) > MOST_GROUPS:
        said.append(f"{len(groups) - MOST_GROUPS} further settings stand in the table.")
    return [*said, *_algorithm([row["fourier"] for row in done])]


MOST_GROUPS = 12


def _algorithm(verdicts: Sequence[Row]) -> list[str]:
    """How many show the Fourier algorithm, how often chance would, and why the others do not."""
    asked = [each for each in verdicts if each["shown"] is not None]
    shown = sum(each["shown"] for each in asked)
    said = [f"{_share(shown, len(asked))} whose operation has characters show the Fourier algorithm."]
    nulls = [each["null"] for each in asked if not math.isnan(each["null"])]
    if nulls:
        said.append(f"Of random sets of as many other frequencies {_percent(max(nulls))} or less would pass for it.")
    kinds = Counter(each["reason"].partition(":")[0] for each in asked if not each["shown"])
    return said + [f"Not shown by {count}: {kind}." for kind, count in kinds.most_common()]


def _failures(rows: Sequence[Row]) -> str:
    failed = [row["member"] for row in rows if row["error"]]
    return f"Failed, and in no count below: {', '.join(failed)}." if failed else "All finished."


def _share(count: int, total: int) -> str:
    if not total:
        return "0 of 0 networks"
    found = intervals.share(count, total)
    return f"{count} of {total} networks ({_percent(found.low)} to {_percent(found.high)})"


def _speed(group: Row) -> str:
    found = group["epochs_to_grok"]
    if found["median"] is None:
        return f"{group['group']}: {found['never']} of {found['n']} never grokked."
    high = f"{found['high']:,.0f}" if found["high"] is not None else "never"
    span = f"{found['low']:,.0f} to {high} with {_percent(found['coverage'])} confidence"
    never = f"; {found['never']} of {found['n']} never did" if found["never"] else ""
    middle = f"{found['median']:,.0f} in the median of {found['n']} seeds"
    return f"{group['group']}: grokked at epoch {middle} ({span}){never}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The plain numbers and texts of the rows as the Run's metric table; a failed member has none of the numbers."""
    flat = [{name: value for name, value in row.items() if not isinstance(value, list | dict)} for row in rows]
    numbers = {name for row in flat for name, value in row.items() if isinstance(value, int | float)}
    texts = {name for row in flat for name, value in row.items() if isinstance(value, str)}
    found: dict[str, list[Any]] = {name: [row.get(name) or "" for row in flat] for name in sorted(texts)}
    return found | {name: [row.get(name) for row in flat] for name in sorted(numbers)}
