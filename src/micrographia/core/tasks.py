"""Run many tasks at once, each in its own process.

There are a few spawned processes with one thread each. A task that fails, or whose process is killed, is
reported, and the others continue. When the parent process stops, by Ctrl-C or otherwise, the workers end too; what they
had committed is kept. Results are pickled between processes of this machine only: paths, numbers and dicts.
A script that calls `run_tasks` needs the usual `if __name__ == "__main__":`.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from micrographia.core.errors import BadConfig
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.runtime import allowed_cores, settings

_GRACE_SECONDS = 10.0
# Libraries that make threads of their own read these when they are loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True, slots=True)
class Task:
    """`function(**arguments)`, with a function at the top level of a module and arguments that can be pickled."""

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """A Task that ended, with its result, or with its error: type and message in the first line, then the traceback."""

    task: Task
    result: Any = None
    error: str | None = None


def run_tasks(tasks: Sequence[Task], *, workers: int | None = None, watch: Watch = silent) -> Iterator[Done]:
    """Run tasks in parallel and yield each as it ends, in any order.

    `workers` processes (by default the cores this process may use), each with one thread. Leaving the iterator ends
    them. Raises BadConfig for an invalid number of workers.
    """
    if workers is not None and workers < 1:
        raise BadConfig(f"Asked for {workers} workers. Give 1 or more, or leave it out to use the allowed cores.")
    return _run(list(tasks), min(workers or allowed_cores(), max(1, len(tasks))), watch)


def _run(tasks: list[Task], workers: int, watch: Watch) -> Iterator[Done]:
    waiting = deque(tasks)
    watch(Progress("tasks", 0, len(tasks), "task"))
    with _workers(workers) as idle:
        busy: list[_Worker] = []
        ended = 0
        while waiting or busy:
            while waiting and idle:
                busy.append(idle.pop())
                busy[-1].begin(waiting.popleft())
            for worker in _ready(busy):
                busy.remove(worker)
                idle.append(worker)
                ended += 1
                done = worker.end()
                watch(Progress("tasks", ended, len(tasks), "task"))
                yield done


@contextmanager
def _workers(number: int) -> "Iterator[list[_Worker]]":
    workers = [_Worker() for _ in range(number)]
    try:
        yield list(workers)
    finally:
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.stop()


def _ready(busy: "list[_Worker]") -> "list[_Worker]":
    """The workers that answered, or whose process ended (its end of the pipe closes then); waits for the first."""
    ready = wait([worker.pipe for worker in busy])
    return [worker for worker in busy if worker.pipe in ready]


class _Worker:
    """A process that runs one task after the other; a new one replaces it when it dies."""

    pipe: Connection
    _process: BaseProcess | None = None
    _task: Task
    _refused: str | None

    def begin(self, task: Task) -> None:
        self._task, self._refused = task, None
        if self._process is None:
            self._start()
        try:
            self.pipe.send(task)
        except OSError:  # it died while idle: its replacement takes the task
            self.stop()
            self._start()
            self.pipe.send(task)
        except Exception as error:  # pickling calls the objects' own code, which may raise anything
            self._refused = _description(error)
            self.pipe.send(None)  # the process answers at once, so that the refusal is reported in its turn

    def end(self) -> Done:
        try:
            result, error = self.pipe.recv()
        except (EOFError, OSError):
            result, error = None, _how_it_ended(self.stop())
        except Exception as failure:  # unpickling a result runs its own code, which may raise anything
            result, error = None, _description(failure)
        return Done(self._task, result, self._refused or error)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        with _one_thread_each():
            self._process.start()
        theirs.close()

    def ask_to_stop(self) -> None:
        """Send SIGTERM: a task that handles it may save its state; any other ends at once."""
        if self._process:
            self._process.terminate()

    def stop(self) -> int | None:
        """End the process and give its exit code, or None where there is none. The next task gets another."""
        if self._process is None:
            return None
        self.pipe.close()
        self._process.join(_GRACE_SECONDS)
        self._process.kill()
        self._process.join()
        code, self._process = self._process.exitcode, None
        return code


def _work(pipe: Connection) -> None:
    """The loop of a worker: receive a task, run it, send the result, until the parent ends."""
    _leave_interrupts_to_the_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with settings(threads=1):
        while True:
            try:
                task = pipe.recv()
            except EOFError:
                return
            except Exception as error:  # unpickling imports the caller's modules, which may raise anything
                _send(pipe, (None, _description(error)))
                continue
            _send(pipe, _answer(task))


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches the whole process group. The parent passes it on, once, as SIGTERM, so that a task can save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # blocked too, as a task may set a handler of its own
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _answer(task: Task | None) -> tuple[Any, str | None]:
    try:
        return (task.function(**task.arguments) if task else None), None
    except Exception as error:  # every failure of a task becomes a report here
        return None, _description(error)


def _send(pipe: Connection, answer: tuple[Any, str | None]) -> None:
    try:
        pipe.send(answer)
    except OSError:  # the parent has ended
        os._exit(0)
    except Exception as error:  # a result that cannot be pickled; its own code may raise anything
        pipe.send((None, _description(error)))


def _end_with_parent() -> None:
    """End with the parent: an orphaned worker would keep the lock of its Run."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is always started by another process"
    wait([parent.sentinel])
    os._exit(1)


def _description(error: BaseException) -> str:
    lines = traceback.format_exception(error)
    return f"{type(error).__name__}: {error}\n\n{''.join(lines)}"


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " Perhaps memory ran out; try fewer workers." if name == "SIGKILL" else ""
        return f"Its process was killed by {name}.{hint}"
    return f"Its process ended with exit code {code} before it gave a result."


@contextmanager
def _one_thread_each() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
