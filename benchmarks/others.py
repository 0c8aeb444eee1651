"""How many cores other programs took while ours ran, read from Linux's `/proc`.

All time that the processors were not idle (stolen time too, on a virtual machine), less that of this process and its
descendants. Elsewhere than on Linux nothing is known, and the answer is None.
"""

import os
import time
from pathlib import Path

PROC = Path("/proc")
IDLE = (3, 4)  # of the counters in the first line of /proc/stat: idle, waiting for the disk
GUESTS = 8  # from here on they repeat what is counted before


class Others:
    """A stop watch for everything else on the machine."""

    def __init__(self) -> None:
        self._known = (PROC / "stat").exists()
        self._began = self._now()

    def cores(self) -> float | None:
        """Cores that others took on average since this watch was made."""
        if not self._known:
            return None
        (wall, busy, own), (then, busy_then, own_then) = self._now(), self._began
        taken = (busy - busy_then) - (own - own_then)
        return max(0.0, taken / max(wall - then, 1e-9))

    def _now(self) -> tuple[float, float, float]:
        if not self._known:
            return 0.0, 0.0, 0.0
        return time.monotonic(), busy_seconds(), family_seconds(os.getpid())


def busy_seconds() -> float:
    """Seconds that all cores together have worked since the machine was started."""
    counters = [int(x) for x in (PROC / "stat").read_text().splitlines()[0].split()[1:]][:GUESTS]
    return sum(x for i, x in enumerate(counters) if i not in IDLE) / os.sysconf("SC_CLK_TCK")


def family_seconds(root: int) -> float:
    """Seconds that a process, its living descendants and those that have ended have worked."""
    parents, worked = {}, {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile; its parent has its time
                continue
            parents[int(folder.name)] = int(fields[1])
            worked[int(folder.name)] = sum(map(int, fields[11:15]))  # utime, stime, and those of ended children
    family = {root}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(worked.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")
