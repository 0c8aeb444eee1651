"""Tasks in processes of their own: results and failures come back, and nobody is left behind."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from micrographia.core.errors import BadConfig, Interrupted
from micrographia.core.events import Progress
from micrographia.core.interrupt import interruptible
from micrographia.core.tasks import Task, run_tasks


def square(*, number: int) -> dict:
    return {"square": number**2, "threads": torch.get_num_threads(), "openmp": os.environ["OMP_NUM_THREADS"]}


def fail(*, text: str) -> None:
    raise Interrupted(text)


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(*, code: int) -> None:
    sys.exit(code)


def unpicklable() -> object:
    return lambda: 0


def wait_until_asked(*, pid_file: str) -> None:
    """Write the own process id; when asked to stop, save."""
    with interruptible() as request:
        Path(pid_file).write_text(str(os.getpid()))
        while not request.asked:
            time.sleep(0.01)
        time.sleep(0.1)  # a second request would strike here
        Path(pid_file).with_suffix(".saved").touch()


def explode() -> None:
    raise RuntimeError("broken on arrival")


class Fragile:
    def __reduce__(self):
        return explode, ()


def fragile() -> Fragile:
    return Fragile()


class Stubborn:
    def __reduce__(self):
        raise RuntimeError("not for travelling")


def test_tasks_that_fail_are_reported_and_the_others_go_on_until_one_leaves(tmp_path):
    pid_file = tmp_path / "pid"
    tasks = [
        Task("slow", wait_until_asked, {"pid_file": str(pid_file)}),
        Task("two", square, {"number": 2}),
        Task("raises", fail, {"text": "at step 7"}),
        Task("killed", kill_me),
        Task("returns a function", unpicklable),
        Task("returns what breaks on arrival", fragile),
        Task("is given a lambda", square, {"number": lambda: 0}),
        Task("is given an object that does not travel", square, {"number": Stubborn()}),
        Task("three", square, {"number": 3}),
        Task("leaves", leave, {"code": 3}),
    ]
    seen = []
    iterator = run_tasks(tasks, workers=2, watch=seen.append)
    done = {each.task.name: each for each in islice(iterator, len(tasks) - 1)}
    assert len(done) == len(tasks) - 1
    assert done["two"].result == {"square": 4, "threads": 1, "openmp": "1"}
    assert done["three"].result["square"] == 9
    assert done["two"].error is None
    assert done["raises"].error.startswith("Interrupted: at step 7\n")
    assert "in fail" in done["raises"].error  # the traceback
    assert "killed by SIGKILL" in done["killed"].error
    assert "exit code 3" in done["leaves"].error
    assert "pickle" in done["returns a function"].error
    assert "RuntimeError: broken on arrival" in done["returns what breaks on arrival"].error
    assert "pickle" in done["is given a lambda"].error
    assert "RuntimeError: not for travelling" in done["is given an object that does not travel"].error
    assert [name for name, each in done.items() if each.result is not None] == ["two", "three"]
    assert seen == [Progress("tasks", n, len(tasks), "task") for n in range(len(tasks))]
    while not (pid_file.exists() and pid_file.read_text()):
        time.sleep(0.01)
    iterator.close()
    assert not alive(int(pid_file.read_text()))
    assert pid_file.with_suffix(".saved").exists()


def test_no_tasks_end_at_once():
    assert list(run_tasks([])) == []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
sys.path.insert(0, {folder!r})
from micrographia.core.tasks import Task, run_tasks
from test_tasks import wait_until_asked
if __name__ == "__main__":
    list(run_tasks([Task("slow", wait_until_asked, {{"pid_file": {pid_file!r}}})], workers=1))
"""


STOPS = (signal.SIGINT, signal.SIGKILL)


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """A parent with a worker for each signal, and where the worker writes its id; side by side, as each loads torch."""
    found = {}
    for number in STOPS:
        folder = tmp_path_factory.mktemp(number.name)
        pid_file, script = folder / "pid", folder / "parent.py"
        script.write_text(PARENT.format(folder=str(Path(__file__).parent), pid_file=str(pid_file)))
        words = [sys.executable, str(script)]
        found[number] = subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True), pid_file
    yield found
    for parent, _ in found.values():
        parent.kill()
        parent.communicate()


@pytest.mark.parametrize("number", STOPS)
def test_the_processes_end_with_the_one_who_asked_and_save_on_ctrl_c(number, parents):
    parent, pid_file = parents[number]
    while not (pid_file.exists() and pid_file.read_text()):
        assert parent.poll() is None, parent.stderr.read().decode()
        time.sleep(0.01)
    if number == signal.SIGINT:  # as the terminal does: to everyone
        os.killpg(parent.pid, number)
    else:
        parent.send_signal(number)
    parent.wait(timeout=60)
    for _ in range(1000):
        if not alive(int(pid_file.read_text())):
            assert pid_file.with_suffix(".saved").exists() == (number == signal.SIGINT)
            return
        time.sleep(0.01)
    pytest.fail("the worker outlived its parent by ten seconds")


def test_there_is_a_worker_at_least():
    with pytest.raises(BadConfig, match="0 workers"):
        run_tasks([], workers=0)
