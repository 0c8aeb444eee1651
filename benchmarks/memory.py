"""Resident memory of this process in MiB, and its peak since it was last reset. Linux; elsewhere not a number."""

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> float:
    return _field("VmRSS")


def peak() -> float:
    return _field("VmHWM")


def reset_peak() -> float:
    """Forget the peak so far; returns what is resident now."""
    if CLEAR.exists():
        CLEAR.write_text("5", encoding="ascii")
    return resident()


def _field(name: str) -> float:
    if not STATUS.exists():
        return float("nan")
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
    return int(lines[name].split()[0]) / 1024
