"""What leaves the loader, beside the plainest way to make it; and how long it is waited for."""

from itertools import islice
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from datamodules import loader
from datamodules.batch import NUM_FRAMES, JointBatch
from datamodules.clip_store import ClipStore
from datamodules.corpus_module import SEGMENT
from datamodules.loader import BatchLoader
from datamodules.sampler import EpochSampler, Unit
from datamodules.windows import ClipWindows, Names
from experiments.checks.loader import fake_store
from model_zoo.functional.heatmaps import landmark_heatmap
from model_zoo.functional.masks import box_mask, noise_fields, noise_number

SEED, SIZE, BATCH = 7, 256, 16


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ClipStore:
    return fake_store(tmp_path_factory.mktemp("store"), num_clips=9)


def loaded(store: ClipStore, workers: int) -> BatchLoader:
    clips = {row.id: range(row.frames) for row in store.manifest}
    data = ClipWindows(store, clips, Names(list(clips), ["s1"]), "joint", SIZE, SEED, training=True)
    return BatchLoader(data, EpochSampler(len(data), BATCH, SEED, segment=SEGMENT), BATCH, workers)


def plain_window(store: ClipStore, clip_id: str, frame: int, number: int) -> torch.Tensor:
    """The 28 channels of one window, float32, step by step as they are defined."""
    clip = store.open(clip_id)
    past = [max(0, t) for t in range(frame - NUM_FRAMES + 1, frame + 1)]
    images = [cv2.cvtColor(cv2.imdecode(clip.jpeg(t), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for t in past]
    frames = torch.from_numpy(np.stack(images)).movedim(-1, 1) / 127.5 - 1
    noise = noise_fields(SIZE, torch.device("cpu"))[number]
    masked = torch.where(box_mask(clip.mouth_box[None], SIZE)[0], noise, frames)
    return torch.cat([masked.flatten(0, 1), landmark_heatmap(clip.landmarks[past], SIZE)[:, 0]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_what_the_plain_way_makes_of_each_sample(store, workers, dtype):
    source = loaded(store, workers)
    batches: list[JointBatch] = list(islice(source, 2))
    (epoch, samples), *_ = source.order
    for position, batch in enumerate(batches):
        video = batch.video
        stack = video.windows.stack(video.mouth_box, video.noise_number, dtype)
        for number in (0, 5, BATCH - 1):
            sample = int(samples[position * BATCH + number])
            clip_id, frame = source.data.clip_ids[int(video.clip[number])], int(video.frame[number])
            assert sample == int(video.clip[number]) * store.row(clip_id).frames + frame
            expected = plain_window(store, clip_id, frame, noise_number(SEED, epoch, sample)).to(dtype)
            torch.testing.assert_close(stack[number], expected, atol=0, rtol=0)
            assert torch.equal(video.target[number], plain_target(store, clip_id, frame))


def plain_target(store: ClipStore, clip_id: str, frame: int) -> torch.Tensor:
    image = cv2.imdecode(store.open(clip_id).jpeg(frame), cv2.IMREAD_COLOR)[..., ::-1]
    return torch.from_numpy(image.copy()).movedim(-1, 0) / 127.5 - 1


class Samples(list):
    def cut(self, start: int, stop: int) -> list:
        return self[start:stop]


def test_waiting_is_what_loading_takes_where_nothing_runs_beside_it(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loader.time, "perf_counter", lambda: clock.now)

    def read(unit: Unit) -> Samples:
        clock.now += 3.0
        return Samples(unit.samples.tolist())

    units = [Unit(0, np.arange(8)), Unit(0, np.arange(8, 16))]
    source = BatchLoader(SimpleNamespace(__getitems__=read), units, batch_size=4)
    seen = []
    for batch in source:
        clock.now += 10.0  # a step
        seen += batch
    assert seen == list(range(16))
    assert source.waited == 2 * 3.0
