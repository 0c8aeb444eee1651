"""One writer per Run: the file `.lock` names the process that writes.

It holds process id, start time and host. The lock of a dead process, or of one whose id was reused, is taken over.
Where the system has flock, it decides between two simultaneous attempts, on one host or over NFS.
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from micrographia.core.errors import RunLocked
from micrographia.core.store import atomic

if sys.platform != "win32":
    import fcntl

NAME = ".lock"


@dataclass(frozen=True, slots=True)
class Lock:
    """The right to write into one folder, until released."""

    path: Path
    descriptor: int

    @classmethod
    def take(cls, folder: Path, name: str = NAME) -> "Lock":
        """Lock `folder`, or what in it goes by this file. Raises RunLocked when a live process holds it."""
        path = folder / name
        with atomic.explained(path):
            descriptor = _open(path)
        try:
            _refuse_live_owner(path, folder)
            with atomic.explained(path):
                atomic.overwrite(descriptor, json.dumps(_me(), sort_keys=True).encode())
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def release(self) -> None:
        """Release the folder. The file is removed first, while the lock is still ours."""
        with contextlib.suppress(OSError):  # on Windows an open file remains; its owner ends soon
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def is_held(folder: Path) -> bool:
    """Whether a live process, this one included, holds the lock of `folder`."""
    owner = _owner(folder / NAME)
    return owner is not None and _lives(owner)


def runs(pid: int) -> bool:
    """Whether a process of this id runs on this host."""
    return _start(pid) != ""


def _open(path: Path) -> int:
    """A locked descriptor of the file now at `path`; the last owner may just have removed an earlier one."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if sys.platform == "win32":
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _locked(path.parent, _owner(path)) from None
        except OSError:  # a file system without flock: the file's content alone decides
            return descriptor
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def _refuse_live_owner(path: Path, folder: Path) -> None:
    owner = _owner(path)
    if owner is not None and owner != _me() and owner.get("host") == platform.node() and _lives(owner):
        raise _locked(folder, owner)


def _locked(folder: Path, owner: dict[str, Any] | None) -> RunLocked:
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    return RunLocked(f"Asked to write to {folder}, but {who} is writing there. Wait until it ends, or stop it first.")


def _owner(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # half written: its process died in between
        return None
    return owner if isinstance(owner, dict) and {"pid", "host", "start"} <= owner.keys() else None


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node(), "start": _start(os.getpid())}


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the owner is alive. A process on another host cannot be checked, so it counts as alive."""
    return owner["host"] != platform.node() or _start(owner["pid"]) == owner["start"] != ""


def _start(pid: int) -> str:
    """The start time of a process as the system reports it; empty when there is none with this id."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        fields = stat.rpartition(")")[2].split()  # the name, in brackets, may contain spaces
        return "" if fields[0] in "ZX" else f"{_boot()}:{fields[19]}"  # field 22 of proc(5): ticks since boot
    if sys.platform == "win32":  # no start time there: a process of this id is taken for the one that was
        return str(pid) * (str(pid) in _output_of("tasklist", "/FI", f"PID eq {pid}"))
    return _output_of("ps", "-o", "lstart=", "-p", str(pid))


def _output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""
