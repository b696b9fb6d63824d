"""Killed at any moment and run again, a preparation leaves the same store, byte for byte, as an uninterrupted one."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from datamodules.atomic import TEMPORARY, StoreError, atomic_file, sweep
from datamodules.clip_store import ClipStore
from tests.datamodules.fake_corpus import write_clip_file, write_grid
from tests.datamodules.prepare import interrupted
from tests.datamodules.prepare.interrupted import TRUTH

CLIPS = {f"s{1 + n % 2}/clip{n}": 20 + n for n in range(8)}
MODULE = interrupted.__name__


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("grid")
    write_grid(root, TRUTH, CLIPS)
    write_clip_file(root / "s1/silent.mpg", [np.full((288, 368, 3), 90, np.uint8)] * 20, None)
    return root


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """The store of an uninterrupted run, and how long it took, s."""
    store = tmp_path_factory.mktemp("whole")
    started = time.monotonic()
    interrupted.prepare(corpus, store, 0)
    seconds = time.monotonic() - started
    assert len(ClipStore(store)) == len(CLIPS)
    assert {"manifest.parquet", "report.parquet", "report.html", "s1/silent.skipped.json"} < files(store).keys()
    return files(store), seconds


def finish_times(store: Path) -> list[float]:
    """When the clips of a store were written, s, in order; the folder of temporary files comes and goes beside them."""
    return sorted(path.stat().st_mtime for path in store.glob("s*/*.safetensors"))


def kill(process_group: int) -> None:
    with suppress(ProcessLookupError):  # it was done before
        os.killpg(process_group, signal.SIGKILL)


def test_killed_twice_and_resumed(corpus, whole, tmp_path):
    expected, _ = whole
    command = [sys.executable, "-m", MODULE, str(corpus), str(tmp_path), "0"]
    for clips, share in ((2, 0.3), (4, 0.7)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout.readline() == b"begun\n"
            deadline = time.monotonic() + 60
            while len(written := finish_times(tmp_path)) < clips:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(share * (written[-1] - written[-2]))  # somewhere within the next clip
            kill(process.pid)
        assert "manifest.parquet" not in files(tmp_path)
    interrupted.prepare(corpus, tmp_path, 0)
    assert files(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_killed_with_its_workers_at_any_moment(corpus, whole, tmp_path, moment):
    expected, seconds = whole
    start_of_workers = 6.0  # s
    command = [sys.executable, "-m", MODULE, str(corpus), str(tmp_path), "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout.readline() == b"begun\n"
        time.sleep(np.random.default_rng(moment).uniform(0, start_of_workers + seconds))
        kill(process.pid)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert files(tmp_path) == expected


def test_workers_end_with_a_parent_that_is_killed_alone(corpus, tmp_path):
    command = [sys.executable, "-m", MODULE, str(corpus), str(tmp_path), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"begun\n"
        deadline = time.monotonic() + 60
        while not any((tmp_path / speaker).exists() for speaker in ("s1", "s2")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    while _group_is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _group_is_alive(process.pid)
    assert "manifest.parquet" not in files(tmp_path)


def _group_is_alive(process_group: int) -> bool:
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return False
    return True


def test_leftovers_of_the_dead_go_and_files_in_work_stay(corpus, whole, tmp_path):
    with atomic_file(tmp_path, tmp_path / "s1/in_work.bin") as file:
        left_over = tmp_path / TEMPORARY / "left_over"
        left_over.write_bytes(b"half a clip")
        assert sweep(tmp_path) == 1
        assert not left_over.exists()
        file.write(b"whole")
    assert files(tmp_path) == {"s1/in_work.bin": b"whole"}
    assert not (tmp_path / TEMPORARY).exists()


def test_writers_that_remove_the_empty_folder_of_temporary_files_do_not_trip_one_another(tmp_path, monkeypatch):
    """One writer's `mkdir` may find the folder there, and look again when another has just removed it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def write(name: int) -> None:
        for _ in range(1000):
            with atomic_file(tmp_path, tmp_path / f"{name}.bin") as file:
                file.write(b"whole")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert files(tmp_path) == {f"{name}.bin": b"whole" for name in range(4)}
    (tmp_path / TEMPORARY).write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be written"), atomic_file(tmp_path, tmp_path / "more.bin"):
        pass


def test_a_writer_waits_for_a_sweep_that_has_its_new_file_in_hand(tmp_path, monkeypatch):
    """A sweep may come between a file's creation and its lock: the writer then takes another file."""
    make = tempfile.mkstemp
    swept = []

    def make_and_be_swept(*arguments, **keywords):
        made, name = make(*arguments, **keywords)
        if not swept:
            swept.append(name)
            held = os.open(name, os.O_RDWR)
            fcntl.flock(held, fcntl.LOCK_EX)
            threading.Timer(0.1, lambda: (os.unlink(name), os.close(held))).start()
        return made, name

    monkeypatch.setattr(tempfile, "mkstemp", make_and_be_swept)
    with atomic_file(tmp_path, tmp_path / "clip.bin") as file:
        assert [file.name] != swept
        file.write(b"whole")
    assert files(tmp_path) == {"clip.bin": b"whole"}


def test_a_sweep_bears_that_the_folder_goes_meanwhile(tmp_path):
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            (tmp_path / TEMPORARY).mkdir(exist_ok=True)
            with suppress(FileNotFoundError):
                (tmp_path / TEMPORARY).rmdir()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        assert sum(sweep(tmp_path) for _ in range(1000)) == 0
    finally:
        done.set()
        other.join()
