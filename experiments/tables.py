"""The table at the end of a run, and the same from any finished run: `python -m experiments.tables <run folder>`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from datamodules.atomic import atomic_file
from experiments.command_line import UserError, guarded
from lightning_modules.base import TalkinModule
from model_zoo.metrics.functional import bootstrap_interval

RESULTS = "results.json"
LOG_WIDTH = 132  # characters, where there is no terminal to ask
# Rows "+IR" of Table 6 of Song et al. 2020: without post-processing, as here. Other data, resolution and region.
PAPER = {
    "grid": {"E_exp": 0.65, "E_ldmk": 2.24, "PSNR": 32.23, "SSIM": 0.97},
    "collected": {"E_exp": 0.59, "E_ldmk": 1.83, "PSNR": 31.21, "SSIM": 0.96},
}
DIGITS = {"PSNR": 2, "PSNR_mouth": 2}
UNITS = {
    "E_exp": "std",
    "E_exp_mouth": "std",
    "E_ldmk": "px at 256",
    "PSNR": "dB, crop",
    "SSIM": "crop",
    "PSNR_mouth": "dB, mouth",
    "SSIM_mouth": "mouth",
}
ARTICULATION = {
    "E_ldmk": "px at 256",
    "jitter": "/ truth's",
    "lag": "ms",
    "silence": "gap / widest",  # beyond the closed gap, as a share of the speaker's widest
}
ARROWS = {"E_exp": "↓", "E_exp_mouth": "↓", "E_ldmk": "↓"}


def collect(module: TalkinModule, clip_ids: list[str], about: dict) -> dict:
    """Every score of a finished test with its 95% interval over clips, and what is needed to compare it.

    Call it on every rank.

    Args:
        module: after `Trainer.test`.
        clip_ids: what the clip indices of the scores mean.
        about: resolution, seed, data and the like.
    """
    rows: dict[str, dict] = {}
    for row, column, mean in module.scores.items():
        low, high = (float(bound) for bound in mean.interval())
        per_clip = {
            clip: value for clip, value in zip(clip_ids, mean.per_clip().tolist(), strict=True) if value == value
        }
        score = {"mean": float(mean.compute()), "low": low, "high": high, "per_clip": per_clip}
        rows.setdefault(row, {})[column] = score
    return {**about, "active_losses": module.active_losses(), "ours": module.ours, "rows": rows}


def write(results: dict, folder: Path) -> None:
    """Write results.json, whole or not at all."""
    with atomic_file(folder, folder / RESULTS) as file:
        file.write((json.dumps(results, indent=2) + "\n").encode())


def show(results: dict, console: Console) -> None:
    """Print the results of one run."""
    columns = [name for row in results["rows"].values() for name in row]
    columns = list(dict.fromkeys(columns))
    console.print(
        f"{results['name']}: {results['clips']} held-out clips, {results['frames']} frames, {results['crop']} px, "
        f"seed {results['seed']}; mean ± half of the 95% interval over clips",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(
            f"{column} {ARROWS.get(column, '↑')}\n{UNITS.get(column, '')}".rstrip(), justify="right", no_wrap=True
        )
    for name, row in results["rows"].items():
        table.add_row(name, *(cell(row.get(column), DIGITS.get(column, 3)) for column in columns))
    for label, clips in _sides(results).items():
        row = results["rows"][results["ours"]]
        table.add_row(label, *(cell(_over(row.get(column), clips), DIGITS.get(column, 3)) for column in columns))
    paper = PAPER.get(results["corpus"], {})
    if any(column in paper for column in columns):
        table.add_section()
        table.add_row("paper, its data", *(str(paper.get(column, "")) for column in columns), style="dim")
    console.print(table)
    _show_articulation(results, console)
    console.print(f"active losses: {', '.join(results['active_losses'])}", highlight=False)
    if results["unavailable"]:
        console.print(f"unavailable: {', '.join(results['unavailable'])}", highlight=False)


def _sides(results: dict) -> dict[str, set[str]]:
    """Rows for speakers that trained and for others, where there are others."""
    unseen = set(results.get("unseen", ()))
    clips = {clip for score in results["rows"][results["ours"]].values() for clip in score["per_clip"]}
    sides = {"seen speakers": clips - unseen, "unseen speakers": clips & unseen}
    return {f"{results['ours']}, {name}": part for name, part in sides.items() if part} if unseen else {}


def _over(score: dict | None, clips: set[str]) -> dict | None:
    """The score over some of its clips."""
    if score is None:
        return None
    values = torch.tensor([value for clip, value in score["per_clip"].items() if clip in clips])
    low, high = bootstrap_interval(values)
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)} if len(values) else None


def _show_articulation(results: dict, console: Console) -> None:
    """How the mouth moves over whole clips, and its error by the kind of sound."""
    if results.get("articulation"):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("whole clips", no_wrap=True)
        for column, unit in ARTICULATION.items():
            table.add_column(f"{column}\n{unit}", justify="right", no_wrap=True)
        for name, row in results["articulation"].items():
            table.add_row(name, *(cell(row.get(column), 0 if column == "lag" else 3) for column in ARTICULATION))
        console.print(table)
    if results.get("visemes"):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        rows = [row for row in next(iter(results["visemes"].values())) if row != "frames"]
        for heading in ("E_ldmk by sound", *rows, "frames"):
            table.add_column(heading, justify="left" if heading.startswith("E_") else "right", no_wrap=True)
        for name, found in results["visemes"].items():
            table.add_row(name, *(cell(found[row], 3) for row in rows), str(found["frames"]))
        console.print(table)


def wide_console(stderr: bool = False) -> Console:
    """A console that gives a log file the width that a table needs."""
    return Console(stderr=stderr, width=None if Console(stderr=stderr).is_terminal else LOG_WIDTH)


def cell(score: dict | None, digits: int) -> str:
    """Mean ± half of the interval, as text; empty without a score."""
    if score is None:
        return ""
    if score["low"] != score["low"]:  # one clip has no interval
        return f"{score['mean']:.{digits}f}"
    return f"{score['mean']:.{digits}f} ±{(score['high'] - score['low']) / 2:.{digits}f}"


def read(folder: Path) -> dict:
    """Results of a finished run.

    Raises:
        UserError: the folder holds none.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise UserError(f"{folder} has no {RESULTS}: give the folder of a finished run, outputs/<experiment>/<stamp>")
    return json.loads(path.read_text())


def main() -> None:
    """Print the tables of the run folders on the command line."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m experiments.tables <run folder> [<run folder> ...]")
        sys.exit(0 if len(sys.argv) > 1 else 2)
    console = wide_console()
    for name in sys.argv[1:]:
        show(read(Path(name)), console)


if __name__ == "__main__":
    guarded(main)
