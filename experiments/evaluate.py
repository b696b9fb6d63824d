"""How good a renderer is: `python -m experiments.evaluate <run folder> [--speech RUN] [--swap] [--gap] [...]`.

Renders held-out clips from true landmarks, and from predicted ones where speech networks are at hand, scores generator
and composited output beside the trivial predictors, and leaves evaluation.json, evaluation.csv, contact sheets and
videos in `<run folder>/evaluation`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from datamodules.atomic import atomic_file
from datamodules.corpus_module import SAMPLES_PER_FRAME
from experiments.build_data import is_synthetic
from experiments.command_line import UserError, guarded
from experiments.evaluation import arithmetic
from experiments.evaluation.clips import (
    RETRIEVAL,
    DrawnClip,
    Retrieval,
    ShownClip,
    TrivialClip,
    draw_clip,
    network_shares,
    trivial_clips,
)
from experiments.evaluation.opened import Opened, check_task, open_run
from experiments.evaluation.pictures import full_frames, write_full, write_pictures
from experiments.evaluation.scores import Scoreboard, find_networks
from experiments.evaluation.swap import SwapScores, partners
from experiments.evaluation.table import show
from experiments.tables import wide_console
from model_zoo.metrics.functional import psnr

TRUE, PREDICTED = "true landmarks", "predicted landmarks"
GENERATOR, COMPOSITED = "generator", "composited"
FULL_FRAME = "PSNR_frame"  # of the composited output in the raw frame
RESULTS = "evaluation"  # stem of the files and name of their folder
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        run: folder of a renderer or joint run.
        speech: folder of the run whose speech networks predict landmarks; a joint run has its own.
        store: prepared clips to evaluate on instead of the run's held-out ones.
        swap: swap test and stillness. gap: true against predicted landmarks.
        arithmetic: what bfloat16 and 8-bit integers lose.
        clips: how many, drawn by the seed; None: all.
        frames: of a clip at most.
        seed: draws clips and partners.
        samples: clips that are shown in pictures and videos.
        out: where results go; None: <run>/evaluation.
    """

    run: Path
    speech: Path | None
    store: Path | None
    swap: bool
    gap: bool
    arithmetic: bool
    clips: int | None
    frames: int
    seed: int
    samples: int
    out: Path | None

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.out or self.run / RESULTS


def parse(arguments: list[str] | None = None) -> Options:
    """Options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.evaluate", description=__doc__.split("\n\n")[1])
    parser.add_argument("run", type=Path, help="folder of a finished renderer or joint run")
    parser.add_argument("--speech", type=Path, metavar="RUN", help="run whose speech networks predict the landmarks")
    parser.add_argument("--store", type=Path, help="prepared clips to evaluate on (default: the run's held-out ones)")
    parser.add_argument("--swap", action="store_true", help="another clip's mouth, and a resting one: who drives?")
    parser.add_argument("--gap", action="store_true", help="what predicted landmarks lose, paired over clips")
    parser.add_argument("--arithmetic", action="store_true", help="what bfloat16 and 8-bit integers lose to float32")
    parser.add_argument("--clips", type=_positive, help="evaluate so many clips, drawn by the seed")
    parser.add_argument("--frames", type=_positive, default=750, help="of a clip at most (default: 750, 30 s)")
    parser.add_argument("--seed", type=int, default=0, help="draws the clips and the partners of the swap test")
    parser.add_argument("--samples", type=int, default=2, help="clips shown as pictures and videos (default: 2)")
    parser.add_argument("--out", type=Path, help="folder of the results (default: <run>/evaluation)")
    return Options(**vars(parser.parse_args(arguments)))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def evaluate(options: Options, console: Console) -> dict:
    """Draw, score, show and write.

    Raises:
        UserError: the run can't be evaluated as asked.
    """
    config = check_task(options.run)
    _check_writable(options.folder)
    opened = open_run(options.run, options.speech, options.store, options.clips, options.seed)
    if options.gap and opened.speech is None:
        raise UserError("--gap needs predicted landmarks: give --speech=<run of audio_to_expression or joint>")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    renderer = opened.trained.renderer.to(device)
    board, retrieval = Scoreboard(find_networks()), Retrieval(opened.trained.data)
    mean = opened.trained.data.expression_statistics.mean
    swap = SwapScores(opened.trained.face, mean) if options.swap else None
    others = list(arithmetic.renderers(renderer, opened.trained.data)) if options.arithmetic else []
    partner = partners(opened.clips, options.seed)
    believed: dict[str, float] = {}
    frames = flagged = 0
    for number, clip_id in enumerate(track(opened.clips, "evaluating", console=Console(stderr=True), transient=True)):
        shown = ShownClip.read(opened.data, clip_id, options.frames)
        shares = network_shares(renderer, shown)
        if shares is not None:
            believed[clip_id] = float(shares.mean())
        drawn = {TRUE: draw_clip(renderer, shown, shown.clip.landmarks, shares)}
        if opened.speech is not None:
            predicted = opened.predicted(shown.clip, int(shown.frame[-1]) + 1)
            drawn[PREDICTED] = draw_clip(renderer, shown, predicted, shares)
        frames, flagged = frames + len(shown), flagged + int(drawn[TRUE].flagged.sum())
        trivial = list(trivial_clips(shown, retrieval, renderer.warped))
        _score(board, shown, drawn, trivial, config.renderer.full_face)
        if not config.renderer.full_face:
            _full_frame(board, opened, shown, drawn, options.folder if number < options.samples else None)
        if number < options.samples:
            _show(shown, drawn, trivial, options.folder)
        for name, other_renderer in others:
            each = draw_clip(other_renderer, shown, shown.clip.landmarks, shares)
            board.add(f"{GENERATOR} in {name}", shown, each.generated, shown.mask(shown.box), each.flagged)
        if swap is not None:
            other = opened.data.store.open(partner[clip_id])
            swap.add(shown, other, partial(draw_clip, renderer, shares=shares))
    results = {
        "name": f"{options.run.resolve().parent.name}/{options.run.resolve().name}",
        "task": config.task.value,
        "corpus": config.data.corpus.value,
        "synthetic": is_synthetic(config, opened.data),
        "clips": len(opened.clips),
        "frames": frames,
        "flagged": flagged,
        "crop": config.scale.crop,
        "region": "PSNR_mouth and the like: landmarks 48..67 over the clip, grown by 0.10 outer-eye distance",
        "seed": options.seed,
        "trained_with_seed": config.seed,
        "speech": None if opened.speech is None else str(options.speech or options.run),
        "unavailable": board.unavailable(config.scale.crop),
        "rows": board.rows(),
        "swap": swap.results() if swap is not None else None,
        "gap": options.gap,
        "network_share": believed,  # of what the generator adds to warped references, a mean for each clip
    }
    write(results, options.folder)
    show(results, console)
    console.print(f"results: {options.folder}", highlight=False, soft_wrap=True)
    return results


def _score(
    board: Scoreboard, shown: ShownClip, drawn: dict[str, DrawnClip], trivial: list[TrivialClip], full_face: bool
) -> None:
    """Add a clip to all rows; what is generated whole (Table 5) is not composited."""
    box = shown.mask(shown.box)
    for landmarks, each in drawn.items():
        board.add(f"{GENERATOR}, {landmarks}", shown, each.generated, box, each.flagged)
        if full_face:
            continue
        # where the soft edge is half way, for at its foot nothing has changed yet
        half = 0.5 * each.mask.amax((1, 2, 3), keepdim=True)
        border = torch.where(each.flagged[:, None, None, None], box, each.mask > half)
        board.add(f"{COMPOSITED}, {landmarks}", shown, each.composited, border, each.flagged)
    for row, frames, missing in trivial:
        board.add(row, shown, frames, box, missing)


def _full_frame(
    board: Scoreboard, opened: Opened, shown: ShownClip, drawn: dict[str, DrawnClip], folder: Path | None
) -> None:
    """Composited frames back in the raw video, where it is at hand."""
    for landmarks, each in drawn.items():
        pairs = list(full_frames(opened.data, shown, each))
        if not pairs:
            return
        raw, edited = (torch.stack([pair[side] for pair in pairs]).float() / 127.5 - 1 for side in (0, 1))
        board.cells[f"{COMPOSITED}, {landmarks}", FULL_FRAME][shown.clip.id] = float(psnr(edited, raw).mean())
        if folder is not None:
            name = f"{shown.clip.id.replace('/', '_')}_frames_{landmarks.split()[0]}.mp4"
            write_full(folder / name, pairs, _sound(shown))


def _show(shown: ShownClip, drawn: dict[str, DrawnClip], trivial: list[TrivialClip], folder: Path) -> None:
    rows = {"truth": shown.true}
    for landmarks, each in drawn.items():
        rows |= {f"{GENERATOR}, {landmarks}": each.generated, f"{COMPOSITED}, {landmarks}": each.composited}
    rows |= {row: frames for row, frames, _ in trivial if row == RETRIEVAL}
    write_pictures(folder, shown, rows, _sound(shown))


def _sound(shown: ShownClip) -> np.ndarray | None:
    """Waveform of the shown frames, where they follow one another."""
    if not bool(shown.follows().all()):
        return None
    first, last = int(shown.frame[0]), int(shown.frame[-1]) + 1
    return shown.clip.waveform()[SAMPLES_PER_FRAME * first : SAMPLES_PER_FRAME * last].numpy()


def write(results: dict, folder: Path) -> None:
    """evaluation.json with everything, evaluation.csv with a line for each cell of the table."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["row", "column", "mean", "low", "high", "n"])
    for row, columns in results["rows"].items():
        for column, cell in columns.items():
            writer.writerow([row, column, *(cell[key] for key in ("mean", "low", "high", "n"))])
    for name, content in ((".json", json.dumps(results, indent=2) + "\n"), (".csv", table.getvalue())):
        with atomic_file(folder, folder / f"{RESULTS}{name}") as file:
            file.write(content.encode())


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}): choose a folder with --out") from error


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    guarded(lambda: evaluate(parse(), wide_console()))


if __name__ == "__main__":
    main()
