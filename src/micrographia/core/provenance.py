"""The provenance of a result: versions, code, machine. No dates and no names of people or hosts."""

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

# A change of these may change a result bit for bit. Threads are not listed: a Run's own count is reused.
BITWISE = ("version", "commit", "torch", "device", "device_name", "dtype", "weights")


def provenance(seed: int | None, device: str | torch.device, dtype: str | torch.dtype, threads: int) -> dict[str, Any]:
    """Seed, device, precision and threads of a computation, with software versions and the machine."""
    device, cpu = torch.device(device), _cpu_name()
    return {
        "seed": seed,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "cpu": cpu,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "version": _version(),
        **_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def changed_since(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences of two provenances that may change a result bit for bit, as "torch was 2.11, is 2.13"."""
    both = [name for name in BITWISE if name in then and name in now]
    return [f"{name} was {then[name]}, is {now[name]}" for name in both if then[name] != now[name]]


def _version() -> str:
    try:
        return importlib.metadata.version("micrographia")
    except importlib.metadata.PackageNotFoundError:  # run from its source folder
        return "not installed"


def _commit() -> dict[str, Any]:
    """Commit of this package's own checkout, and whether it was changed since; both None outside of one."""
    here = Path(__file__)
    tracked = _git(here.parent, "ls-files", "--error-unmatch", here.name)
    if tracked is None:
        return {"commit": None, "dirty": None}
    changes = _git(here.parent, "status", "--porcelain", "--", str(here.parents[1]))
    return {"commit": _git(here.parent, "rev-parse", "HEAD"), "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        output = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, no answer: nothing is known
        return None
    return output.stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        return named[0].partition(":")[2].strip() if named else platform.machine()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()
