"""Scores of drawn clips: one value a frame or a clip for each column, then means over clips with 95% intervals.

Shape legend: T shown frames of a clip, S side of the crop.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from experiments.articulation import score
from experiments.evaluation.clips import ShownClip
from model_zoo.metrics.compositing import seam_gradient, sharpness
from model_zoo.metrics.flicker import ClipFlow, clip_flow, warping_error
from model_zoo.metrics.functional import psnr, ssim_map, ssim_of_map
from model_zoo.metrics.perceptual import LPIPS_SIZE, FrechetDistance, InceptionScore, lpips_distance
from model_zoo.weights import WeightsUnavailable, inception, lpips_alexnet

UNITS = {
    "PSNR": "↑ dB, crop",
    "SSIM": "↑ crop",
    "PSNR_mouth": "↑ dB, mouth",
    "SSIM_mouth": "↑ mouth",
    "sharpness": "mouth / truth",
    "seam": "border / truth",
    "flicker": "mouth / truth",
    "LPIPS": "↓ crop",
    "FID": "↓ crop",
    "IS": "↑ crop",
    "PSNR_frame": "↑ dB, frame",
}
PERCEPTUAL = ("LPIPS", "FID", "IS")
INCEPTION_EVERY = 5  # frames, of those that FID and IS look at: neighbours are alike, and Inception is slow
CHUNK = 32  # frames scored at once
log = logging.getLogger(__name__)
Scores = dict[str, Float[Tensor, "T"]]


class Networks(NamedTuple):
    """What LPIPS, FID and IS look through; None where its weights can't be had."""

    lpips: nn.Module | None
    features: nn.Module | None
    logits: nn.Module | None
    num_features: int = 2048  # of FID


def find_networks() -> Networks:
    """The pretrained networks; what is unavailable is said once, with the reason."""

    def find(name: str, load: Callable[[], nn.Module]) -> nn.Module | None:
        try:
            return load()
        except WeightsUnavailable as error:
            log.warning("%s unavailable: %s", name, error)
            return None

    network = find("LPIPS:", lpips_alexnet)
    features = find("FID and IS:", lambda: inception("2048"))
    return Networks(network, features, None if features is None else inception("logits_unbiased"))


class Scoreboard:
    """Collects rows and columns over clips.

    Args:
        networks: of the perceptual columns.
    """

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.cells: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        self._distances: dict[str, FrechetDistance] = {}
        self._inception: dict[str, InceptionScore] = {}
        self._flow: tuple[str, ClipFlow] | None = None  # of the last clip, which all of its rows share

    def add(
        self,
        row: str,
        shown: ShownClip,
        frames: Float[Tensor, "T 3 S S"],
        border: Tensor,
        flagged: Bool[Tensor, "T"] | None = None,
    ) -> None:
        """Score a clip.

        Args:
            row: a method or a trivial predictor.
            frames: what it says the shown frames look like.
            border: mask (T, 1, S, S) at whose border a seam may show.
            flagged: frames that score nothing.
        """
        scored = torch.ones(len(shown), dtype=torch.bool) if flagged is None else ~flagged
        if not scored.any():
            log.warning("%s, %s: every frame was flagged", shown.clip.id, row)
            return
        region = shown.mask(shown.region)
        parts: dict[str, list[Tensor]] = defaultdict(list)
        for chosen in scored.nonzero()[:, 0].split(CHUNK):
            for column, values in self._frame_scores(
                frames[chosen], shown.true[chosen], region[chosen], border[chosen]
            ).items():
                parts[column].append(values)
        for column, collected in parts.items():
            self.cells[row, column][shown.clip.id] = float(torch.cat(collected).mean())
        self.cells[row, "flicker"][shown.clip.id] = self._flicker(shown, frames, scored)
        self._look(row, frames[scored][::INCEPTION_EVERY], shown.true[scored][::INCEPTION_EVERY])

    def _frame_scores(self, frames: Tensor, true: Tensor, region: Tensor, border: Tensor) -> Scores:
        similarity = ssim_map(frames, true)
        found = {
            "PSNR": psnr(frames, true),
            "SSIM": ssim_of_map(similarity),
            "PSNR_mouth": psnr(frames, true, region),
            "SSIM_mouth": ssim_of_map(similarity, region),
            "sharpness": sharpness(frames, true, region),
            "seam": seam_gradient(frames, true, border),
        }
        if self.networks.lpips is not None and true.shape[-1] >= LPIPS_SIZE:
            found["LPIPS"] = lpips_distance(self.networks.lpips, frames, true)
        return found

    def _flicker(self, shown: ShownClip, frames: Tensor, scored: Tensor) -> float:
        """Warping error in the mouth region over the truth's; NaN where no two frames follow one another."""
        pairs = shown.follows() & scored[1:] & scored[:-1]
        if not pairs.any():
            return float("nan")
        region = shown.mask(shown.region)[0, 0]
        if self._flow is None or self._flow[0] != shown.clip.id:
            self._flow = shown.clip.id, clip_flow(shown.true)
        flow = self._flow[1]
        errors = [warping_error(video, flow, region)[pairs].nanmean() for video in (frames, shown.true)]
        return float(errors[0] / errors[1].clamp_min(1e-12))

    def _look(self, row: str, frames: Tensor, true: Tensor) -> None:
        if self.networks.features is not None:
            distance = self._distances.setdefault(
                row, FrechetDistance(self.networks.features, self.networks.num_features)
            )
            distance.update(true, real=True)
            distance.update(frames, real=False)
        if self.networks.logits is not None:
            self._inception.setdefault(row, InceptionScore(self.networks.logits)).update(frames)

    def rows(self) -> dict[str, dict]:
        """By row and column: mean, 95% interval, number of clips and value of each clip."""
        found: dict[str, dict] = {}
        for (row, column), per_clip in self.cells.items():
            found.setdefault(row, {})[column] = {**(cell := score(per_clip)), "n": len(cell["per_clip"])}
        for column, values in (("FID", self._distances), ("IS", self._inception)):
            for row, metric in values.items():
                value = metric.compute()
                mean = float(value[0] if isinstance(value, tuple) else value)
                nothing = float("nan")
                found[row][column] = {"mean": mean, "low": nothing, "high": nothing, "per_clip": {}, "n": 1}
        return found

    def unavailable(self, size: int) -> list[str]:
        """Columns that nothing can be said of."""
        missing = [] if self.networks.lpips is not None and size >= LPIPS_SIZE else ["LPIPS"]
        return missing + [name for name in PERCEPTUAL[1:] if self.networks.features is None]
