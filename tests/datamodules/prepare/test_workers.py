"""Worker processes: results, exceptions, a crash, an interruption."""

import multiprocessing
import os
import signal
import time

import pytest

from datamodules.prepare.workers import WorkerDied, WorkerFailed, map_in_processes


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


def terminated():
    return lambda item: os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler does


def cannot_start():
    raise ImportError("a library is missing")


def killed_idle():
    """The first item's worker is killed after it has answered."""

    def work(item):
        if item == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        return item

    return work


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


def test_a_worker_that_is_told_to_end_does_not_blame_the_item():
    ((_, died),) = map_in_processes(terminated, (), range(1), 1)
    assert isinstance(died, WorkerDied)
    assert died.from_outside
    assert not WorkerDied(1).from_outside


def test_a_worker_that_cannot_start_is_no_fault_of_an_item(capfd):
    with pytest.raises(WorkerFailed, match="cannot start: it ended with code 1"):
        list(map_in_processes(cannot_start, (), range(3), 1))
    assert "a library is missing" in capfd.readouterr().err
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_between_items_costs_no_run():
    results = map_in_processes(killed_idle, (), range(2), 1)
    assert next(results) == (0, 0)
    time.sleep(1)
    item, died = next(results)
    assert (item, isinstance(died, WorkerDied)) == (1, True)
    assert list(results) == []


def test_leaving_early_ends_the_workers():
    results = map_in_processes(sleep_long, (), range(1), 1)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        _interrupt_after(1.0, results)
    assert time.monotonic() - started < 10
    assert not multiprocessing.active_children()


def _interrupt_after(seconds: float, results) -> None:
    def interrupt(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        list(results)
    finally:
        signal.signal(signal.SIGALRM, before)
