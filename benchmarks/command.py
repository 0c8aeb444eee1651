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
from recording import Record, arguments, parse

TARGET_SECONDS = 120.0


def seconds_of_command(words: list[str]) -> tuple[float, float | None]:
    """Wall time of one run of the command, report included, and the cores that others took meanwhile."""
    others = Others()
    with tempfile.TemporaryDirectory() as folder:
        words = ["grok", *words, "--json", "--out", str(Path(folder) / "run")]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "micrographia", *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began, others.cores()


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.set_defaults(rounds=3)
    chosen = parse(parser)
    words = ["--preset", "tiny", "--epochs", "2", "--no-report"] if chosen.smoke else ["--preset", "quick"]
    record = Record("command", chosen)
    taken, others = [], []
    while len(taken) < chosen.rounds and (not taken or time.monotonic() + max(taken) < chosen.deadline):
        seconds, cores = seconds_of_command(words)
        taken.append(seconds)
        others.append(cores)
        record.put(words=words, target_seconds=TARGET_SECONDS, n=len(taken), seconds=taken, cores_of_others=others)
    seconds = float(np.median(taken))
    verdict = "met" if seconds <= TARGET_SECONDS else "NOT MET"
    spread = f"from {min(taken):.1f} to {max(taken):.1f}"
    print(f"micrographia grok ({' '.join(words)}): {seconds:.1f} s, {spread}; target {TARGET_SECONDS:.0f} s: {verdict}")
    print(f"cores that others took: {others}")
    record.finish()


if __name__ == "__main__":
    main()
