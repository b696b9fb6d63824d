"""Datasets over a clip store: a sample is a frame t with the audio and the frames around it.

Only frames whose seven frames all carry a fit are samples (before the start frame 0 is repeated). Shape legend as in
`datamodules.batch`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batch import NUM_FRAMES, JointBatch, SpeechBatch, VideoBatch
from datamodules.clip_store import Clip, ClipStore
from datamodules.sampler import SampleKey
from model_zoo.functional.masks import noise_field
from model_zoo.functional.mfcc import audio_window

Kind = Literal["speech", "video", "joint"]
KINDS: tuple[Kind, ...] = ("speech", "video", "joint")


class Names(NamedTuple):
    """Names behind the integers of a batch: the position is the index."""

    clips: Sequence[str]
    speakers: Sequence[str]


class ClipWindows(Dataset):
    """Samples of some clips of a store.

    Args:
        store: the prepared corpus.
        clip_ids: clips to draw from, in order.
        names: what `clip` and `speaker` of a sample index.
        kind: "speech" (one frame, no pixels), "video" (seven frames, no sound) or "joint".
        crop_size: side of the crops, px.
        seed: of noise and `other_frame`.
        training: randomness from (seed, epoch, sample) rather than one noise field a clip.

    Raises:
        ValueError: there is no such kind.
    """

    def __init__(
        self,
        store: ClipStore,
        clip_ids: Sequence[str],
        names: Names,
        kind: Kind,
        crop_size: int,
        seed: int,
        training: bool,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"unknown kind of sample {kind!r}: expected one of {', '.join(KINDS)}")
        self.store, self.clip_ids, self.kind = store, list(clip_ids), kind
        self.crop_size, self.seed, self.training = crop_size, seed, training
        self.num_frames = 1 if kind == "speech" else NUM_FRAMES
        self._clip_number = {clip: number for number, clip in enumerate(names.clips)}
        self._speaker_number = {speaker: number for number, speaker in enumerate(names.speakers)}
        frames = [self._sample_frames(clip) for clip in self.clip_ids]
        self._frame = np.concatenate([np.empty(0, np.int64), *frames])
        self._stop = np.cumsum([len(frame) for frame in frames], dtype=np.int64)

    def _sample_frames(self, clip_id: str) -> np.ndarray:
        row = self.store.row(clip_id)
        if row.valid_frames == row.frames:
            return np.arange(row.frames)
        valid = self.store.open(clip_id).valid.numpy()
        first = np.maximum(np.arange(len(valid)) - self.num_frames + 1, 0)
        missing = np.concatenate([[0], np.cumsum(~valid)])
        return np.flatnonzero(missing[first] == missing[1:])

    def __len__(self) -> int:
        return len(self._frame)

    def clip_samples(self) -> list[tuple[int, int]]:
        """(start, stop) of the samples of each clip, in order."""
        return list(zip([0, *self._stop[:-1].tolist()], self._stop.tolist(), strict=True))

    def __getitem__(self, key: SampleKey | int) -> SpeechBatch | VideoBatch | JointBatch:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[SampleKey | int]) -> list[SpeechBatch | VideoBatch | JointBatch]:
        """Samples of a whole batch: crops that several of them share are decoded once."""
        crops = _CropCache(self.crop_size)
        return [self._sample(*(key if isinstance(key, tuple) else (0, key)), crops) for key in keys]

    def _sample(self, epoch: int, index: int, crops: _CropCache) -> SpeechBatch | VideoBatch | JointBatch:
        clip = self.store.open(self.clip_ids[int(np.searchsorted(self._stop, index, side="right"))])
        frame = int(self._frame[index])
        if self.kind == "speech":
            return self._speech(clip, frame)
        video = self._video(clip, frame, epoch, index, crops)
        return video if self.kind == "video" else JointBatch(self._speech(clip, frame), video)

    def _window(self, frame: int) -> list[int]:
        return [max(0, past) for past in range(frame - self.num_frames + 1, frame + 1)]

    def _speech(self, clip: Clip, frame: int) -> SpeechBatch:
        window = self._window(frame)
        return SpeechBatch(
            mfcc=audio_window(clip.mfcc, frame, self.num_frames).clone(),
            expression=clip.expression[window],
            pose=clip.pose[window],
            shape=clip.shape,
            landmarks=clip.landmarks[window],
            speaker=torch.tensor(self._speaker_number.get(clip.row.speaker, -1)),
            clip=torch.tensor(self._clip_number[clip.id]),
            frame=torch.tensor(frame),
        )

    def _video(self, clip: Clip, frame: int, epoch: int, index: int, crops: _CropCache) -> VideoBatch:
        window = self._window(frame)
        seed = (self.seed, epoch, index) if self.training else (self.seed, clip.id)
        return VideoBatch(
            frames=to_image(np.stack([crops.get(clip, past) for past in window])),
            landmarks=clip.landmarks[window],
            mouth_box=clip.mouth_box,
            mouth_region=clip.mouth_region,
            noise=noise_field(*seed, size=self.crop_size),
            mean_frame=to_image(clip.mean_crop(self.crop_size)),
            other_frame=to_image(crops.get(clip, other_frame(clip.valid, frame, *seed))),
            clip=torch.tensor(self._clip_number[clip.id]),
            frame=torch.tensor(frame),
        )


class _CropCache:
    """Crops that were decoded for one batch."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._crops: dict[tuple[str, int], np.ndarray] = {}

    def get(self, clip: Clip, frame: int) -> UInt8[np.ndarray, "S S 3"]:
        if (clip.id, frame) not in self._crops:
            self._crops[clip.id, frame] = clip.crop(frame, self._size)
        return self._crops[clip.id, frame]


def to_image(crop: UInt8[np.ndarray, "*T H W 3"]) -> Float[Tensor, "*T 3 H W"]:
    """uint8 RGB of the disk as the networks want it, in [-1, 1]."""
    return torch.from_numpy(crop).movedim(-1, -3).to(torch.float32).div_(127.5).sub_(1.0)


def other_frame(valid: Bool[Tensor, "T"], frame: int, *seed: int | str) -> int:
    """A valid frame of the clip other than `frame`, drawn by the seed; `frame` itself if there is no other."""
    others = [other for other in valid.nonzero().ravel().tolist() if other != frame]
    digest = hashlib.blake2b("\0".join(map(str, (*seed, "other", frame))).encode(), digest_size=8).digest()
    return others[int.from_bytes(digest) % len(others)] if others else frame
