"""`micrographia doctor`: what is installed, what the machine offers, and what is missing."""

import os
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from micrographia.faces.cli.carry_out import print_json
from micrographia.faces.cli.options import Printed, parse
from micrographia.faces.figures.export import CHROMES, find_chrome

PACKAGES = (
    "torch", "numpy", "scipy", "safetensors", "einops", "jaxtyping", "pyarrow", "rich", "tyro", "plotly",
)  # fmt: skip
EXTRAS = {"hf": "transformers", "gguf": "gguf", "png": "kaleido"}


def main(words: Sequence[str]) -> int:
    arguments = parse(Printed, words, prog="micrographia doctor", description=__doc__ or "")
    found = examine()
    if arguments.json:
        print_json(found)
        return 0 if not found["missing"] else 1
    console = Console()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _rows(found):
        table.add_row(name, value)
    console.print(table)
    for text in [*found["missing"], *found["hints"]]:
        console.print(f"[yellow]•[/yellow] {text}", highlight=False)
    return 1 if found["missing"] else 0


def examine() -> dict[str, Any]:
    """Everything that is looked at. `missing` stops work, `hints` do not."""
    versions = {name: _version(name) for name in PACKAGES}
    missing = [
        f"{name} is not installed: install micrographia again, with its dependencies."
        for name, version in versions.items()
        if not version
    ]
    extras = {name: util.find_spec(package) is not None for name, package in EXTRAS.items()}
    machine = _machine() if versions["torch"] else {}
    writable, root = _runs_root()
    chrome = find_chrome()
    hints = [f"extra `{name}` ({EXTRAS[name]}) is not installed." for name, there in extras.items() if not there]
    hints += [] if chrome else [f"no Chrome or Chromium found ({', '.join(CHROMES)}): needed for PNG and SVG alone."]
    hints += [machine["busy"]] if machine.get("busy") else []
    if not writable:
        missing.append(f"cannot write to {root}: set $MICROGRAPHIA_RUNS to a folder that can be written to.")
    return {
        "micrographia": _version("micrographia"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "extras": extras,
        "chrome": chrome,
        "runs": {"root": root, "writable": writable},
        "machine": machine,
        "missing": missing,
        "hints": hints,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    from micrographia.core.runtime import allowed_cores, busy_warning, pick_device

    cores = allowed_cores()
    return {"device": str(pick_device("auto")), "cores": cores, "threads": cores, "busy": busy_warning(cores)}


def _runs_root() -> tuple[bool, Path]:
    """Whether Runs can be written, and where they go: the folder, or the nearest one above that is there."""
    root = Path(os.environ.get("MICROGRAPHIA_RUNS") or "runs").absolute()
    there = _existing(root)
    return there.is_dir() and os.access(there, os.W_OK), root


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    machine = found["machine"]
    free = shutil.disk_usage(_existing(found["runs"]["root"])).free
    return [
        ("micrographia", found["micrographia"] or "from source, not installed"),
        *((name, version or "missing") for name, version in found["versions"].items()),
        ("python", f"{found['python']} on {found['platform']}"),
        ("device", machine.get("device", "unknown")),
        ("cores", f"{machine.get('cores', 'unknown')} (as many threads, unless --threads is given)"),
        ("runs go to", f"{found['runs']['root']} ({free / 1e9:.0f} GB free)"),
        ("extras", ", ".join(name for name, there in found["extras"].items() if there) or "none"),
        ("chrome", found["chrome"] or "none"),
    ]
