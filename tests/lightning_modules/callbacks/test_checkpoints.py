from types import SimpleNamespace

import pytest

from lightning_modules.callbacks import checkpoints
from lightning_modules.callbacks.checkpoints import LastCheckpoint


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test moves."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now.seconds)
    return now


def batches_of_saves(callback: LastCheckpoint, clock, world_size: int) -> list[int]:
    """After which of 20 batches of a minute each a checkpoint was written."""
    module, saved = SimpleNamespace(batches_done=0), []
    trainer = SimpleNamespace(world_size=world_size, save_checkpoint=lambda path: saved.append(module.batches_done))
    for _ in range(20):
        clock.seconds += 60
        module.batches_done += 1
        callback.on_train_batch_end(trainer, module, None, None, 0)
    return saved


def test_slow_batches_are_saved_by_the_clock(tmp_path, clock):
    assert batches_of_saves(LastCheckpoint(tmp_path, every=16, seconds=299), clock, 1) == [5, 10, 15, 16]


def test_several_processes_save_by_the_count_alone(tmp_path, clock):
    assert batches_of_saves(LastCheckpoint(tmp_path, every=8, seconds=299), clock, 2) == [8, 16]
