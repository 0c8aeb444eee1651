"""Verify a Run on disk: missing, altered and extra files.

A finished Run is compared with its manifest, which lists every file but itself and the lock. Of an unfinished one, the
checkpoints and the snapshots they list are checked.
"""

from pathlib import Path
from typing import Any

from micrographia.core.errors import Corrupt, RunNotFound
from micrographia.core.store import checkpoints, lock, manifest
from micrographia.core.store.formats import read_json
from micrographia.core.store.manifest import Problem

RUN = "run.json"
STATUSES = ("running", "interrupted", "finished", "failed")


def verify(path: Path | str) -> list[Problem]:
    """The problems of the Run at `path`; an empty list when it is intact. Reads every file once."""
    path = Path(path)
    if not (path / RUN).is_file() and not (path / manifest.NAME).is_file():
        raise RunNotFound(f"Asked to verify {path}, which holds no {RUN}. Give the folder of a Run.")
    try:
        finished = read_run(path)["status"] == "finished"
    except Corrupt:
        return [Problem(RUN, "damaged"), *[bad for bad in _against_manifest(path) if bad.file != RUN]]
    return _against_manifest(path) if finished else checkpoints.problems(path)


def read_run(path: Path) -> dict[str, Any]:
    """The content of `run.json`, with the entries that every Run has. Raises Corrupt."""
    record = read_json(path / RUN)
    whole = {"lab", "preset", "config", "provenance", "status", "created"} <= record.keys()
    if not whole or record["status"] not in STATUSES:
        raise Corrupt(f"{path / RUN} is not a Run's: it was altered. Restore it, or start the run again elsewhere.")
    return record


def all_files(root: Path) -> list[str]:
    """Every file of a Run but the lock and the Run's own manifest, as sorted paths inside it."""
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for name in names if name not in (lock.NAME, manifest.NAME))


def _against_manifest(path: Path) -> list[Problem]:
    try:
        listed = manifest.read(path / manifest.NAME)
    except Corrupt:
        what = "damaged" if (path / manifest.NAME).exists() else "missing"
        return [Problem(manifest.NAME, f"{what}, so that nothing else can be checked")]
    files, arriving = listed["files"], listed.get("arriving", {})
    awaited = {name: new for name, new in arriving.items() if name in files or (path / name).exists()}
    expected = {name: [each[name] for each in (files, awaited) if name in each] for name in sorted({*files, *awaited})}
    checked = [manifest.check(path, name, *entries) for name, entries in expected.items()]
    extra = [Problem(name, "extra: not in the manifest") for name in all_files(path) if name not in expected]
    return [problem for problem in checked if problem] + extra
