"""Windows over shared frames, and what the generator is fed from them (§3.3.1 of Song et al. 2020).

The windows of a few segments of video overlap, so their frames are kept once, as bytes, and a window is seven row
numbers. Whatever is a function of one frame (its place on the device, its heatmap) is done once a frame; what is left
for a window is to convert seven frames and to fill the box, one pass over its memory on the CPU.

Shape legend: N frames of a bank, M <= N frames that are in windows, B windows, T = 7 frames, R reference frames, of
which Q are shown, H/W pixels of the crop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from model_zoo.functional.heatmaps import landmark_heatmap
from model_zoo.functional.masks import box_bounds, box_mask, noise_fields, noise_sequence
from model_zoo.render.window_kernels import occupied_rows, write_heatmaps, write_masked_frames

_ROWS = 64  # memory is taken in multiples, so that banks of nearly the same size can use one another's
_CPU_CHUNK, _GPU_CHUNK = 8, 64  # frames converted at once: what fits into a core's cache, into little memory
_SPARES = 8  # of a kind that are kept
_spare: dict[tuple, deque[Tensor]] = {}  # memory of banks that are gone


def take_memory(rows: int, *shape: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Unset memory, that of an earlier bank if there is one: pages that are new to the process cost more than a copy.

    Returns:
        At least `rows` rows; whoever takes it gives it back by `give_memory`, or just forgets it.
    """
    kind = (torch.device(device), dtype, shape)
    try:
        memory = _spare[kind].popleft()
    except (KeyError, IndexError):
        memory = None
    if memory is None or len(memory) < rows:
        memory = torch.empty(-(-rows // _ROWS) * _ROWS, *shape, dtype=dtype, device=device)
    return memory


def give_memory(memory: Tensor) -> None:
    """What nobody looks at any more may serve again."""
    kind = (memory.device, memory.dtype, tuple(memory.shape[1:]))
    _spare.setdefault(kind, deque(maxlen=_SPARES)).append(memory)


class FrameBank:
    """Frames that windows share. Immutable; copies and conversions are made once and kept as long as the bank.

    Args:
        crops: RGB bytes; or floats in [-1, 1] for frames that come from elsewhere than a JPEG file.
        landmarks: of the first M frames, px at 256; those that no window holds need none.
        memory: what `crops` lies in, if it came from `take_memory` and may serve another bank after this one.
    """

    def __init__(
        self,
        crops: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"],
        landmarks: Float[Tensor, "M 68 2"],
        memory: Tensor | None = None,
    ) -> None:
        self.crops, self.landmarks = crops, landmarks
        self._made: dict[object, object] = {}
        self._memory = [] if memory is None else [memory]

    def __len__(self) -> int:
        return len(self.crops)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_made": {}, "_memory": []}

    @property
    def size(self) -> int:
        """Side of the crops, px."""
        return self.crops.shape[-1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> FrameBank:
        """The bank on a device; every batch that shares it gets the same copy."""
        device = torch.device(device)
        if device == self.crops.device:
            return self
        moved = [tensor.to(device, non_blocking=non_blocking) for tensor in (self.crops, self.landmarks)]
        return self._once(device, lambda: FrameBank(*moved))

    def pin_memory(self) -> FrameBank:
        """The bank in page-locked memory."""
        return FrameBank(self.crops.pin_memory(), self.landmarks.pin_memory())

    def frames(self, rows: Int[Tensor, "*B"]) -> Float[Tensor, "*B 3 H W"]:
        """Some frames in [-1, 1], float32."""
        return _signed(self.crops[rows])

    def rgb(self, dtype: torch.dtype) -> Float[Tensor, "N 3 H W"]:
        """All frames in [-1, 1]."""
        return self._once(("rgb", dtype), lambda: self._converted(self.crops, _signed, dtype))

    def heatmaps(self, dtype: torch.dtype) -> Float[Tensor, "M H W"]:
        """Heatmaps of the frames that are in windows, in [0, 1]."""
        draw = lambda landmarks: landmark_heatmap(landmarks, self.size)[:, 0]  # noqa: E731
        return self._once(("heatmaps", dtype), lambda: self._converted(self.landmarks, draw, dtype))

    def heat_bands(self, dtype: torch.dtype) -> Int[np.ndarray, "M 2"]:
        """Rows of the heatmaps outside of which they are zero, on the CPU."""
        return self._once(("bands", dtype), lambda: occupied_rows(_to_numpy(self.heatmaps(dtype))))

    def _converted(self, values: Tensor, function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
        parts = values.split(_CPU_CHUNK if values.device.type == "cpu" else _GPU_CHUNK)
        shape = function(parts[0][:1]).shape[1:]
        memory = take_memory(len(values), *shape, dtype=dtype, device=values.device)
        self._memory.append(memory)
        for part, into in zip(parts, memory[: len(values)].split(len(parts[0])), strict=True):
            into.copy_(function(part))
        return memory[: len(values)]

    def __del__(self) -> None:
        for memory in self._memory if give_memory is not None else ():  # when Python ends, its modules go first
            give_memory(memory)

    def _once(self, key: object, make: Callable[[], object]):
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


@dataclass(frozen=True)
class FrameWindows:
    """Windows of T frames of a bank.

    Attributes:
        bank: the frames.
        rows: for each window, which of the first M frames of the bank, in order of time.
        references: for each window, which frames of the bank show the same person elsewhere, unmasked; else None.
        reference_landmarks: of them, px at 256, NaN where the window must not look at the frame; needed where they are
            chosen and warped by landmarks.
    """

    bank: FrameBank
    rows: Int[Tensor, "B T"]
    references: Int[Tensor, "B R"] | None = None
    reference_landmarks: Float[Tensor, "B R 68 2"] | None = None

    @classmethod
    def of(
        cls,
        frames_BT3HW: Float[Tensor, "B T 3 H W"],
        landmarks_BTL2: Float[Tensor, "B T 68 2"],
        references_BR3HW: Float[Tensor, "B R 3 H W"] | None = None,
    ) -> Self:
        """Windows that share nothing, of frames in [-1, 1]."""
        crops, shape = frames_BT3HW.flatten(0, 1), frames_BT3HW.shape[:2]
        rows = torch.arange(len(crops), device=crops.device).view(shape)
        if references_BR3HW is None:
            return cls(FrameBank(crops, landmarks_BTL2.flatten(0, 1)), rows)
        beside, shape = references_BR3HW.flatten(0, 1), references_BR3HW.shape[:2]
        references = len(crops) + torch.arange(len(beside), device=crops.device).view(shape)
        return cls(FrameBank(torch.cat([crops, beside]), landmarks_BTL2.flatten(0, 1)), rows, references)

    def _map(self, bank: FrameBank, function: Callable[[Tensor], Tensor]) -> FrameWindows:
        beside = (self.references, self.reference_landmarks)
        return FrameWindows(bank, function(self.rows), *(None if each is None else function(each) for each in beside))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> FrameWindows:
        """The windows and their bank on a device."""
        return self._map(self.bank.to(device, non_blocking), lambda rows: rows.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> FrameWindows:
        """The windows and their bank in page-locked memory."""
        return self._map(self.bank.pin_memory(), lambda rows: rows.pin_memory())

    def cut(self, start: int, stop: int) -> FrameWindows:
        """Windows start..stop-1, of the same bank."""
        return self._map(self.bank, lambda rows: rows[start:stop])

    def earlier(self, frames: int) -> FrameWindows:
        """The windows that end so many frames before these ones; what lies before them repeats their first frame."""
        return replace(self, rows=shifted(self.rows, frames))

    @property
    def num_references(self) -> int:
        """R, the reference frames of each window."""
        return 0 if self.references is None else self.references.shape[1]

    @property
    def reference_frames(self) -> Float[Tensor, "B R 3 H W"] | None:
        """The reference frames of every window, float32 in [-1, 1]."""
        return None if self.references is None else self.bank.frames(self.references)

    @property
    def last(self) -> Float[Tensor, "B 3 H W"]:
        """Frame t of every window, float32 in [-1, 1]."""
        return self.bank.frames(self.rows[:, -1])

    def stack(
        self,
        box_B4: Float[Tensor, "B 4"],
        noise_B: Int[Tensor, "B"],
        dtype: torch.dtype,
        heatmaps_BTHW: Float[Tensor, "B T H W"] | None = None,
        out: Float[Tensor, "B 4T+3Q H W"] | None = None,
        shown_BQ3HW: Float[Tensor, "B Q 3 H W"] | None = None,
    ) -> Float[Tensor, "B 4T+3Q H W"]:
        """What the generator is fed: T frames whose box is filled with noise, T heatmaps, and the reference frames.

        Args:
            box_B4: mouth boxes, px at 256. noise_B: numbers of the noise fields that fill them.
            dtype: of the result.
            heatmaps_BTHW: gradients flow through them; None: those of the frames' own landmarks.
            out: where to put it, contiguous; fresh memory costs more than what is done to fill it.
            shown_BQ3HW: in the place of the reference frames as they are.
        """
        (num_windows, length), size = self.rows.shape, self.bank.size
        if out is None:
            channels = 4 * length + 3 * (self.num_references if shown_BQ3HW is None else shown_BQ3HW.shape[1])
            out = torch.empty(num_windows, channels, size, size, dtype=dtype, device=self.rows.device)
        assert out.is_contiguous()
        self._write_frames(box_B4, noise_B, out)
        if heatmaps_BTHW is None:
            self._write_heatmaps(out)
        else:
            out[:, 3 * length : 4 * length] = heatmaps_BTHW
        if shown_BQ3HW is None:
            shown_BQ3HW = self.reference_frames
        if shown_BQ3HW is not None:
            out[:, 4 * length :] = shown_BQ3HW.flatten(1, 2)
        return out

    def _pick(self, values_N: Float[Tensor, "N ..."], into_BT: Float[Tensor, "B T ..."]) -> None:
        """What belongs to each frame of each window."""
        for rows_T, into_T in zip(self.rows, into_BT, strict=True):
            torch.index_select(values_N, 0, rows_T, out=into_T)

    def _write_frames(
        self, box_B4: Float[Tensor, "B 4"], noise_B: Int[Tensor, "B"], out: Float[Tensor, "B C H W"]
    ) -> None:
        """The first 3T channels: frames whose box is filled with noise."""
        (_, length), size = self.rows.shape, self.bank.size
        if _has_kernels(out) and self.bank.crops.dtype == torch.uint8:
            assert int(self.rows.max()) < len(self.bank)
            boxes, noise = box_bounds(box_B4, size), noise_sequence(size, out.device, out.dtype)
            write_masked_frames(*map(_to_numpy, (self.bank.crops, self.rows, boxes, noise, noise_B, out)))
            return
        frames_BT3HW = out[:, : 3 * length].unflatten(1, (length, 3))
        self._pick(self.bank.rgb(out.dtype), frames_BT3HW)
        fields_N3HW = noise_fields(size, out.device, out.dtype)
        inside_B1HW = box_mask(box_B4, size)
        frames_BT3HW.copy_(torch.where(inside_B1HW[:, None], fields_N3HW[noise_B][:, None], frames_BT3HW))

    def _write_heatmaps(self, out: Float[Tensor, "B C H W"]) -> None:
        """Channels 3T to 4T."""
        length, heatmaps = self.rows.shape[1], self.bank.heatmaps(out.dtype)
        if _has_kernels(out):
            assert int(self.rows.max()) < len(heatmaps)
            bands = self.bank.heat_bands(out.dtype)
            write_heatmaps(_to_numpy(heatmaps), bands, _to_numpy(self.rows), _to_numpy(out))
        else:
            self._pick(heatmaps, out[:, 3 * length : 4 * length])


def _has_kernels(out: Tensor) -> bool:
    """Whether compiled loops can write there."""
    return out.device.type == "cpu" and out.dtype in (torch.float32, torch.bfloat16)


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor as the kernels see it: bfloat16 as uint16. What they write to must be contiguous."""
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def shifted(values: Shaped[Tensor, "B T ..."], frames: int) -> Shaped[Tensor, "B T ..."]:
    """What belongs to windows that end so many frames earlier: the first value repeated, the last ones left out."""
    return values if frames == 0 else torch.cat([values[:, :1]] * frames + [values[:, :-frames]], dim=1)


def _signed(crops: Tensor) -> Tensor:
    """Bytes as the networks want them, float32 in [-1, 1]; floats are such already."""
    return crops.to(torch.float32).div_(127.5).sub_(1.0) if crops.dtype == torch.uint8 else crops
