"""Memory in MiB now, and its peak since it was last reset: of this process, or of what torch holds on a GPU.

A process: what is resident, on Linux; elsewhere not a number. A GPU: what tensors take there, as torch counts it.
"""

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def now(device: str = "cpu") -> float:
    return _field("VmRSS") if device == "cpu" else _cuda("memory_allocated")


def peak(device: str = "cpu") -> float:
    return _field("VmHWM") if device == "cpu" else _cuda("max_memory_allocated")


def reset_peak(device: str = "cpu") -> float:
    """Forget the peak so far; returns what is held now."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif CLEAR.exists():
        CLEAR.write_text("5", encoding="ascii")
    return now(device)


def _cuda(count: str) -> float:
    import torch

    return getattr(torch.cuda, count)() / 2**20


def _field(name: str) -> float:
    if not STATUS.exists():
        return float("nan")
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
    return int(lines[name].split()[0]) / 1024
