"""Find, list and load Runs."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micrographia.core.claims import Run
from micrographia.core.errors import Corrupt, RunNotFound
from micrographia.core.store import checkpoints, lock
from micrographia.core.store.folder import METRICS, RESULTS
from micrographia.core.store.formats import json_bytes, read_json, read_table
from micrographia.core.store.records import read_claims, read_figures
from micrographia.core.store.verify import RUN, read_run


def runs_root() -> Path:
    """The folder of Runs: `$MICROGRAPHIA_RUNS`, else `runs` in the working folder."""
    return Path(os.environ.get("MICROGRAPHIA_RUNS") or "runs").absolute()


def new_run_path(lab: str, config: Any) -> Path:
    """A new path `<root>/<lab>/<time>-<hash of the config>`. `config` is a mapping or a dataclass."""
    fields: Mapping[str, Any] = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config  # type: ignore[arg-type]  # an instance
    code = hashlib.sha256(json_bytes({"config": fields})).hexdigest()[:8]
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{code}"
    folder = runs_root() / lab
    taken = {path.name for path in folder.glob(f"{name}*")}
    names = [name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))]
    return folder / next(each for each in names if each not in taken)


def load_run(path: Path | str) -> Run:
    """The Run at `path`, finished or not. A status of "running" without a live process is read as "interrupted".

    Raises RunNotFound, and Corrupt for files that cannot be read; `verify` checks their hashes.
    """
    path = Path(path).absolute()
    if not (path / RUN).is_file():
        raise RunNotFound(f"Asked for the Run {path}, which holds no {RUN}. Give the folder of a Run.")
    record = read_run(path)
    head = {name: record[name] for name in ("lab", "preset", "config", "provenance")}
    if record["status"] != "finished":
        dead = record["status"] == "running" and not lock.is_held(path)
        return Run(path=path, status="interrupted" if dead else record["status"], **head)
    results = read_json(path / RESULTS)
    return Run(
        path=path, status="finished", results=results, claims=read_claims(path), figures=read_figures(path), **head
    )


def read_metrics(path: Path | str) -> dict[str, NDArray[Any]]:
    """The metric table of a Run as arrays by column; of an unfinished one, the rows of its good checkpoints."""
    path = Path(path)
    if read_run(path)["status"] == "finished":
        return read_table(path / METRICS)
    chain, _ = checkpoints.survey(path)
    return {name: np.asarray(column) for name, column in checkpoints.rows_until(path, chain).items()}


def list_runs(root: Path | None = None) -> list[Path]:
    """`root` (else `runs_root()`) if it is a Run, and those below it, two folders deep, newest first.

    Runs inside a Run (a sweep's members) are not listed separately.
    """
    top = root or runs_root()
    inside = [path.parent for pattern in (RUN, f"*/{RUN}", f"*/*/{RUN}") for path in top.glob(pattern)]
    found = [path for path in inside if path == top or not (path.parent / RUN).is_file()]
    return sorted(found, key=lambda path: (_created(path), path.name), reverse=True)


LISTED = 10


def find_run(text: str | Path, root: Path | None = None) -> Path:
    """The Run that `text` names: its folder, or a unique beginning of its name or of `<lab>/<name>`.

    Raises RunNotFound, which names the candidates.
    """
    if str(text) and (Path(text) / RUN).is_file():
        return Path(text).absolute()
    known = list_runs(root)
    names = {path: (path.name, f"{path.parent.name}/{path.name}") for path in known}
    exact = [path for path in known if str(text) in names[path]]
    begun = [path for path in known if any(name.startswith(str(text)) for name in names[path])]
    if len(exact or begun) == 1:
        return (exact or begun)[0]
    listed = "".join(f"\n  {names[path][1]}" for path in (begun or known)[:LISTED]) or " none yet"
    listed += f"\n  and {len(begun or known) - LISTED} more" if len(begun or known) > LISTED else ""
    what = f"{len(begun)} Runs begin so" if begun else f"no Run begins so and no folder there holds {RUN}"
    raise RunNotFound(f"Asked for the Run {str(text)!r}: {what}. In {root or runs_root()}:{listed}")


def _created(path: Path) -> str:
    try:
        return str(read_run(path)["created"])
    except Corrupt:  # still listed, last: `verify` reports its problems
        return ""
