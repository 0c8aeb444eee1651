"""The whole of `micrographia grok`, from the shell to the report: what a newcomer waits after installation.

A fresh process and a fresh folder each time; at most a few rounds, since each takes a minute or two. Target: at most
120 s on two free cores.
Usage: uv run python benchmarks/command.py [--rounds 3]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from others import Others
from paired import arguments, machine, parse, write_result

from micrographia.core.runtime import allowed_cores

TARGET_SECONDS = 120.0


def seconds_of_command(preset: str) -> tuple[float, float | None]:
    """Wall time of one run of the command, report included, and the cores that others took meanwhile."""
    others = Others()
    with tempfile.TemporaryDirectory() as folder:
        words = ["grok", "--preset", preset, "--json", "--out", str(Path(folder) / "run")]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "micrographia", *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began, others.cores()


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.set_defaults(rounds=3)
    chosen = parse(parser)
    preset = "tiny" if chosen.smoke else "quick"
    taken, others = zip(*(seconds_of_command(preset) for _ in range(chosen.rounds)))
    seconds = float(np.median(taken))
    verdict = "met" if seconds <= TARGET_SECONDS else "NOT MET"
    spread = f"from {min(taken):.1f} to {max(taken):.1f}"
    print(f"micrographia grok ({preset}): {seconds:.1f} s, {spread}; target {TARGET_SECONDS:.0f} s: {verdict}")
    print(f"cores that others took: {others}")
    found = {"preset": preset, "seconds": taken, "cores_of_others": others, "target_seconds": TARGET_SECONDS}
    write_result("command", found, out=chosen.out, smoke=chosen.smoke, machine=machine(allowed_cores()))


if __name__ == "__main__":
    main()
