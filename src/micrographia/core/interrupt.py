"""Stop between two steps on Ctrl-C, not in the middle of one.

A step updates tensors in place, so an exception inside it would leave a state that no resumed run could reach. Inside
`interruptible`, Ctrl-C (and SIGTERM) set `asked`, which the loop checks where it may stop. A second Ctrl-C stops at
once; the work then resumes from the last checkpoint.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Request:
    """Whether a stop was requested."""

    asked: bool = False


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into Ctrl-C, so that work that is told to end can write down how. Not outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible() -> Iterator[Request]:
    """Turn the first Ctrl-C or SIGTERM into a request. Does nothing outside the main thread."""
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
