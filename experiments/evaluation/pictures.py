"""What people look at: every row of a clip above one another, mouths enlarged, and the rows side by side as video.

Shape legend: T shown frames of a clip, S side of the crop, H/W pixels of the raw frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from datamodules.corpus_module import CorpusDataModule
from datamodules.prepare.clip_frames import ClipFrames
from datamodules.video_file import FRAME_RATE, write_video
from experiments.evaluation.clips import DrawnClip, ShownClip
from model_zoo.functional.masks import box_slices
from model_zoo.functional.paste import paste_crop
from model_zoo.metrics.swap import mouth_opening

SHEET_COLUMNS = 8
PANEL = 256  # px
LABEL_HEIGHT = 22  # px
Rows = dict[str, Float[Tensor, "T 3 S S"]]


def write_pictures(folder: Path, shown: ShownClip, rows: Rows, sound: Float[np.ndarray, "N"] | None) -> list[Path]:
    """Contact sheet, sheet of the mouths and side-by-side video of a clip.

    Args:
        folder: made if missing.
        rows: name to frames; the truth comes first.
        sound: of the shown frames at 16 kHz, if they follow one another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = shown.clip.id.replace("/", "_")
    opening = mouth_opening(shown.landmarks)
    places = torch.linspace(0, len(shown) - 1, min(SHEET_COLUMNS, len(shown))).round().long()
    chosen = opening.argsort()[places]  # from the most closed mouth to the widest
    y, x = box_slices(shown.region, shown.size)
    sheets = {
        "sheet": {name: frames[chosen] for name, frames in rows.items()},
        "mouths": {name: frames[chosen][..., y, x] for name, frames in rows.items()},
    }
    paths = []
    for kind, parts in sheets.items():
        lines = [_label(np.concatenate(list(_panels(frames)), axis=1), name) for name, frames in parts.items()]
        paths.append(folder / f"{stem}_{kind}.png")
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(np.concatenate(lines), cv2.COLOR_RGB2BGR))
    paths.append(folder / f"{stem}.mp4")
    panels = [[_label(panel, name) for panel in _panels(frames)] for name, frames in rows.items()]
    write_video(paths[-1], (np.concatenate(parts, axis=1) for parts in zip(*panels, strict=True)), sound)
    return paths


def full_frames(
    data: CorpusDataModule, shown: ShownClip, drawn: DrawnClip
) -> Iterator[tuple[UInt8[Tensor, "3 H W"], UInt8[Tensor, "3 H W"]]]:
    """Raw frames and the same with the composited mouth, at the frame's own resolution; nothing without the raw video.

    The crop goes back through the stored transform of its frame.
    """
    row = shown.clip.row
    source = next((clip for clip in _sources(data) if clip.id == row.source and clip.video.exists()), None)
    if source is None:
        return
    start = round(row.start * FRAME_RATE)
    numbers = {int(frame): place for place, frame in enumerate(shown.frame)}
    pictures = islice(ClipFrames(source.video, data.settings.image_rate), start, start + max(numbers) + 1)
    for frame, picture in enumerate(pictures):
        if frame not in numbers:
            continue
        raw, place = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1), numbers[frame]
        if raw.shape[1:] != (row.frame_height, row.frame_width):
            return  # not the video that was prepared
        crop = ((drawn.composited[place] + 1) * 127.5).round().clamp(0, 255).byte()
        # What the soft mask does is in the crop already: here it only says where.
        where = (drawn.mask[place] > 0).float()
        yield raw, paste_crop(raw, crop, shown.clip.crop_transform[frame], where)


def write_full(path: Path, frames: list[tuple[Tensor, Tensor]], sound: Float[np.ndarray, "N"] | None) -> None:
    """Raw and composited frames side by side."""
    pairs = (np.concatenate([each.permute(1, 2, 0).numpy() for each in pair], axis=1) for pair in frames)
    write_video(path, (pair[: pair.shape[0] // 2 * 2, : pair.shape[1] // 2 * 2] for pair in pairs), sound)


def _sources(data: CorpusDataModule) -> list:
    if data.root is None:
        return []
    try:
        return data.scan()
    except ValueError:  # the raw corpus is not at hand
        return []


def _panels(frames: Float[Tensor, "T 3 h w"]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frames enlarged to panels of an even size."""
    height = 2 * round(PANEL * frames.shape[-2] / frames.shape[-1] / 2)
    for frame in frames:
        large = F.interpolate(frame[None], (height, PANEL), mode="bicubic", antialias=True)[0]
        yield ((large.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def _label(picture: UInt8[np.ndarray, "H W 3"], name: str) -> UInt8[np.ndarray, "H W 3"]:
    """The picture below a line with its name."""
    line = np.full((LABEL_HEIGHT, picture.shape[1], 3), 24, np.uint8)
    cv2.putText(line, name, (6, LABEL_HEIGHT - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([line, picture])
