"""How long the command takes to say its first word: `--help`, a subcommand's help, and `import micrographia`.

Each is a fresh process, timed in turn with `python -c pass`, whose time is told beside it. Targets: `--help` under
0.3 s, a subcommand's help under 1 s, and `import micrographia` without torch.
Usage: uv run python benchmarks/startup.py
"""

import subprocess
import sys
from typing import Any

import numpy as np
from paired import Comparison, Contender, arguments, compare, machine, parse, write_result

COMMANDS: dict[str, tuple[list[str], float | None]] = {
    "micrographia --help": (["-m", "micrographia", "--help"], 0.3),
    "micrographia grok --help": (["-m", "micrographia", "grok", "--help"], 1.0),
    "import micrographia": (["-c", "import micrographia"], 0.3),
}
TORCH_FREE = "import sys, micrographia; sys.exit('torch' in sys.modules)"


def python(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def process(name: str, arguments: list[str]) -> Contender:
    def run(times: int) -> None:
        for _ in range(times):
            python(arguments)

    return Contender(name, run)


def told(found: Comparison, limit: float | None) -> dict[str, Any]:
    seconds = float(np.median(found.theirs_seconds))
    verdict = "" if limit is None else f", target {limit} s: {'met' if seconds <= limit else 'NOT MET'}"
    print(
        f"{found.theirs}: {seconds:.3f} s (a bare Python: {np.median(found.ours_seconds):.3f} s){verdict}", flush=True
    )
    return {**found.as_json(), "seconds": seconds, "target_seconds": limit}


def main() -> None:
    chosen = parse(arguments(__doc__ or ""))
    bare = process("python -c pass", ["-c", "pass"])
    found = [
        told(
            compare(bare, process(name, words), unit="start", rounds=chosen.rounds, seconds=0.0, busy=chosen.busy),
            limit,
        )
        for name, (words, limit) in list(COMMANDS.items())[: 1 if chosen.smoke else None]
    ]
    torch_free = subprocess.run([sys.executable, "-c", TORCH_FREE], check=False).returncode == 0
    print(f"import micrographia without torch: {'yes' if torch_free else 'NO'}")
    results = {"comparisons": found, "torch_free": torch_free}
    write_result("startup", results, out=chosen.out, smoke=chosen.smoke, machine=machine(chosen.threads or 1))


if __name__ == "__main__":
    main()
