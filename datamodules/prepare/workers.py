"""Run a function over many items in processes of their own.

Unlike a pool of the standard library this one survives a worker that is killed (a decoder that crashes on a broken
file), knows which item it had in hand, and leaves no process behind however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


TERMINATED = 128 + signal.SIGTERM  # exit code of a worker that is asked to end, as shells give it
_FROM_OUTSIDE = (TERMINATED, -signal.SIGKILL, -signal.SIGTERM)


class WorkerDied(RuntimeError):
    """The process that worked on an item ended without an answer.

    Attributes:
        exit_code: of the process; minus the signal's number if one ended it.
    """

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"the worker process ended with code {exit_code}")
        self.exit_code = exit_code

    @property
    def from_outside(self) -> bool:
        """Whether something else ended the process (a scheduler, the system for want of memory), and not the item."""
        return self.exit_code in _FROM_OUTSIDE


class WorkerFailed(RuntimeError):
    """A process ended of itself before it took its first item: no item is at fault."""


class _Ready(NamedTuple):
    """What a worker says before it takes its first item."""


class _Worker(NamedTuple):
    process: Any  # multiprocessing.Process of the spawn context
    connection: Connection


def map_in_processes(
    start: Callable[..., Callable[[Item], Result]], arguments: tuple, items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """Results in the order in which they are ready.

    Args:
        start: called once in every worker with `arguments`; returns the function that is applied to the items.
        arguments: picklable.
        items: picklable.
        workers: number of processes; 0 works in this one.

    Yields:
        (item, result), where a result may be the exception that was raised, or `WorkerDied`.

    Raises:
        WorkerFailed: a worker cannot start.
    """
    pending = deque(items)
    if workers == 0:
        function = start(*arguments)
        for item in pending:
            yield item, _attempt(function, item)
        return

    context = multiprocessing.get_context("spawn")  # forking a process that runs threads may deadlock
    in_hand: dict[Connection, tuple[_Worker, Item]] = {}
    idle: list[_Worker] = []
    everyone: list[_Worker] = []
    ready: set[Connection] = set()
    try:
        while pending or in_hand:
            while pending and len(in_hand) < workers:
                if not idle:
                    idle.append(_hire(context, start, arguments))
                    everyone.append(idle[-1])
                worker, item = idle.pop(), pending.popleft()
                in_hand[worker.connection] = (worker, item)
                with suppress(BrokenPipeError):  # it was ended meanwhile, which shows when it should answer
                    worker.connection.send(item)
            for connection in wait(list(in_hand)):
                worker, item = in_hand[connection]  # type: ignore[index]
                try:
                    result = worker.connection.recv()
                    if isinstance(result, _Ready):
                        ready.add(worker.connection)
                        continue
                    idle.append(worker)
                except (EOFError, OSError):
                    worker.process.join()
                    everyone.remove(worker)
                    result = WorkerDied(worker.process.exitcode)
                del in_hand[worker.connection]
                if isinstance(result, WorkerDied) and not (worker.connection in ready or result.from_outside):
                    raise WorkerFailed(f"a worker process cannot start: it ended with code {result.exit_code}")
                yield item, result
    finally:
        busy = [worker for worker, _ in in_hand.values()]
        for worker in everyone:
            worker.connection.close()  # by which the idle ones end
        for worker in busy:
            worker.process.terminate()
        for worker in everyone:
            worker.process.join()


def _hire(context: Any, start: Callable, arguments: tuple) -> _Worker:
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, start, arguments), daemon=True)
    with _command_kept_out():
        process.start()
    there.close()  # so that the end of either process closes the pipe
    return _Worker(process, here)


@contextmanager
def _command_kept_out() -> Iterator[None]:
    """Keeps a new process from importing the command that was started here: it takes seconds and nothing is used.

    A spawned process imports the main module of its parent, for the sake of what is defined there. Our commands define
    nothing that is sent to a process.
    """
    main = sys.modules["__main__"]
    if not (main.__spec__ and main.__spec__.name.startswith("experiments.")):
        yield
        return
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(connection: Connection, start: Callable, arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    function = start(*arguments)
    try:
        connection.send(_Ready())
        while True:
            connection.send(_attempt(function, connection.recv()))
    except (EOFError, BrokenPipeError):
        pass  # the parent is done or gone
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to tidy up


def _terminate(*_: object) -> None:
    """An end that removes temporary files: the parent's decision, or of whoever ends the job."""
    sys.exit(TERMINATED)


def _end_with_parent() -> None:
    """A parent that is killed leaves no workers that go on writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return function(item)
    except Exception as error:
        return error
