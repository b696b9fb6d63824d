"""Seconds that the loader was waited for, over seconds of the steps."""

from types import SimpleNamespace

import pytest

from lightning_modules.callbacks import loader_wait
from lightning_modules.callbacks.loader_wait import LoaderWait

LOG_EVERY = 5


def test_share_of_each_stretch_between_two_logs(monkeypatch):
    clock, source, logged = SimpleNamespace(now=100.0), SimpleNamespace(waited=0.0), []
    monkeypatch.setattr(loader_wait.time, "perf_counter", lambda: clock.now)
    trainer = SimpleNamespace(train_dataloader=source)
    module = SimpleNamespace(log=lambda name, value, **_: logged.append((name, value)), logs_now=False)
    callback = LoaderWait()
    callback.on_train_start(trainer, module)
    for batch in range(3 * LOG_EVERY):
        wait = 4.0 if batch == 0 else 0.1 if batch < LOG_EVERY + 1 else 0.0
        source.waited, clock.now = source.waited + wait, clock.now + wait
        module.logs_now = (batch + 1) % LOG_EVERY == 0
        callback.on_train_batch_start(trainer, module, [0, 1], batch)
        clock.now += 2.0
        callback.on_train_batch_end(trainer, module, None, [0, 1], batch)
        clock.now += 50.0  # validation is no step
    assert {name for name, _ in logged} == {"train/loader_wait"}
    assert [value for _, value in logged] == pytest.approx([(4.0 + 4 * 0.1) / (4 * 2.0), 0.1 / (5 * 2.0), 0.0])


def test_other_loaders_are_not_measured():
    trainer = SimpleNamespace(train_dataloader=[1, 2])
    callback = LoaderWait()
    callback.on_train_start(trainer, None)
    callback.on_train_batch_start(trainer, None, [1], 0)
    callback.on_train_batch_end(trainer, None, None, [1], 0)
