"""Checkpoints: the state that a run needs to resume, and the metric rows since the previous checkpoint.

`checkpoints/<step>/` holds `state.safetensors`, `state.json`, `rows.parquet` and a manifest that also names the
previous checkpoint and the snapshots saved since. It is committed by one rename. All rows are kept, and the states of
the last two.
A checkpoint is good when its own files, the rows of all earlier ones and their snapshots are unchanged.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from micrographia.core.errors import Corrupt
from micrographia.core.store import atomic, manifest
from micrographia.core.store.exact import pack, unpack
from micrographia.core.store.formats import (
    Column,
    json_bytes,
    read_json,
    read_table,
    read_tensors,
    table_bytes,
    tensors_bytes,
)
from micrographia.core.store.manifest import Problem

FOLDER, SNAPSHOTS = "checkpoints", "snapshots"
STATE, NUMBERS, ROWS = "state.safetensors", "state.json", "rows.parquet"
STATES_KEPT = 2

Rows = dict[str, list[Any]]


class Checkpoint(NamedTuple):
    """The state after `step` steps, and every metric row up to there."""

    step: int
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    rows: Rows


def place(root: Path, step: int) -> Path:
    return root / FOLDER / f"{step:08d}"


def snapshot_place(root: Path, step: int) -> Path:
    return root / SNAPSHOTS / f"{step:08d}.safetensors"


def steps(root: Path) -> list[int]:
    """Steps of the existing checkpoints, damaged or not, in ascending order."""
    return sorted(int(path.name) for path in (root / FOLDER).glob("*") if path.is_dir() and path.name.isdecimal())


def snapshots(root: Path) -> dict[int, Path]:
    """The existing snapshots by step, in ascending order."""
    paths = sorted((root / SNAPSHOTS).glob("*.safetensors"))
    return {int(path.stem): path for path in paths if path.stem.isdecimal()}


def write(
    root: Path,
    step: int,
    *,
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
    rows: Mapping[str, Column],
    vouched: set[str],
) -> None:
    """Commit a checkpoint. `vouched` names the snapshots listed by earlier ones; the rest are listed in this one."""
    files = {
        STATE: tensors_bytes(tensors),
        NUMBERS: json_bytes({"step": step, "numbers": pack(numbers, name="numbers", arrays={})}),
        ROWS: table_bytes(rows),
    }
    before = steps(root)
    new = [f"{SNAPSHOTS}/{path.name}" for path in snapshots(root).values()]
    new = [name for name in new if name not in vouched]
    listed = {
        "files": {name: manifest.entry(data) for name, data in files.items()},
        "previous": before[-1] if before else None,
        "snapshots": manifest.entries(root, new),
    }
    atomic.write_folder(place(root, step), {**files, manifest.NAME: json_bytes(listed)})
    vouched.update(new)


def prune(root: Path, keep: int = STATES_KEPT) -> None:
    """Drop the states of all but the last `keep` checkpoints."""
    for step in steps(root)[:-keep]:
        if (place(root, step) / STATE).exists():
            atomic.remove(place(root, step) / STATE)


def drop_after(root: Path, step: int | None) -> None:
    """Remove checkpoints and snapshots later than `step`, or all: their rows and weights will be recomputed."""
    last = -1 if step is None else step
    for later in reversed([each for each in steps(root) if each > last]):  # the newest first: the rest is a chain
        atomic.remove(place(root, later))
    for later, path in snapshots(root).items():
        if later > last:
            atomic.remove(path)


def vouched_snapshots(root: Path) -> set[str]:
    """Names of the snapshots that the checkpoints list."""
    return {name for step in steps(root) for name in _listed(place(root, step))["snapshots"]}


def newest_good(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint, and sentences about any damage found. Reads and hashes everything."""
    chain, found = survey(root)
    notes = [f"{problem.file} is {problem.what}." for problem in found]
    for step in reversed(chain):
        damage = _check_state(root, step)
        if damage is None:
            notes += [f"Work resumes from the last good checkpoint, step {step}."] if notes else []
            return _load(root, step, chain), notes
        if damage.what != "missing" or step == steps(root)[-1]:  # older states are dropped as usual
            notes.append(f"{damage.file} is {damage.what}.")
    if notes:
        notes.append("No good checkpoint is left, so the run starts afresh.")
    return None, notes


def survey(root: Path) -> tuple[list[int], list[Problem]]:
    """The steps whose rows and snapshots, and all earlier ones, are intact; and the problems that break the chain."""
    chain: list[int] = []
    for step in steps(root):
        problems = _check_link(root, step, chain[-1] if chain else None)
        if problems:
            return chain, problems
        chain.append(step)
    return chain, []


def problems(root: Path) -> list[Problem]:
    """All problems of a Run's checkpoints and of the snapshots that they list."""
    chain, found = survey(root)
    states = {step: _check_state(root, step) for step in chain}
    newest = steps(root)[-1:]
    return found + [bad for step, bad in states.items() if bad and (bad.what != "missing" or step in newest)]


def rows_until(root: Path, chain: Sequence[int]) -> Rows:
    """The metric rows of these checkpoints, concatenated. A column that some lack is NaN there."""
    rows: Rows = {}
    length = 0
    for step in chain:
        table = read_table(place(root, step) / ROWS)
        more = max(map(len, table.values()), default=0)
        for name in {**rows, **table}:  # in the order they were given
            column = rows.setdefault(name, [math.nan] * length)
            column.extend(table[name].tolist() if name in table else [math.nan] * more)
        length += more
    return rows


def _load(root: Path, step: int, chain: Sequence[int]) -> Checkpoint:
    folder = place(root, step)
    numbers = unpack(read_json(folder / NUMBERS)["numbers"], {})
    rows = rows_until(root, [each for each in chain if each <= step])
    return Checkpoint(step, read_tensors(folder / STATE), numbers, rows)


def _check_link(root: Path, step: int, previous: int | None) -> list[Problem]:
    folder = place(root, step)
    try:
        listed = _listed(folder)
    except Corrupt:
        return [Problem(_inside(root, folder / manifest.NAME), "damaged")]
    if listed["previous"] != previous:
        return [Problem(_inside(root, folder), f"not the one after {previous}: a checkpoint between is missing")]
    own = [manifest.check(root, _inside(root, folder / name), listed["files"][name]) for name in (NUMBERS, ROWS)]
    saved = [manifest.check(root, name, expected) for name, expected in listed["snapshots"].items()]
    return [problem for problem in own + saved if problem]


def _check_state(root: Path, step: int) -> Problem | None:
    folder = place(root, step)
    return manifest.check(root, _inside(root, folder / STATE), _listed(folder)["files"][STATE])


def _listed(folder: Path) -> dict[str, Any]:
    listed = manifest.read(folder / manifest.NAME)
    if not {"previous", "snapshots"} <= listed.keys() or listed["files"].keys() != {STATE, NUMBERS, ROWS}:
        raise Corrupt(f"Cannot trust {folder / manifest.NAME}: it is not as it was written.")
    return listed


def _inside(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
