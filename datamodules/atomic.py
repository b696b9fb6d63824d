"""Files of a store that are written whole or not at all, whatever ends the process that writes them.

A file is written under a temporary name in `<store>/.tmp/`, flushed to the disk and renamed. Its writer holds a lock
on it, which the kernel lets go when the writer ends, by SIGKILL too: so the next run, or another one on the same
folder, can tell leftovers from files in work and removes only the former.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"  # folder in the store
LEFT_OVER = 24 * 3600.0  # s; age at which a file counts as left over where the file system knows no locks


class StoreError(OSError):
    """The store cannot be written: no fault of the source that was being prepared. The message names the remedy."""


@contextmanager
def atomic_file(root: Path, path: Path) -> Iterator[BinaryIO]:
    """A file open for writing, put in place and flushed to the disk if all goes well, else removed.

    Args:
        root: of the store; on the same file system as `path`.
        path: where the file goes; its folder is made.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked_file(root / TEMPORARY) as file:
            temporary = Path(file.name)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)  # while the lock is held
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        _flush_folder(path.parent)
    except OSError as error:
        raise store_error(error, root) from error
    finally:
        _remove_if_empty(root / TEMPORARY)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """The same for what writes by path and outside a store: a temporary name beside the file, with its suffix.

    Args:
        path: where the file goes; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(root: Path) -> int:
    """Remove what killed writers left behind.

    Returns:
        How many files.
    """
    swept, names = 0, []
    with suppress(FileNotFoundError):  # or the last writer removes it now, which glob does not bear
        names = os.listdir(root / TEMPORARY)
    for path in sorted(root / TEMPORARY / name for name in names):
        try:
            with open(path, "r+b") as file:
                if _lock(file) or time.time() - path.stat().st_mtime > LEFT_OVER:
                    path.unlink()
                    swept += 1
        except FileNotFoundError:
            continue  # its writer has put it in place meanwhile
    _remove_if_empty(root / TEMPORARY)
    return swept


def store_error(error: OSError, root: Path) -> StoreError:
    """What the user should do about a failed write, in one line."""
    if isinstance(error, StoreError):
        return error
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free some space, or choose another folder with data.store=; the same command then goes on"
        message = f"no room left in {root} ({what}): {advice}"
    else:
        where = f", {error.filename}" if error.filename else ""
        message = f"{root} cannot be written ({what}{where}): choose another folder with data.store="
    full = StoreError(message)  # of one argument, so that the message is all that str() gives
    full.errno = error.errno
    return full


def _locked_file(folder: Path) -> BinaryIO:
    """A new file with this process' lock on it, that no sweep has taken for a leftover in between."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            with suppress(FileNotFoundError):  # asked once: others make and remove it meanwhile
                if not stat.S_ISDIR(os.lstat(folder).st_mode):
                    raise
            continue  # it was there, and another process has just removed it
        try:
            descriptor, name = tempfile.mkstemp(dir=folder)
        except FileNotFoundError:
            continue  # the same
        file = open(name, "w+b", opener=lambda *_, descriptor=descriptor: descriptor)  # noqa: SIM115
        os.fchmod(descriptor, 0o666 & ~_umask())
        with suppress(OSError):  # where locks are not to be had, age alone says what is left over
            fcntl.flock(file, fcntl.LOCK_EX)  # waits for a sweep that has it, and will remove it, in hand
        if os.path.exists(name):
            return file
        file.close()


def _lock(file: BinaryIO) -> bool:
    """Whether this process now holds the lock of a file that nobody else has; False too where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    """Write a rename in the folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()
