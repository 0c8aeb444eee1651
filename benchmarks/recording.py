"""What a benchmark is told and what it leaves: the flags that all share, and one JSON file with date and hardware.

The file is written anew after every round, in one step, so that a run that is cut off keeps its rounds; it then says
`"finished": false`.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from paired import Comparison, Match, compare

from micrographia.core.runtime import allowed_cores, busy_warning, provenance

RESULTS = Path(__file__).parent / "results"
BUSY = 0.05  # cores that others may take in a round that counts


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; by default the cores it may use")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long a chunk lasts")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no round that would end later is begun")
    parser.add_argument("--busy", type=float, default=BUSY, help="cores that others may take in a round that counts")
    parser.add_argument("--out", type=Path, default=None, help="where the JSON goes instead of benchmarks/results")
    parser.add_argument("--smoke", action="store_true", help="a small problem and one round: shows only that it runs")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The flags as given; `threads` filled in, and `deadline`, until when rounds may last (of `time.monotonic`)."""
    chosen = parser.parse_args()
    chosen.deadline = time.monotonic() + 60 * chosen.minutes
    chosen.threads = chosen.threads or allowed_cores()
    if chosen.smoke:
        chosen.rounds, chosen.seconds, chosen.busy = 1, 0.0, math.inf
    return chosen


class Record:
    """The result: `benchmarks/results/<name>-<date>.json` unless `--out` says otherwise.

    Made within `settings`, since it notes what the machine does at that time.
    """

    def __init__(self, name: str, chosen: argparse.Namespace, *, device: str = "cpu", dtype: str = "float32") -> None:
        now = datetime.now(UTC)
        self.path: Path = chosen.out or RESULTS / f"{name}-{now:%Y-%m-%d}.json"
        self._chosen = chosen
        self._found: dict[str, Any] = {
            "benchmark": name,
            "date": now.isoformat(timespec="seconds"),
            "smoke": chosen.smoke,
            "finished": False,
            "machine": machine(chosen.threads, device, dtype),
        }

    def put(self, **found: Any) -> None:
        """Add to the file, or replace."""
        self._found |= found
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        written.write_text(json.dumps(self._found, indent=1) + "\n", encoding="utf-8")
        written.replace(self.path)

    def compare(self, matches: Sequence[Match]) -> list[Comparison]:
        """All matches in common rounds, as the flags say; the file holds every round as soon as it is over."""
        chosen, found = self._chosen, []
        if chosen.smoke:  # a round of one unit meets no target
            matches = [Match(m.ours, m.theirs, m.unit, None, m.about) for m in matches]
        for found in compare(
            matches, rounds=chosen.rounds, seconds=chosen.seconds, busy=chosen.busy, deadline=chosen.deadline
        ):
            self.put(comparisons=[each.as_json() for each in found], rounds_asked=chosen.rounds)
        for each in found:
            print(each, flush=True)
        return found

    def finish(self, **found: Any) -> None:
        self.put(**found, finished=True)
        print(f"written to {self.path}")


def in_own_process(script: str, *words: object) -> Any:
    """What that script prints as JSON in its last line: memory that nothing else has touched."""
    command = [sys.executable, script, *map(str, words)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(told.splitlines()[-1])


def machine(threads: int, device: str = "cpu", dtype: str = "float32") -> dict[str, Any]:
    """Hardware, versions and what else keeps the machine busy."""
    return {
        **provenance(None, device, dtype, threads),
        "numpy": np.__version__,
        "cores": allowed_cores(),
        "memory_gib": _memory_gib(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "busy": busy_warning(threads),
        "system": platform.system(),
    }


def _memory_gib() -> float | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
