"""Device, dtype, threads and generators: the only place that chooses them.

The thread count follows from the cores that the process may use, never from the current load, so that two runs of one
Config on one machine are bit-identical. `settings` makes torch reproducible for the length of a `with` block.
`provenance` records what a run used.
"""

import ctypes
import hashlib
import math
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import torch

from micrographia.core.errors import BadConfig, UserError
from micrographia.core.provenance import provenance as provenance

DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}
_CGROUPS, _PROC = Path("/sys/fs/cgroup"), Path("/proc")
_SAMPLE_SECONDS = 0.2


def allowed_cores() -> int:
    """Cores this process may use, at least 1: its affinity and the quota of its cgroup (v2 or v1), never the load."""
    return max(1, min([_affinity(), *(math.ceil(quota) for quota in _quotas())]))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """Every CPU quota above this process, in cores. A container sees its own group as the root."""
    own = _PROC / "self" / "cgroup"
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = _CGROUPS / controllers if controllers else _CGROUPS
        for folder in [base / group.lstrip("/"), *(base / group.lstrip("/")).parents]:
            if folder.is_relative_to(base):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    v2, quota, period = folder / "cpu.max", folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if v2.is_file():
        limit, _, length = v2.read_text().strip().partition(" ")
        if limit != "max":
            yield int(limit) / int(length or 100_000)
    elif quota.is_file() and period.is_file() and int(quota.read_text()) > 0:
        yield int(quota.read_text()) / int(period.read_text())


def busy_warning(threads: int) -> str | None:
    """A warning when other processes leave too little of this process's cores for `threads` threads; else None.

    Samples the kernel's counters for 0.2 s (Linux; elsewhere the load average of a minute). Changes nothing: other load
    makes two-thread torch several times slower, and only the user can decide what to do.
    """
    cores = _affinity()  # a quota is not shared with others, the cores are
    others = _busy_with_others()
    if others is None or cores - others > min(threads, cores) - 0.5:
        return None
    used = f"{threads} thread{'' if threads == 1 else 's'}"
    return (
        f"Other work keeps about {others:.1f} of {cores} cores busy, and this run uses {used}: it may be "
        "several times slower. The thread count is kept, so that the run is reproducible bit for bit."
    )


def _busy_with_others() -> float | None:
    """Cores' worth of work by other processes on the cores this one may use."""
    if not (_PROC / "stat").exists():
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    before, own_before = _busy_seconds(), sum(os.times()[:4])
    began = time.monotonic()
    time.sleep(_SAMPLE_SECONDS)
    passed = time.monotonic() - began
    others = _busy_seconds() - before - (sum(os.times()[:4]) - own_before)
    return min(max(0.0, others / passed), _affinity())


def _busy_seconds() -> float:
    """Seconds spent working, or taken away by the hypervisor, since boot on the cores this process may use."""
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in (_PROC / "stat").read_text().splitlines()]
    ticks = 0
    for counts in (line[1:] for line in lines if line and line[0] in mine):
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, counts[:8])  # proc(5)
        ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def settings(threads: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Make torch reproducible and fast inside the block; settings are restored on exit, also after an exception.

    `threads` threads, deterministic algorithms (a warning where there is none), no TF32, and denormals flushed to zero:
    strong weight decay turns unused weights into denormals, which slow a CPU step 3 to 8 times. On CUDA,
    CUBLAS_WORKSPACE_CONFIG is set unless the user did; it counts from the first CUDA matrix product of the process on.
    """
    old_threads, old_flush = torch.get_num_threads(), flushes_denormals()
    old_deterministic = torch.get_deterministic_debug_mode()
    old_fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # set through a module class
    old_precision, old_convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    old_workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    try:
        if torch.device(device).type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import the compiler, a second
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it costs a pass and hides nothing here
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        _set_threads(threads, flush=True)
        yield
    finally:
        _set_threads(old_threads, flush=old_flush)
        torch.backends.cudnn.allow_tf32 = old_convolution
        torch.set_float32_matmul_precision(old_precision)
        torch.utils.deterministic.fill_uninitialized_memory = old_fill  # type: ignore[attr-defined]
        torch.set_deterministic_debug_mode(old_deterministic)
        if torch.device(device).type == "cuda":
            _restore_variable("CUBLAS_WORKSPACE_CONFIG", old_workspace)


def flushes_denormals() -> bool:
    """Whether this thread flushes denormals to zero. Torch has no getter, so this multiplies a denormal."""
    return (torch.full((1,), 1e-40) * 1.0).view(torch.int32).item() == 0


def _restore_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _set_threads(threads: int, *, flush: bool) -> None:
    """Set thread count and flushing of denormals. The latter is a per-thread state, inherited: so recreate the threads.

    Otherwise a thread pool created earlier keeps its old setting, and only half of a product is flushed.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(flush)
    for library in _openmp_libraries():
        pause = getattr(ctypes.CDLL(library), "omp_pause_resource_all", None)  # OpenMP 5.0, section 3.2.44
        if pause is not None:
            pause(1)  # omp_pause_soft: the pool ends, and the next parallel region creates a new one


def _openmp_libraries() -> list[str]:
    """The OpenMP runtimes loaded in this process."""
    maps = _PROC / "self" / "maps"
    if maps.exists():
        paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "omp" in line}
    else:
        paths = {str(path) for path in (Path(torch.__file__).parent / "lib").glob("*omp*")}
    return sorted(path for path in paths if re.match(r"lib(g|i)?omp\d*[-.\w]*\.(so|dylib)", Path(path).name))


def pick_device(name: str = "auto") -> torch.device:
    """The device of this name. "auto" is CUDA where there is one, else the CPU (never MPS, which has no float64).

    Raises BadConfig for an unknown name and for a device that does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadConfig(f"Asked for device {name!r}, unknown to torch. Use auto, cpu, cuda or cuda:0.") from error
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "meta": 0}
    found = there.get(device.type, 0)
    if (device.index or 0) >= found:
        raise BadConfig(f"Asked for device {name!r}; of {device.type} devices there are {found}. Use auto or cpu.")
    return device


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of this name. Raises BadConfig for one that is not in `DTYPES`."""
    if name not in DTYPES:
        raise BadConfig(f"Asked for dtype {name!r}; known are {', '.join(DTYPES)}. Choose one of these.")
    return DTYPES[name]


def dtype_named(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """None, like "auto", for that of the file. Raises UserError."""
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if dtype != "auto" and not isinstance(found, torch.dtype):
        raise UserError(
            f"The dtype {dtype!r} was asked for; torch has none of that name. Write for instance 'float32'."
        )
    return found


def generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator seeded with `seed`. Different kinds of device give different numbers. Raises BadConfig."""
    if not isinstance(seed, Integral) or not -(2**63) <= seed < 2**64:
        raise BadConfig(f"Asked for the seed {seed!r}, which is no whole number of 64 bits. Take one such as 0.")
    return torch.Generator(device=device).manual_seed(seed)


def secret() -> str:
    """A word that nobody can guess, 32 letters: for a page that only who started it may open."""
    return secrets.token_urlsafe(24)


def batch_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of the batch at `step`: a pure function of `(seed, step)`.

    Torch's CPU generator uses only the lowest 32 bits of its seed. They are a permutation of `step` keyed by `seed`, so
    that no two of 2**32 steps draw the same numbers. The permutation is murmur3's finaliser (Appleby, 2011).
    """
    digest = hashlib.sha256(str(seed).encode()).digest()
    before, after = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4))
    mixed = (step ^ before) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return generator(mixed ^ mixed >> 16 ^ after)
