"""What a training step costs beside the same networks and losses in a bare PyTorch loop, and how long it awaits data.

Both steps are taken in turn on the same batches of scale `demo`, the smallest one and so the one where overhead weighs
most. The step of Lightning holds all that belongs to it: the loop, callbacks, moving average, learning rates, logging.
Time is that of the training thread alone, on one core, so that other processes don't count.
"""

import copy
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from experiments import build
from experiments.build_data import build_data, build_face
from experiments.checks.loader import fake_store
from experiments.command_line import check_overrides
from experiments.schema import Config, Task, register
from lightning_modules.base import weighted_sum
from lightning_modules.render_objective import Shown
from lightning_modules.renderer import RendererModule

WARM_UP, MEASURED = 8, 40  # steps; the penalty comes every 8th, logging every 10th
MOST_OVERHEAD, MOST_WAIT = 0.05, 0.02  # of a step


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    register()
    store = tmp_path_factory.mktemp("store")
    fake_store(store, num_clips=16)
    chosen = ["+exp=grid_renderer", "loss=paper", "loss.render.vgg=0", f"data.store={store}", "logger=csv"]
    return OmegaConf.to_object(check_overrides([*chosen, f"trainer.max_steps={WARM_UP + MEASURED}"]))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class BareLoop:
    """Eq. 4 by hand, on copies of the networks."""

    def __init__(self, module: RendererModule) -> None:
        self.renderer, self.render = copy.deepcopy(module.renderer), copy.deepcopy(module.render)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for network in (self.renderer, self.render.discriminator)
        ]

    def step(self, batch, number: int) -> None:
        render = self.render
        shown = Shown(self.renderer(batch.windows, batch.mouth_box, batch.noise_number), batch.target)
        judged = render.discriminator_terms(shown, number % render.penalty_every == 0)
        self._descend(1, weighted_sum(judged, render.discriminator_weights()))
        render.discriminator.requires_grad_(False)
        self._descend(0, weighted_sum(render.generator_terms(shown), render.weights))
        render.discriminator.requires_grad_(True)

    def _descend(self, which: int, loss: torch.Tensor) -> None:
        self.optimizers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[which].step()


class InTurn(pl.Callback):
    """After each batch of Lightning's, the same batch by hand; the last callback, so that the others count."""

    def __init__(self, bare: BareLoop) -> None:
        self.bare = bare
        self.seconds: list[tuple[float, float]] = []
        self._since: float | None = None

    def on_train_batch_start(self, trainer, module, batch, batch_index) -> None:
        """What belongs to the data is done once and kept: whoever comes first would pay for both."""
        before = time.thread_time()
        bank, dtype = batch.windows.bank, module.renderer.dtype
        bank.rgb(dtype), bank.heatmaps(dtype)
        if self._since is not None:
            self._since += time.thread_time() - before

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        now = time.thread_time()
        self.bare.step(batch, batch_index)
        after = time.thread_time()
        if self._since is not None:
            self.seconds.append((now - self._since, after - now))
        self._since = after


class Waiting(pl.Callback):
    """Seconds that the loader was waited for, and that training took, after the first batches."""

    def on_train_batch_start(self, trainer, module, batch, batch_index) -> None:
        if batch_index == WARM_UP:
            self._since = time.perf_counter(), trainer.train_dataloader.waited

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        if batch_index >= WARM_UP:
            began, waited = self._since
            self.share = (trainer.train_dataloader.waited - waited) / (time.perf_counter() - began)


def train(config: Config, folder: Path, callback) -> pl.Callback:
    """A run without validation; `callback` is made of the module."""
    face = build_face(config)
    data = build_data(config, Task.renderer, face)
    data.prepare_data()
    data.setup("fit")
    module = build.build_module(config, Task.renderer, data, face, build.Trained())
    config.trainer.val_every = config.trainer.checkpoint_every = 10 * (WARM_UP + MEASURED)
    loggers = build.build_loggers(config, Task.renderer, folder, "bench", [], "disabled")
    trainer = build.build_trainer(config, Task.renderer, module, data, folder, loggers)
    made = callback(module)
    trainer.callbacks.append(made)
    trainer.fit(module, data)
    return made


def undisturbed(seconds: Sequence[float]) -> float:
    """Sum over the last steps, each as long as the shortest of its kind: with a penalty, logged, after a logged one."""
    numbers = range(WARM_UP + MEASURED - len(seconds), WARM_UP + MEASURED)
    kinds = [(number % 8 == 0, number % 10 == 9, number % 10 == 0) for number in numbers]
    shortest: dict[tuple, float] = {}
    for kind, each in zip(kinds, seconds, strict=True):
        shortest[kind] = min(each, shortest.get(kind, each))
    return sum(shortest[kind] for kind in kinds)


def test_overhead_of_a_step(benchmark, config, tmp_path):
    timed = benchmark.pedantic(lambda: train(config, tmp_path, lambda module: InTurn(BareLoop(module))), rounds=1)
    ours, bare = (undisturbed(times[-MEASURED:]) for times in zip(*timed.seconds, strict=True))
    overhead = ours / bare - 1
    benchmark.extra_info["overhead"] = overhead
    print(f"\n{benchmark.name}: {1e3 * ours / MEASURED:.0f} ms a step, {100 * overhead:+.1f}% of a bare loop")
    assert len(timed.seconds) >= MEASURED
    assert overhead < MOST_OVERHEAD


def test_wait_for_the_loader(benchmark, config, tmp_path):
    share = benchmark.pedantic(lambda: train(config, tmp_path, lambda _: Waiting()), rounds=1).share
    benchmark.extra_info["wait"] = share
    print(f"\n{benchmark.name}: {100 * share:.2f}% of the time")
    assert share < MOST_WAIT
