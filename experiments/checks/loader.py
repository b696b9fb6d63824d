"""Topic `loader`: windows a second, beside a loader that reads a jpg file a frame and makes its MFCC on demand.

A window counts when its 28 channels at 256 px exist in a contiguous bf16 batch, with its MFCC, its expression and what
it is scored by. The files are in the page cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules import clip_store
from datamodules.batch import NUM_FRAMES, JointBatch
from datamodules.clip_store import ClipData, ClipStore, write_clip
from datamodules.corpus_module import SEGMENT
from datamodules.crop_codec import encode_crop
from datamodules.loader import BatchLoader
from datamodules.manifest import ClipRow, write_manifest
from datamodules.sampler import EpochSampler
from datamodules.windows import ClipWindows, Names
from experiments.checks.figure import Figure, Materials, at_least, told
from model_zoo.functional.heatmaps import landmark_heatmap
from model_zoo.functional.mfcc import mfcc

SIZE, BATCH, WORKERS = 256, 16, 2
CLIPS, MANY_CLIPS, FRAMES = 64, 1024, 75  # of GRID's length
WARM_UP, MEASURED = 256, 512  # batches; as many as are loaded ahead come first and are left over, or they would count
PLAIN_MEASURED = 12  # batches of the slow one
ALTERNATIONS = 3  # of the two corpora, whose best rates are compared: the machine's own speed moves by more
CLIPS_A_BATCH = 8  # at least
BOX = (55.0, 123.0, 196.0, 222.0)  # a mouth box of GRID, px
PICTURES = 48  # different crops of some 37 kB each, more than the 25 of GRID's faces


class Rate(NamedTuple):
    """How fast batches came.

    Attributes:
        windows: a second.
        clips: fewest clips of a batch.
    """

    windows: float
    clips: int


def measure(materials: Materials) -> Iterator[Figure]:
    """Windows a second with two threads, the ratio to the plain loader, and the rate on a larger corpus."""
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few, many = (
            fake_store(root / str(count), count) for count in (CLIPS, MANY_CLIPS if materials.full else 4 * CLIPS)
        )
        ours = our_rate(few)
        write_plain(few, root / "plain")
        plain = plain_rate(root / "plain")
        yield at_least("windows a second, 28 channels at 256 px, 2 threads", ours.windows, 1000, "{:.0f}")
        yield at_least("clips in each batch of 16", ours.clips, CLIPS_A_BATCH, "{:.0f}")
        yield at_least("times the rate of jpg files and MFCC on demand", ours.windows / plain, 10, "{:.1f}")
        yield told("CPU time a window, one process", f"{1e3 * cpu_seconds(few):.2f} ms")
        with open_clips(CLIPS):  # so that the larger corpus opens its clips again and again
            pairs = [(our_rate(many).windows, our_rate(few).windows) for _ in range(ALTERNATIONS)]
            ratio = max(large for large, _ in pairs) / max(small for _, small in pairs)
        yield at_least(f"rate with {len(many)} clips over that with {len(few)}, {CLIPS} open at once", ratio, 0.9)


@contextmanager
def one_thread() -> Iterator[None]:
    """The loader threads take the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def open_clips(count: int) -> Iterator[None]:
    """Clips that a store keeps open."""
    before, clip_store.OPEN_CLIPS = clip_store.OPEN_CLIPS, count
    try:
        yield
    finally:
        clip_store.OPEN_CLIPS = before


def our_rate(store: ClipStore, measured: int = MEASURED) -> Rate:
    """The loader with its threads, and the generator's input made of its batches."""
    batches = iter(our_loader(store, WORKERS))
    memory = torch.empty(BATCH, 4 * NUM_FRAMES, SIZE, SIZE, dtype=torch.bfloat16)
    fewest = min(_assemble(batch, memory) for batch in islice(batches, warm_up(store)))
    start, count = time.perf_counter(), 0
    for batch in islice(batches, measured):
        fewest = min(fewest, _assemble(batch, memory))
        count += len(batch)
    return Rate(count / (time.perf_counter() - start), fewest)


def warm_up(store: ClipStore) -> int:
    """Batches before the measurement: every clip is met, for what holds for a whole clip is worked out once."""
    return max(WARM_UP, len(store) * FRAMES // BATCH)


def cpu_seconds(store: ClipStore, measured: int = MEASURED // 4) -> float:
    """CPU time a window of all that is done, in one process."""
    batches = iter(our_loader(store, workers=0))
    memory = torch.empty(BATCH, 4 * NUM_FRAMES, SIZE, SIZE, dtype=torch.bfloat16)
    for batch in islice(batches, WARM_UP):
        _assemble(batch, memory)
    start = time.process_time()
    for batch in islice(batches, measured):
        _assemble(batch, memory)
    return (time.process_time() - start) / (measured * BATCH)


def our_loader(store: ClipStore, workers: int) -> Iterable[Any]:
    """As a joint training run has it, over many epochs."""
    clips = {row.id: range(row.frames) for row in store.manifest}
    data = ClipWindows(store, clips, Names(list(clips), ["s1"]), "joint", SIZE, seed=0, training=True)
    length = BATCH * (warm_up(store) + MEASURED + WARM_UP)
    return BatchLoader(
        data, EpochSampler(len(data), BATCH, 0, samples_per_epoch=length, segment=SEGMENT), BATCH, workers
    )


def _assemble(batch: JointBatch, memory: torch.Tensor) -> int:
    video = batch.video
    stack = video.windows.stack(video.mouth_box, video.noise_number, torch.bfloat16, out=memory[: len(batch)])
    assert stack.shape == (len(batch), 28, SIZE, SIZE)
    assert stack.is_contiguous()
    return len(video.clip.unique())


class PlainWindows(Dataset):
    """What one would write first: seven jpg files and the sound of a clip, read for every window."""

    def __init__(self, root: Path) -> None:
        self.clips = sorted(root.iterdir())

    def __len__(self) -> int:
        return len(self.clips) * FRAMES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        clip, frame = self.clips[index // FRAMES], index % FRAMES
        window = [max(0, past) for past in range(frame - NUM_FRAMES + 1, frame + 1)]
        frames = [np.asarray(cv2.imread(str(clip / f"{past:03d}.jpg")))[..., ::-1] for past in window]
        pixels = torch.from_numpy(np.stack(frames).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        x0, y0, x1, y1 = map(int, BOX)
        pixels[:, :, y0:y1, x0:x1] = torch.rand(3, y1 - y0, x1 - x0) * 2 - 1
        heatmaps = landmark_heatmap(torch.from_numpy(np.load(clip / "landmarks.npy")[window]), SIZE)[:, 0]
        features = mfcc(torch.from_numpy(np.load(clip / "sound.npy").astype(np.float32) / 32768))
        padded = torch.nn.functional.pad(features, (0, 0, 104, 20))
        return torch.cat([pixels.flatten(0, 1), heatmaps]), padded[4 * frame : 4 * frame + 124]


def plain_rate(root: Path) -> float:
    """Windows a second of the plain loader with as many processes as ours has threads."""
    cv2.setNumThreads(0)
    loader: Iterable = DataLoader(
        PlainWindows(root), BATCH, shuffle=True, num_workers=WORKERS, generator=torch.Generator().manual_seed(0)
    )
    batches = iter(loader)
    for stack, _ in islice(batches, 2 * WORKERS):
        stack.to(torch.bfloat16)
    start, count = time.perf_counter(), 0
    for stack, _ in islice(batches, PLAIN_MEASURED):
        count += len(stack.to(torch.bfloat16))
    return count / (time.perf_counter() - start)


def fake_store(root: Path, num_clips: int) -> ClipStore:
    """A store of random pictures with the statistics of photographs, and landmarks of one mouth."""
    rng = np.random.default_rng(0)
    jpegs = [encode_crop(picture(rng)) for _ in range(PICTURES)]
    turn = torch.arange(68) * (2 * torch.pi / 68)
    face = torch.stack([128 + 60 * turn.cos(), 170 + 40 * turn.sin()], dim=1)
    rows = []
    for number in range(num_clips):
        landmarks = face + torch.from_numpy(rng.normal(0, 1, (FRAMES, 68, 2)).astype(np.float32))
        sound = torch.from_numpy(rng.integers(-9000, 9000, 640 * FRAMES, np.int16))
        data = ClipData(
            crops=[jpegs[rng.integers(PICTURES)] for _ in range(FRAMES)],
            mean_crop=jpegs[0],
            landmarks=landmarks,
            landmarks_detected=landmarks,
            expression=torch.zeros(FRAMES, 29),
            pose=torch.zeros(FRAMES, 6),
            shape=torch.zeros(199),
            valid=torch.ones(FRAMES, dtype=torch.bool),
            sound=sound,
            mfcc=torch.zeros(4 * FRAMES, 13),
            crop_transform=torch.zeros(FRAMES, 2, 3),
            mouth_box=torch.tensor(BOX),
            mouth_region=torch.tensor(BOX),
        )
        rows.append(_row(f"s1/clip{number:05d}"))
        write_clip(root, rows[-1], data)
    write_manifest(root, rows)
    return ClipStore(root)


def picture(rng: np.random.Generator) -> np.ndarray:
    """Mostly gray noise whose amplitude falls with frequency as in photographs, with the grain of a camera, RGB."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")) + 1 / SIZE
    noise = rng.normal(size=(SIZE, SIZE)) + 0.15 * rng.normal(size=(3, SIZE, SIZE))
    planes = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.6, axes=(1, 2))
    image = 128 + 40 * planes / planes.std() + rng.normal(0, 0.5, (SIZE, SIZE))
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def write_plain(store: ClipStore, root: Path) -> None:
    """The same clips as folders of jpg files, with sound and landmarks beside them."""
    for row in store.manifest:
        clip, folder = store.open(row.id), root / row.id.replace("/", "_")
        folder.mkdir(parents=True)
        for frame in range(row.frames):
            (folder / f"{frame:03d}.jpg").write_bytes(clip.jpeg(frame).tobytes())
        np.save(folder / "sound.npy", clip.sound.numpy())
        np.save(folder / "landmarks.npy", clip.landmarks.numpy())


def _row(clip_id: str) -> ClipRow:
    text: dict[str, Any] = dict.fromkeys(("transcript", "sha256", "consent_reference", "settings", "versions"), "")
    numbers: dict[str, Any] = dict.fromkeys(("start", "residual", "noise", "offset", "offset_confidence"), 0.0)
    counts: dict[str, Any] = {
        "part": 1,
        "parts": 1,
        "frames": FRAMES,
        "valid_frames": FRAMES,
        "source_bytes": 0,
        "faces": 1,
    }
    return ClipRow(
        id=clip_id, source=clip_id, speaker="s1", view="front", consent="synthetic", jpeg_quality=95,
        **text, **numbers, **counts,
    )  # fmt: skip
