"""Topic `preparation`: from raw video to the clip store; what is kept, how fast, how exact, in how much memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from datamodules.clip_store import Clip, ClipStore
from datamodules.corpus_module import available_cores
from datamodules.prepare.pipeline import prepare_corpus
from datamodules.prepare.report import Report, left_out_spans
from datamodules.prepare.sources import scan_grid
from datamodules.synthetic.corpus import generate_grid_corpus
from experiments.checks.figure import Figure, Materials, at_least, at_most, told, unavailable
from experiments.checks.looped_video import prepare_alone, write_looped
from model_zoo.face.procedural import procedural_face
from model_zoo.functional.camera import apply_similarity, invert_similarity

MOUTH = slice(48, 68)
SPEAKERS, SENTENCES = 4, 4  # of the synthetic people that are compared with the truth
RATED = (10, 100)  # speakers and sentences of the corpus whose rate is compared with that of a fifth of it
SHORT, LONG = 10, 600  # s of full HD


def measure(materials: Materials) -> Iterator[Figure]:
    """Issue the figures of preparation, slowest last."""
    with tempfile.TemporaryDirectory() as folder:
        yield from exactness(Path(folder), materials.seed)
        yield from real_clips(materials.grid, Path(folder))
        if materials.full:
            yield from scaling(Path(folder), materials.seed)
            yield from memory(Path(folder))
        else:
            yield unavailable("rate at 200 and 1,000 clips, memory on long video", "add --full")


def exactness(folder: Path, seed: int) -> Iterator[Figure]:
    """Fit from real detection on synthetic frontal clips against exact truth."""
    raw = generate_grid_corpus(folder / "people", SPEAKERS, SENTENCES, seed, workers=available_cores())
    store, report = _prepared(raw, folder / "people-store")
    mouth, expression, typical, crops, openings = [], [], [], [], []
    for row in store.manifest:
        clip, truth = store.open(row.id), load_file(raw / "truth" / f"{row.id}.safetensors")
        valid = clip.valid
        exact = apply_similarity(clip.crop_transform, truth["landmarks"])
        mouth.append((clip.landmarks - exact)[valid][:, MOUTH].norm(dim=-1).mean())
        expression.append((clip.expression - truth["expression"])[valid].abs().mean())
        typical.append((truth["expression"] - truth["expression"].mean(0))[valid].abs().mean())
        opening = (exact[:, 62] - exact[:, 66]).norm(dim=-1)[valid].double()
        parameters = crop_parameters(clip)[valid]
        crops.append(parameters - parameters.mean(0))
        openings.append(opening - opening.mean())
    moved, opened = torch.cat(crops), torch.cat(openings)
    correlation = (moved * opened[:, None]).sum(0) / (moved.norm(dim=0) * opened.norm() + 1e-12)
    yield at_least("synthetic clips, frames kept", report.kept, 0.98)
    yield at_most("synthetic clips, mouth landmarks against truth, px at 256", _mean(mouth), 2.5)
    yield told(
        "synthetic clips, expression against truth, standard deviations",
        f"{_mean(expression):.3f} (the clip's mean expression: {_mean(typical):.3f})",
    )
    name = "synthetic clips, correlation of crop centre, scale and roll with the opening"
    yield at_most(name, float(correlation.abs().max()), 0.1)


def real_clips(grid: Path | None, folder: Path) -> Iterator[Figure]:
    """Share of frames kept and rate on all real clips, worker start-up included."""
    if grid is None:
        yield unavailable("GRID, frames kept and rate", "give --grid")
        return
    _, report = _prepared(grid, folder / "grid-store")
    yield at_least(
        f"GRID, {len(report.rows)} clips, {len(report.skipped)} skipped, frames kept of all sources'",
        _kept_of_all(report),
        0.98,
    )
    yield at_least("GRID, frames/s a core from file to store, with start-up", _rate(report), 100, "{:.0f}")


def scaling(folder: Path, seed: int) -> Iterator[Figure]:
    """The rate must not fall with the number of clips; what the workers take to start is left out of it."""
    raw = generate_grid_corpus(folder / "many", *RATED, seed, workers=available_cores())
    sources, workers = scan_grid(raw), available_cores()
    few, many = len(sources) // 5, len(sources)
    seconds, frames = {}, {}
    for count in (workers, few, many):
        out = folder / f"{count}-store"
        report = prepare_corpus(sources[:count], out, procedural_face(), workers=workers, progress=False)
        seconds[count], frames[count] = report.seconds, report.frames
    rates = {count: frames[count] / (seconds[count] - seconds[workers]) / workers for count in (few, many)}
    for count, rate in rates.items():
        yield told(f"{count} synthetic clips, frames/s a core, workers' start left out", f"{rate:.0f}")
    yield at_least(f"rate at {many} clips over that at {few}", rates[many] / rates[few], 0.95)


def memory(folder: Path) -> Iterator[Figure]:
    """Peak of a worker on full HD."""
    peaks = []
    for seconds in (SHORT, LONG):
        write_looped(folder / "long.mp4", seconds)
        alone = prepare_alone(folder / "long.mp4", folder / f"{seconds}-memory")
        peaks.append(alone.peak)
        yield at_most(f"peak memory of a worker on {seconds} s of 1080p, MB", alone.peak / 1e6, 1500, "{:.0f}")
    yield at_most(f"the same, {LONG} s over {SHORT} s", peaks[1] / peaks[0], 1.1)


def crop_parameters(clip: Clip) -> Float[Tensor, "T 4"]:
    """Centre in the frame (px), log scale and roll of every crop."""
    inverse = invert_similarity(clip.crop_transform.double())
    centre = inverse[:, :, :2] @ torch.full((2,), 127.5, dtype=torch.float64) + inverse[:, :, 2]
    linear = clip.crop_transform[:, :, 0].double()
    scale, roll = linear.norm(dim=-1, keepdim=True).log(), linear[:, 1:].atan2(linear[:, :1])
    return torch.cat([centre, scale, roll], dim=1)


def _prepared(raw: Path, out: Path) -> tuple[ClipStore, Report]:
    report = prepare_corpus(scan_grid(raw), out, procedural_face(), workers=available_cores(), progress=False)
    return ClipStore(out), report


def _rate(report: Report) -> float:
    return report.frames / report.seconds / available_cores()


def _kept_of_all(report: Report) -> float:
    """Frames with a fit over the frames of all sources, those that became no clip included."""
    typical = report.frames / max(1, len(report.rows))
    left_out = sum(skipped.frames or typical for skipped in report.skipped)  # 0 where nothing could be read
    for row in report.rows:
        left_out += sum(part.stop - part.start for part in left_out_spans(row))
    return sum(row.valid_frames for row in report.rows) / max(1, report.frames + left_out)


def _mean(values: list[Tensor]) -> float:
    return float(np.mean([float(value) for value in values]))
