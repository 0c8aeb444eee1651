"""Keep a finished Run under `docs/results/` without its large files: no snapshots, no checkpoints, no page.

What is kept is a Run still: `micrographia report` and `micrographia verify` read it, and its manifest names what is
there. Usage: uv run python docs/keep_run.py RUN NAME
"""

import shutil
import sys
from pathlib import Path

from micrographia.core.errors import MicrographiaError, UserError
from micrographia.core.store import find_run, json_bytes, load_run, manifest

RESULTS = Path(__file__).parent / "results"
WEIGHTS = ("snapshots", "checkpoints", "dictionaries", "suite", "programs", "pages")
LARGE = (*WEIGHTS, "members", "networks", "model", "untrained", "latents", "fine-tuned")
"""Folders of weights and of whole Runs inside a Run."""
LEFT = (manifest.NAME, "model.json")
"""Files that say what is in a Run: made anew, or about weights that are not kept."""
SUFFIXES = (".json", ".parquet", ".safetensors")


def kept(run: Path) -> list[str]:
    """The files of a Run that are kept, as paths inside it."""
    paths = (path.relative_to(run) for path in sorted(run.rglob("*")) if path.suffix in SUFFIXES)
    return [path.as_posix() for path in paths if path.parts[0] not in LARGE and path.name not in LEFT]


def keep(run: Path, place: Path) -> list[str]:
    """Copy what is kept of `run` to `place`, with a manifest. Raises UserError for an unfinished Run."""
    if load_run(run).status != "finished":
        raise UserError(f"Asked to keep {run}, which is not finished. Resume it first.")
    names = kept(run)
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, place / name)
    (place / manifest.NAME).write_bytes(json_bytes({"files": manifest.entries(place, names)}))
    return names


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        for name in keep(find_run(sys.argv[1]), RESULTS / sys.argv[2]):
            print(name)
    except MicrographiaError as error:
        raise SystemExit(str(error)) from None
