"""Worker processes: results, exceptions, a crash, an interruption."""

import multiprocessing
import os
import time

import pytest

from datamodules.prepare.workers import WorkerDied, map_in_processes


def square(offset: int):
    return lambda item: (item + offset) ** 2


def misbehave():
    def work(item):
        if item == 3:
            os._exit(7)  # as a decoder that crashes does
        if item == 4:
            raise OSError("disk full")
        return item, os.getpid()

    return work


def sleep_long():
    return lambda item: time.sleep(60)


def first(pair) -> int:
    return pair[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_item_is_answered_once(workers):
    results = sorted(map_in_processes(square, (1,), range(6), workers), key=first)
    assert results == [(item, (item + 1) ** 2) for item in range(6)]


def test_a_crash_costs_one_item_and_an_exception_none():
    results = dict(map_in_processes(misbehave, (), range(8), 2))
    assert isinstance(results[3], WorkerDied)
    assert "code 7" in str(results[3])
    assert isinstance(results[4], OSError)
    assert all(results[item][0] == item and results[item][1] != os.getpid() for item in (0, 1, 2, 5, 6, 7))
    assert not multiprocessing.active_children()


def test_leaving_early_ends_the_workers():
    results = map_in_processes(sleep_long, (), range(1), 1)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        _interrupt_after(1.0, results)
    assert time.monotonic() - started < 10
    assert not multiprocessing.active_children()


def _interrupt_after(seconds: float, results) -> None:
    import signal

    def interrupt(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        list(results)
    finally:
        signal.signal(signal.SIGALRM, before)
