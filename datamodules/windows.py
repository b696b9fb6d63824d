"""Datasets over a clip store: a sample is a frame t with the audio and the frames around it.

Only frames whose seven frames all carry a fit are samples (before the start frame 0 is repeated). The samples of a unit
are read together: every crop that any of them needs is decoded once. Shape legend as in `datamodules.batch`, and N
frames of a bank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batch import NUM_FRAMES, JointBatch, SpeechBatch, VideoBatch
from datamodules.clip_store import Clip, ClipStore
from datamodules.hearing import Hearing
from datamodules.sampler import Unit
from datamodules.seeing import STRETCH, Seeing, hidden_from, mouth_gallery, named_draws
from model_zoo.functional.masks import noise_number
from model_zoo.render.frame_windows import FrameBank, FrameWindows, take_memory

Kind = Literal["speech", "video", "joint"]
KINDS: tuple[Kind, ...] = ("speech", "video", "joint")
Batch = SpeechBatch | VideoBatch | JointBatch
OTHER_STRETCH = 32  # frames that share, but for themselves, one draw of `other_frame` in training


class Names(NamedTuple):
    """Names behind the integers of a batch: the position is the index."""

    clips: Sequence[str]
    speakers: Sequence[str]


class ClipWindows(Dataset):
    """Samples of some clips of a store.

    Args:
        store: the prepared corpus.
        clips: frames to draw from each clip, in order of the clips; the frames before them may be looked at.
        names: what `clip` and `speaker` of a sample index.
        kind: "speech" (one frame, no pixels), "video" (seven frames, no sound) or "joint".
        crop_size: side of the crops, px.
        seed: of noise and `other_frame`.
        training: randomness from (seed, epoch, sample) rather than one noise field a clip.
        hearing: how the speech part is made; the stored MFCC as they are by default.
        seeing: how the video part is made; frames and landmarks as they are stored by default.

    Raises:
        ValueError: there is no such kind.
    """

    def __init__(
        self,
        store: ClipStore,
        clips: Mapping[str, range],
        names: Names,
        kind: Kind,
        crop_size: int,
        seed: int,
        training: bool,
        hearing: Hearing | None = None,
        seeing: Seeing | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"unknown kind of sample {kind!r}: expected one of {', '.join(KINDS)}")
        self.store, self.kind, self.crop_size = store, kind, crop_size
        self.clip_ids, self._ranges = list(clips), list(clips.values())
        self.seed, self.training = seed, training
        self.hearing, self.seeing = hearing or Hearing(), seeing or Seeing()
        alone = self.hearing.num_frames if training else 1
        self.num_frames = alone if kind == "speech" else NUM_FRAMES
        self._clip_number = {clip: number for number, clip in enumerate(names.clips)}
        self._speaker_number = {speaker: number for number, speaker in enumerate(names.speakers)}
        frames = [self._sample_frames(*item) for item in clips.items()]
        self._frame = np.concatenate([np.empty(0, np.int64), *frames])
        self._stop = np.cumsum([len(frame) for frame in frames], dtype=np.int64)
        self._galleries: dict[str, Tensor] = {}

    def _sample_frames(self, clip_id: str, frames: range) -> np.ndarray:
        chosen = np.arange(frames.start, frames.stop)
        row = self.store.row(clip_id)
        if row.valid_frames == row.frames:
            return chosen
        missing = np.concatenate([[0], np.cumsum(~self.store.open(clip_id).valid.numpy())])
        return chosen[missing[np.maximum(chosen - self.num_frames + 1, 0)] == missing[chosen + 1]]

    def __len__(self) -> int:
        return len(self._frame)

    def clip_samples(self) -> list[tuple[int, int]]:
        """(start, stop) of the samples of each clip, in order."""
        return list(zip([0, *self._stop[:-1].tolist()], self._stop.tolist(), strict=True))

    def __getitem__(self, sample: int) -> Batch:
        """One sample of the first epoch, as a batch of one."""
        return self.__getitems__(Unit(0, np.array([sample])))

    def __getitems__(self, unit: Unit) -> Batch:
        """All samples of a unit as one batch, which is cut into the unit's batches."""
        clips = np.searchsorted(self._stop, unit.samples, side="right")
        stretches = (
            self._frame[unit.samples] // STRETCH if self.training and self.seeing.draws else np.zeros_like(clips)
        )
        places = np.stack([clips, stretches])
        parts = [
            _Part(self, int(clip), int(stretch), np.flatnonzero((clips == clip) & (stretches == stretch)), unit)
            for clip, stretch in np.unique(places, axis=1).T
        ]
        if self.kind == "speech":
            return self._speech(parts)
        video = self._video(parts)
        return video if self.kind == "video" else JointBatch(self._speech(parts), video)

    def _speech(self, parts: list[_Part]) -> SpeechBatch:
        return SpeechBatch(
            mfcc=_in_order(parts, [part.mfcc() for part in parts]),
            expression=_in_order(parts, [part.clip.expression[part.windows] for part in parts]),
            pose=_in_order(parts, [part.clip.pose[part.windows] for part in parts]),
            shape=_in_order(parts, [part.each(part.clip.shape) for part in parts]),
            landmarks=_in_order(parts, [part.clip.landmarks[part.windows] for part in parts]),
            speaker=_in_order(
                parts, [part.each(torch.tensor(self._speaker_number.get(part.clip.row.speaker, -1))) for part in parts]
            ),
            clip=self._numbers(parts),
            frame=_in_order(parts, [part.frames for part in parts]),
            silent=_in_order(parts, [self.hearing.marks(part.clip).silent[part.windows] for part in parts]),
            closed_gap=_in_order(parts, [part.each(self.hearing.marks(part.clip).closed_gap) for part in parts]),
            clip_mean=_in_order(parts, [part.each(self.hearing.marks(part.clip).mean) for part in parts]),
            utterance=_in_order(parts, [part.utterance() for part in parts]),
        )

    def _video(self, parts: list[_Part]) -> VideoBatch:
        seen = [part.windows.unique() for part in parts]
        beside = [torch.cat([part.others()[:, None], part.references()], 1) for part in parts]
        # The bank: what windows hold, clip after clip, then what is only seen beside them, then the mean crops.
        alone = [other[~torch.isin(other, frames)].unique() for other, frames in zip(beside, seen, strict=True)]
        num_seen, num_alone = (int(sum(map(len, frames))) for frames in (seen, alone))
        num_crops = num_seen + num_alone + len(parts)
        memory = take_memory(num_crops, 3, self.crop_size, self.crop_size, dtype=torch.uint8)
        crops = memory[:num_crops]
        windows, beside_rows, mean_rows = [], [], []
        first, first_alone = 0, num_seen
        for number, part in enumerate(parts):
            part.decode(seen[number], crops[first:])
            part.decode(alone[number], crops[first_alone:])
            part.decode_mean(crops[num_seen + num_alone + number])
            windows.append(first + torch.searchsorted(seen[number], part.windows))
            in_window = torch.isin(beside[number], seen[number])
            row, row_alone = (torch.searchsorted(frames, beside[number]) for frames in (seen[number], alone[number]))
            beside_rows.append(torch.where(in_window, first + row, first_alone + row_alone))
            mean_rows.append(part.each(torch.tensor(num_seen + num_alone + number)))
            first, first_alone = first + len(seen[number]), first_alone + len(alone[number])
        landmarks = torch.cat([part.landmarks(frames) for part, frames in zip(parts, seen, strict=True)])
        rows_beside = _in_order(parts, beside_rows)
        references = rows_beside[:, 1:] if self.seeing.looks_beside else None
        shapes = _in_order(parts, [part.gallery_landmarks() for part in parts]) if self.seeing.gallery else None
        return VideoBatch(
            windows=FrameWindows(FrameBank(crops, landmarks, memory), _in_order(parts, windows), references, shapes),
            mouth_box=_in_order(parts, [part.each(part.box(part.clip.mouth_box)) for part in parts]),
            mouth_region=_in_order(parts, [part.each(part.box(part.clip.mouth_region)) for part in parts]),
            noise_number=_in_order(parts, [part.noise_numbers() for part in parts]),
            mean_row=_in_order(parts, mean_rows),
            other_row=rows_beside[:, 0],
            clip=self._numbers(parts),
            frame=_in_order(parts, [part.frames for part in parts]),
        )

    def _numbers(self, parts: list[_Part]) -> Int[Tensor, "B"]:
        return _in_order(parts, [part.each(torch.tensor(self._clip_number[part.clip.id])) for part in parts])


class _Part:
    """The samples of a unit that lie in one clip, or, where pictures are changed, in one stretch of it.

    Attributes:
        clip: the clip.
        places: which samples of the unit they are.
        frames: t of each, (B,).
        windows: frames t-6..t of each, (B, T).
    """

    def __init__(self, data: ClipWindows, number: int, stretch: int, places: np.ndarray, unit: Unit) -> None:
        self.clip: Clip = data.store.open(data.clip_ids[number])
        self.places = places
        self.samples = unit.samples[places]
        self.frames = torch.from_numpy(data._frame[self.samples])
        self.windows = (self.frames[:, None] + torch.arange(1 - data.num_frames, 1)).clamp_min(0)
        self._data, self._epoch, self._range, self._stretch = data, unit.epoch, data._ranges[number], stretch
        seeing = data.seeing if data.training else Seeing()
        self._errors = seeing.errors
        self._change = seeing.picture.draw(self._draws("picture")) if seeing.picture is not None else None

    def _draws(self, what: str) -> np.random.Generator:
        """Random numbers of this stretch in this epoch."""
        return named_draws(self._data.seeing.seed, self._epoch, self.clip.id, self._stretch, what)

    def each(self, value: Tensor) -> Tensor:
        """The same value for every sample."""
        return value.expand(len(self.places), *value.shape)

    def mfcc(self) -> Tensor:
        """Audio windows, (B, A, C)."""
        return self._data.hearing.rows(self.clip, self.frames.tolist(), self._data.num_frames, self.draws())

    def utterance(self) -> Tensor:
        """What else is heard of the speaker, (B, U, C)."""
        return self._data.hearing.utterance(self.clip, self.frames.tolist(), self.draws(), self._range)

    def draws(self) -> list[tuple[int, int]] | None:
        """(epoch, sample) of each in training, which seed what is drawn for its sound."""
        return [(self._epoch, sample) for sample in self.samples.tolist()] if self._data.training else None

    def noise_numbers(self) -> Int[Tensor, "B"]:
        """Of each sample's noise field."""
        if not self._data.training:
            return self.each(torch.tensor(noise_number(self._data.seed, self.clip.id)))
        numbers = [noise_number(self._data.seed, self._epoch, sample) for sample in self.samples.tolist()]
        return torch.tensor(numbers)

    def _allowed(self) -> Int[np.ndarray, "N"]:
        """Fitted frames that are on this side of the split."""
        return self._range.start + np.flatnonzero(self.clip.valid.numpy()[self._range.start : self._range.stop])

    def references(self) -> Int[Tensor, "B R"]:
        """Frames that show the same mouth elsewhere."""
        if self._data.seeing.gallery:
            return self.each(self._gallery())
        return self._data.seeing.reference_frames(self.clip, self._allowed(), self.frames)

    def _gallery(self) -> Int[Tensor, "G"]:
        """The same for all samples of a clip, found once."""
        known = self._data._galleries
        if self.clip.id not in known:
            allowed = self._allowed()
            known[self.clip.id] = mouth_gallery(self.clip.landmarks, allowed, self._data.seeing.gallery)
        return known[self.clip.id]

    def gallery_landmarks(self) -> Float[Tensor, "B G 68 2"]:
        """Landmarks of the gallery, px at 256; NaN where a sample must not look."""
        gallery = self._gallery()
        landmarks = self.clip.landmarks[gallery]
        moved = landmarks if self._change is None else self._change.landmarks(landmarks)
        return self.each(moved).masked_fill(hidden_from(gallery, self.frames)[..., None, None], torch.nan)

    def others(self) -> Int[Tensor, "B"]:
        """`other_frame` of each sample, from the frames that are on this side of the split."""
        allowed = self._allowed()
        seed = (self._data.seed, self._epoch, self.clip.id) if self._data.training else (self._data.seed, self.clip.id)
        stretch = OTHER_STRETCH if self._data.training else 1  # an evaluation draws for every frame
        return torch.tensor([other_frame(allowed, frame, *seed, stretch=stretch) for frame in self.frames.tolist()])

    def decode(self, frames: Int[Tensor, "N"], into: UInt8[Tensor, "N 3 H W"]) -> None:
        """Crops of some frames."""
        for frame, planes in zip(frames.tolist(), into.numpy(), strict=False):
            cv2.split(self._changed(self.clip.crop(frame, self._data.crop_size)), list(planes))

    def decode_mean(self, into: UInt8[Tensor, "3 H W"]) -> None:
        """The clip's mean crop."""
        cv2.split(self._changed(self.clip.mean_crop(self._data.crop_size)), list(into.numpy()))

    def _changed(self, crop: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        return crop if self._change is None else self._change.picture(crop)

    def landmarks(self, frames: Int[Tensor, "N"]) -> Float[Tensor, "N 68 2"]:
        """Landmarks of some frames of the samples' windows, px at 256."""
        landmarks = self.clip.landmarks[frames]
        if self._errors is not None:
            landmarks = self._errors(self.clip, frames, self._stretch, self._draws("landmarks"))
        return landmarks if self._change is None else self._change.landmarks(landmarks)

    def box(self, box: Float[Tensor, "4"]) -> Float[Tensor, "4"]:
        """A box of the clip in the samples' pictures."""
        return box if self._change is None else self._change.box(box)


def _in_order(parts: list[_Part], values: list[Tensor]) -> Tensor:
    """One tensor of what the parts hold, in the order of the unit."""
    joined = torch.cat(values)
    order = torch.from_numpy(np.concatenate([part.places for part in parts]))
    return torch.empty_like(joined, memory_format=torch.contiguous_format).index_copy_(0, order, joined)


def other_frame(allowed: Int[np.ndarray, "N"], frame: int, *seed: int | str, stretch: int = 1) -> int:
    """One of the allowed frames (sorted) other than `frame`, drawn by the seed; `frame` itself if there is no other.

    Args:
        stretch: so many consecutive frames share a draw; only the frame that was drawn itself gets another.
    """
    place = int(np.searchsorted(allowed, frame))
    is_allowed = place < len(allowed) and bool(allowed[place] == frame)
    num_others = len(allowed) - is_allowed
    if num_others == 0:
        return frame
    name = "\0".join(map(str, (*seed, "other", frame // stretch)))
    draw = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % num_others
    return int(allowed[draw + (is_allowed and draw >= place)])
