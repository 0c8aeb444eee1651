"""How long the command takes to say its first word: `--help`, a subcommand's help, and `import micrographia`.

Each is a fresh process, timed in turn with `python -c pass`, whose time is told beside it. Targets: `--help` under
0.3 s, a subcommand's help under 1 s, and `import micrographia` without torch.
Usage: uv run python benchmarks/startup.py
"""

import subprocess
import sys
from typing import Any

import numpy as np
from paired import Comparison, Contender, Match
from recording import Record, arguments, parse

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


def told(found: Comparison) -> dict[str, Any]:
    seconds, limit = float(np.median(found.theirs_seconds)), found.about["target_seconds"]
    verdict = "" if limit is None else f", target {limit} s: {'met' if seconds <= limit else 'NOT MET'}"
    print(f"{found.theirs}: {seconds:.3f} s (a bare Python: {np.median(found.ours_seconds):.3f} s){verdict}")
    return {"seconds": seconds, "target_seconds": limit, "met": limit is None or seconds <= limit}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.set_defaults(seconds=0.0)
    chosen = parse(parser)
    record = Record("startup", chosen)
    bare = process("python -c pass", ["-c", "pass"])
    matches = [
        Match(bare, process(name, words), "start", about={"target_seconds": limit})
        for name, (words, limit) in list(COMMANDS.items())[: 1 if chosen.smoke else None]
    ]
    found = {each.theirs: told(each) for each in record.compare(matches)}
    torch_free = subprocess.run([sys.executable, "-c", TORCH_FREE], check=False).returncode == 0
    print(f"import micrographia without torch: {'yes' if torch_free else 'NO'}")
    record.finish(commands=found, torch_free=torch_free)


if __name__ == "__main__":
    main()
