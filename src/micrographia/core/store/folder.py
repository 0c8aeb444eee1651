"""RunFolder: the writer's handle on a Run, from creation to `finish`.

`run.json` alone defines the state of the Run. Files written before its status is "finished" are provisional and are
rewritten by the next `finish`; so the Run changes state by one rename, as each checkpoint does.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from micrographia.core.claims import Judged, Status
from micrographia.core.errors import BadConfig, CannotWrite, RunExists, RunLocked, UserError
from micrographia.core.figures import Figure
from micrographia.core.provenance import changed_since
from micrographia.core.store import atomic, checkpoints, lock, manifest
from micrographia.core.store.atomic import write_bytes
from micrographia.core.store.checkpoints import Checkpoint
from micrographia.core.store.formats import Column, json_bytes, plain, table_bytes, write_tensors
from micrographia.core.store.lock import Lock
from micrographia.core.store.records import claims_files, figures_files
from micrographia.core.store.verify import RUN, all_files, read_run

METRICS, RESULTS = "metrics.parquet", "results.json"


OTHER_WEIGHTS = (
    "The weights of the model have changed since the Run {path} was finished: what it holds is of the old ones. Leave "
    "its folder out, or give another, to ask the model as it is now."
)


DICTIONARIES = "dictionaries"
"""The folder of a Run that holds dictionaries, each a folder of its own that other tools open."""
PAGES = "pages"
"""The folder of a Run that holds feature bundles, which `micrographia browse RUN` shows."""


class RunFolder:
    """A Run that is being written, with its lock; use it as a context manager, or `close` it.

    `config` is the stored one: `threads`, if left open, is the count with which the Run was started.
    `notes` are sentences for the user: damaged checkpoints, why a resumed Run may lose bit-identity, and that a
    finished one is of weights that have changed.
    """

    def __init__(self, path: Path, record: Mapping[str, Any], lock: Lock | None) -> None:
        self.path = path
        self.notes: list[str] = []
        self._record = dict(record)
        self._lock = lock
        self._vouched: set[str] = set()

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        lab: str,
        preset: str,
        config: Mapping[str, Any],
        provenance: Mapping[str, Any],
        resume: bool,
    ) -> "RunFolder":
        """Create a Run at `path`, or resume the one there, and lock it.

        With `resume`, an absent or empty folder, or one where a run was killed before its first commit, is started
        anew; a finished Run is returned as it is, with status "finished". A `threads` of None is filled in from
        `provenance` when the Run is created, and from the Run when it is resumed.
        Raises RunExists (a Run without `resume`, or a folder of other things), RunLocked, BadConfig (a Run of another
        lab or with another config), Corrupt (its `run.json` is damaged), CannotWrite.
        """
        path = Path(path).absolute()
        _refuse_occupied(path, resume)
        atomic.make_folder(path)
        held = _lock_unless_finished(path)
        try:
            _refuse_occupied(path, resume)  # another process may have been faster
            if held:
                atomic.clean(path)
            if (path / RUN).exists():
                return cls._resume(path, held, lab=lab, config=config, provenance=provenance)
            return cls._create(path, held, lab=lab, preset=preset, config=config, provenance=provenance)
        except BaseException:
            if held:
                held.release()
            raise

    @classmethod
    def _create(cls, path: Path, held: Lock | None, *, config: Mapping[str, Any], **given: Any) -> "RunFolder":
        chosen = dict(config)
        if "threads" in chosen and chosen["threads"] is None:
            chosen["threads"] = given["provenance"].get("threads")
        record = plain({**given, "config": chosen, "status": "running", "created": _now(), "resumed": []})
        write_bytes(path / RUN, json_bytes(record))
        return cls(path, record, held)

    @classmethod
    def _resume(
        cls, path: Path, held: Lock | None, *, lab: str, config: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> "RunFolder":
        record = read_run(path)
        _refuse_other_config(path, record, lab=lab, config=config)
        folder = cls(path, record, held)
        changed = changed_since(record["provenance"], plain(provenance))
        if folder.status == "finished":
            folder.notes += [OTHER_WEIGHTS.format(path=path) for each in changed if each.startswith("weights ")]
            return folder
        if changed:
            folder.notes.append(f"Bit-identity with an uninterrupted run is lost: {'; '.join(changed)}.")
        record["resumed"].append({"at": _now(), "changed": changed})
        folder._record = {**record, "status": "running"}
        write_bytes(path / RUN, json_bytes(folder._record))
        checkpoints.prune(path)
        return folder

    @property
    def config(self) -> dict[str, Any]:
        return self._record["config"]

    @property
    def provenance(self) -> dict[str, Any]:
        return self._record["provenance"]

    @property
    def status(self) -> Status:
        return self._record["status"]

    @property
    def last_step(self) -> int | None:
        """The step of the newest checkpoint; None before the first."""
        return max(checkpoints.steps(self.path), default=None)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock. Nothing is lost: every call writes before it returns."""
        if self._lock:
            self._lock.release()
        self._lock = None

    def set_status(self, status: Status) -> None:
        """Record that the Run is running, was interrupted or failed. "finished" is set by `finish`."""
        if status == self.status:
            return
        self._refuse_finished()
        if status == "finished":
            raise UserError("Asked to set the status to finished without results. Call `finish` instead.")
        self._record = {**self._record, "status": status}
        write_bytes(self.path / RUN, json_bytes(self._record))

    def save_snapshot(self, step: int, weights: Mapping[str, Tensor]) -> Path:
        """Keep the weights at `step` permanently. Save it before the checkpoint of the same step, which lists it."""
        self._refuse_finished()
        path = checkpoints.snapshot_place(self.path, step)
        write_tensors(path, weights)
        return path

    def snapshots(self) -> dict[int, Path]:
        """The snapshots so far by step, in ascending order."""
        return checkpoints.snapshots(self.path)

    def save_checkpoint(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        numbers: Mapping[str, Any],
        rows: Mapping[str, Column],
    ) -> None:
        """Commit the state after `step` steps and the metric rows since the checkpoint before.

        Writes state and rows once; keeps the states of the last two checkpoints and the rows of all.
        """
        self._refuse_finished()
        last = self.last_step
        if last is not None and step <= last:
            raise UserError(f"Asked for a checkpoint at step {step}, but there is one at step {last}. Load it first.")
        checkpoints.write(self.path, step, tensors=tensors, numbers=numbers, rows=rows, vouched=self._vouched)
        checkpoints.prune(self.path)

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest good checkpoint, with all rows up to it; None where the run must start afresh.

        Every hash is checked before use; `notes` lists any damage. Everything later than the returned checkpoint
        (damaged checkpoints, snapshots that will be saved again) is removed.
        """
        self._refuse_finished()
        found, notes = checkpoints.newest_good(self.path)
        self.notes.extend(notes)
        checkpoints.drop_after(self.path, found.step if found else None)
        self._vouched = checkpoints.vouched_snapshots(self.path)
        return found

    def finish(
        self,
        results: Mapping[str, Any],
        claims: Sequence[Judged],
        figures: Sequence[Figure],
        metrics: Mapping[str, Column],
    ) -> None:
        """Write the files of a finished Run, then its manifest, and last the status: one rename finishes the Run."""
        self._refuse_finished()
        files = {METRICS: table_bytes(metrics), **claims_files(claims), **figures_files(figures)}
        for name, data in {**files, RESULTS: json_bytes(results)}.items():
            write_bytes(self.path / name, data)
        checkpoints.prune(self.path, keep=1)  # so that an interruption leaves no trace in the weights
        record = {**self._record, "status": "finished"}
        listed = manifest.entries(self.path, [name for name in all_files(self.path) if name != RUN])
        listed[RUN] = manifest.entry(json_bytes(record))
        write_bytes(self.path / manifest.NAME, json_bytes({"files": listed}))
        write_bytes(self.path / RUN, json_bytes(record))
        self._record = record

    def add_file(self, name: str, text: str | bytes) -> Path:
        """Add a file, such as the report, to the Run, replacing one of that name; see `add_file`."""
        return _add_file(self.path, name, text, finished=self.status == "finished")

    def _refuse_finished(self) -> None:
        if self.status == "finished":
            raise RunExists(f"Asked to write to the Run {self.path}, which is finished. Choose another folder.")


def add_file(run: Path | str, name: str, text: str | bytes) -> Path:
    """Add a file, such as a new report, to a Run on disk, replacing one of that name.

    The manifest of a finished Run then includes it. Raises RunLocked, CannotWrite, and UserError for the name of a file
    that the Run itself keeps.
    """
    run = Path(run).absolute()
    record = read_run(run)
    held = Lock.take(run)
    try:
        return _add_file(run, name, text, finished=record["status"] == "finished")
    finally:
        held.release()


def _add_file(run: Path, name: str, text: str | bytes, *, finished: bool) -> Path:
    own = {RUN, METRICS, RESULTS, manifest.NAME, lock.NAME, *claims_files([]), *figures_files([])}
    if name in own or not _is_plain(name):
        raise UserError(f"Asked to add {name!r} to {run}: the Run's own, or no plain file name. Choose another.")
    data = text if isinstance(text, bytes) else text.encode()
    if not finished:
        write_bytes(run / name, data)
        return run / name
    place = run / manifest.NAME
    listed = manifest.settled(run, manifest.read(place))
    new = {name: manifest.entry(data)}
    write_bytes(place, json_bytes({**listed, "arriving": new}))
    write_bytes(run / name, data)
    write_bytes(place, json_bytes({"files": {**listed["files"], **new}}))
    return run / name


def _is_plain(name: str) -> bool:
    """Whether it names a file in the Run itself, or below its folder of dictionaries."""
    parts = name.split("/")
    plain = all(part and Path(part).name == part and not part.startswith(".") for part in parts)
    return plain and (len(parts) == 1 or parts[0] == DICTIONARIES)


def _lock_unless_finished(path: Path) -> Lock | None:
    """The lock; None for a finished Run that cannot be locked, for instance on a read-only disk, and is only read."""
    finished = (path / RUN).exists() and read_run(path)["status"] == "finished"
    with suppress(*([CannotWrite, RunLocked] if finished else [])):
        return Lock.take(path)
    return None


def _refuse_occupied(path: Path, resume: bool) -> None:
    if (path / RUN).exists():
        if not resume:
            raise RunExists(f"Asked for a new Run in {path}, but one is there. Resume it (--resume) or choose another.")
        return
    if path.exists() and not path.is_dir():
        raise RunExists(f"Asked for a Run in {path}, which is a file. Choose another folder.")
    # Before its first commit a run leaves only its lock and temporary files; anything else belongs to the user.
    foreign = [each.name for each in (path.iterdir() if path.exists() else ()) if not _ours(each.name)]
    if foreign:
        raise RunExists(
            f"Asked for a Run in {path}, which holds other files and no {RUN}: {', '.join(sorted(foreign)[:5])}. "
            "Nothing was touched; choose an empty or a new folder."
        )


def _ours(name: str) -> bool:
    return name == lock.NAME or name.startswith(atomic.TEMPORARY)


def _refuse_other_config(path: Path, record: Mapping[str, Any], *, lab: str, config: Mapping[str, Any]) -> None:
    if record["lab"] != lab:
        raise BadConfig(f"Asked to resume {path} as a Run of {lab!r}, but it is one of {record['lab']!r}.")
    stored, given = record["config"], plain(config)
    if given.get("threads", 0) is None:
        given["threads"] = stored.get("threads")
    absent = "(absent)"
    differing = [
        f"{name} is {stored.get(name, absent)!r} there, {given.get(name, absent)!r} asked"
        for name in sorted(stored.keys() | given.keys())
        if stored.get(name, absent) != given.get(name, absent)
    ]
    if differing:
        raise BadConfig(
            f"Asked to resume {path} with another config: {'; '.join(differing)}. Use the same, or another folder."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
