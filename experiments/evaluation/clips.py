"""Held-out clips drawn whole, frame after frame, from any landmarks; and the trivial predictors on the same frames.

Shape legend: T shown frames of a clip (those with a fit), N all frames of the clip, S side of the run's crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datamodules.batch import NUM_FRAMES, VideoBatch
from datamodules.clip_store import Clip
from datamodules.corpus_module import CorpusDataModule
from lightning_modules.renderer import trivial_frames
from model_zoo.functional.compositing import composite_mouth, is_drivable
from model_zoo.functional.heatmaps import HEATMAP_LANDMARKS
from model_zoo.functional.masks import box_mask
from model_zoo.functional.network_share import crosswise_shares
from model_zoo.render.mouth_renderer import MouthRenderer
from model_zoo.render.warped_references import warped_references

RETRIEVAL = "retrieval"  # trivial predictor: the training frame of the same speaker with the nearest landmarks
WARPED = "warped references"  # no network: the mean of the clip's nearest frames, warped; of runs that show them
PREVIOUS_FRAME = "previous true frame"  # no predictor at all, for it looks at the answer: the scale of the numbers
WINDOW = torch.arange(1 - NUM_FRAMES, 1)  # t-6..t


@dataclass(frozen=True)
class ShownClip:
    """A held-out clip as the renderer is given it, and the truth.

    Attributes:
        clip: the stored clip.
        batches: its frames in order.
        frame: number in the clip of each.
        true: crops in [-1, 1].
        landmarks: of them, projected from the fit, px at 256.
        box, region: mouth box and mouth region, px at 256.
    """

    clip: Clip
    batches: list[VideoBatch]
    frame: Int[Tensor, "T"]
    true: Float[Tensor, "T 3 S S"]
    landmarks: Float[Tensor, "T 68 2"]
    box: Float[Tensor, "4"]
    region: Float[Tensor, "4"]

    @classmethod
    def read(cls, data: CorpusDataModule, clip_id: str, max_frames: int) -> ShownClip:
        """The first held-out frames of a clip, on the CPU."""
        batches = []
        room = max_frames
        for batch in data.clip_batches(clip_id):
            assert isinstance(batch, VideoBatch)
            batches.append(batch.cut(0, min(len(batch), room)))
            room -= len(batches[-1])
            if room == 0:
                break
        frame = torch.cat([batch.frame for batch in batches])
        return cls(
            clip=data.store.open(clip_id),
            batches=batches,
            frame=frame,
            true=torch.cat([batch.target for batch in batches]),
            landmarks=torch.cat([batch.landmarks[:, -1] for batch in batches]),
            box=batches[0].mouth_box[0],
            region=batches[0].mouth_region[0],
        )

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def size(self) -> int:
        """S."""
        return self.true.shape[-1]

    def mask(self, box: Float[Tensor, "4"]) -> Bool[Tensor, "T 1 S S"]:
        """The pixels of a box on every frame."""
        return box_mask(box[None], self.size).expand(len(self), -1, -1, -1)

    def follows(self) -> Bool[Tensor, "T-1"]:
        """Whether a shown frame comes straight after the one before it."""
        return self.frame.diff() == 1


class DrawnClip(NamedTuple):
    """What one set of landmarks makes of a clip.

    Attributes:
        generated: true frames with the generated mouth box. composited: under the hull, Poisson-blended.
        mask: the compositing mask.
        flagged: frames that could not be drawn or composited; they are the true ones and score nothing.
    """

    generated: Float[Tensor, "T 3 S S"]
    composited: Float[Tensor, "T 3 S S"]
    mask: Float[Tensor, "T 1 S S"]
    flagged: Bool[Tensor, "T"]


@torch.inference_mode()
def network_shares(renderer: MouthRenderer, shown: ShownClip) -> Float[Tensor, "T"] | None:
    """How much of what the generator adds to warped frames is believed on each frame, told by the clip's other half.

    None where the generator adds to nothing that could stand alone.
    """
    device = next(renderer.parameters()).device
    bases, frames = [], []
    for batch in shown.batches:
        there = batch.to(device)
        rendering = renderer(there.windows, there.mouth_box, there.noise_number, there.landmarks)
        if rendering.base is None:
            return None
        bases.append(rendering.base.cpu())
        frames.append(rendering.frame.cpu())
    return crosswise_shares(shown.true, torch.cat(bases), torch.cat(frames), shown.mask(shown.region))


@torch.inference_mode()
def draw_clip(
    renderer: MouthRenderer,
    shown: ShownClip,
    driven: Float[Tensor, "N 68 2"],
    shares: Float[Tensor, "T"] | None = None,
) -> DrawnClip:
    """Render the shown frames from landmarks of the whole clip, px at 256.

    A frame whose window of landmarks is not finite, or whose mouth leaves the mouth box, is flagged.

    Args:
        renderer: in evaluation mode.
        shown: whose face it is.
        driven: what its mouth does.
        shares: how much of what the generator adds to its base is believed on each frame; None: all.
    """
    device = next(renderer.parameters()).device
    windows = driven[(shown.frame[:, None] + WINDOW).clamp_min(0)]
    bad = ~is_drivable(windows[:, -1], shown.box[None]) | ~windows.isfinite().all((1, 2, 3))
    windows = torch.where(bad[:, None, None, None], shown.landmarks[:, None], windows)
    parts, start = [], 0
    for batch in shown.batches:
        there, part = batch.to(device), windows[start : start + len(batch)].to(device)
        rendering = renderer(there.windows, there.mouth_box, there.noise_number, part)
        frame = rendering.frame
        if shares is not None and rendering.base is not None:
            share = shares[start : start + len(batch), None, None, None].to(frame)
            frame = torch.lerp(rendering.base, frame, share)
        parts.append(frame.cpu())
        start += len(batch)
    generated = torch.cat(parts)
    current = windows[:, -1].masked_fill(bad[:, None, None], torch.nan)
    composite = composite_mouth(shown.true, generated, current, shown.landmarks, shown.box.expand(len(shown), -1))
    generated[composite.flagged] = shown.true[composite.flagged]
    return DrawnClip(generated, composite.frame, composite.mask, composite.flagged)


class Retrieval:
    """Frames of the training clips by their landmarks.

    Args:
        data: set up; its training frames are looked through.
    """

    def __init__(self, data: CorpusDataModule) -> None:
        self.data = data
        self._known: dict[str, tuple[list[tuple[str, int]], Tensor]] = {}

    def frames(self, shown: ShownClip) -> Float[Tensor, "T 3 S S"]:
        """For each shown frame, the training crop whose mouth and jaw landmarks are nearest.

        Of the same speaker and view where these trained, of the same speaker else, of anybody else.
        """
        names, known = self._candidates(shown.clip.row.speaker, shown.clip.row.view)
        wanted = shown.landmarks[:, HEATMAP_LANDMARKS].flatten(1)
        nearest = torch.cat([torch.cdist(part, known).argmin(1) for part in wanted.split(256)])
        crops = [self.data.store.open(names[i][0]).crop(names[i][1], shown.size) for i in nearest.tolist()]
        return torch.stack([torch.from_numpy(crop).permute(2, 0, 1) for crop in crops]).float() / 127.5 - 1

    def _candidates(self, speaker: str, view: str) -> tuple[list[tuple[str, int]], Float[Tensor, "M D"]]:
        rows = [self.data.store.row(clip) for clip in self.data.train_clips]
        same = [row for row in rows if row.speaker == speaker]
        rows = [row for row in same if row.view == view] or same or rows
        key = f"{rows[0].speaker}\0{rows[0].view}\0{len(rows)}"
        if key not in self._known:
            names, known = [], []
            for row in rows:
                clip, frames = self.data.store.open(row.id), self.data.train_frames[row.id]
                valid = [t for t in frames if clip.valid[t]]
                names += [(row.id, t) for t in valid]
                known.append(clip.landmarks[valid][:, HEATMAP_LANDMARKS].flatten(1))
            self._known = {key: (names, torch.cat(known))}  # of the last speaker alone
        return self._known[key]


class TrivialClip(NamedTuple):
    """What a trivial predictor makes of a clip, in the same mouth box as the generator."""

    row: str
    frames: Float[Tensor, "T 3 S S"]
    missing: Bool[Tensor, "T"]


def trivial_clips(shown: ShownClip, retrieval: Retrieval, warped: int = 0) -> Iterator[TrivialClip]:
    """The trivial predictors, one after the other; with the mean of so many warped references, where there are any."""
    parts = [trivial_frames(batch) for batch in shown.batches]
    mask, none = shown.mask(shown.box), torch.zeros(len(shown), dtype=torch.bool)
    for row in parts[0]:
        yield TrivialClip(row, torch.cat([part[row] for part in parts]), none)
    yield TrivialClip(RETRIEVAL, torch.where(mask, retrieval.frames(shown), shown.true), none)
    if warped:
        given = [(each.windows, each.landmarks[:, -1], each.mouth_box) for each in shown.batches]
        moved = [warped_references(*each, warped)[:, 0] for each in given]
        yield TrivialClip(WARPED, torch.where(mask, torch.cat(moved), shown.true), none)
    before = torch.cat([batch.windows.bank.frames(batch.windows.rows[:, -2]) for batch in shown.batches])
    yield TrivialClip(PREVIOUS_FRAME, torch.where(mask, before, shown.true), shown.frame == 0)
