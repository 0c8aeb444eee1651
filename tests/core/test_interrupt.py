"""A request to stop, from the signal to the loop that looks at it."""

import signal
import threading

import pytest

from micrographia.core.interrupt import interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_first_signal_only_asks(number):
    with interruptible() as request:
        assert not request.asked
        signal.raise_signal(number)
        assert request.asked


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_second_signal_stops_at_once(number):
    with interruptible():
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_the_handlers_from_before_are_back_afterwards_also_after_an_exception():
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruptible():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(ZeroDivisionError), interruptible():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_each_block_has_a_request_of_its_own():
    with interruptible() as first:
        signal.raise_signal(signal.SIGINT)
    with interruptible() as second:
        assert first.asked
        assert not second.asked


def test_outside_the_main_thread_nothing_is_installed():
    seen = []

    def work() -> None:
        with interruptible() as request:
            seen.append((request.asked, signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
