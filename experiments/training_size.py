"""Table 3 of Song et al. 2020: `python -m experiments.training_size <run folder> ...`.

One generator for all speakers ("joint") beside a generator for each ("split"), by the minutes of video that each
speaker trains with. The runs of `split` are put together: their scores are over the clips of all speakers.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.table import Table

from experiments.command_line import UserError, guarded
from experiments.compare import paired_difference, values
from experiments.schema import Config, Task
from experiments.tables import DIGITS, read, wide_console
from experiments.trained import open_config
from lightning_modules.renderer import MEAN_FRAME

COLUMNS = ("PSNR_mouth", "SSIM_mouth")
SPLIT, JOINT = "split", "joint"


class Training(NamedTuple):
    """What makes a row; rows stand in this order.

    Attributes:
        minutes: of video of each speaker.
        is_joint: one generator for all speakers.
        steps: of each generator.
    """

    minutes: float
    is_joint: bool
    steps: int


def training(config: Config, results: dict) -> Training:
    """The row that a run belongs to.

    Raises:
        UserError: the run says nothing about Table 3.
    """
    if config.task is not Task.renderer or config.data.train_minutes is None:
        raise UserError(f"{results['name']}: give renderers trained with data.train_minutes, +exp=collected_minutes")
    if "steps" not in results:
        raise UserError(f"{results['name']} was scored by an older version, which did not count steps: run it again")
    return Training(config.data.train_minutes, len(config.data.speakers) != 1, results["steps"])


def pooled(runs: list[dict]) -> dict:
    """One result from runs on different clips.

    Raises:
        UserError: two of them share a clip.
    """
    rows: dict[str, dict] = {}
    for run in runs:
        for row, columns in run["rows"].items():
            for column, score in columns.items():
                known = rows.setdefault(row, {}).setdefault(column, {"per_clip": {}})["per_clip"]
                if twice := known.keys() & score["per_clip"].keys():
                    raise UserError(f"{run['name']}: clip {min(twice)} scored twice: give each speaker and seed once")
                known |= score["per_clip"]
    return {"ours": runs[0]["ours"], "rows": rows}


def grouped(runs: list[tuple[Config, dict]]) -> dict[Training, list[dict]]:
    """For each row a result a seed, over all clips, in the order of the table.

    Raises:
        UserError: the runs are not comparable, or a row lacks clips that others have.
    """
    found: dict[Training, dict[int, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for config, results in runs:
        found[training(config, results)][results["seed"]].append(results)
    if len({tuple(results["active_losses"]) for _, results in runs}) > 1:
        raise UserError("the runs differ in active losses: compare runs of the same ones")
    rows = {row: [pooled(members) for members in seeds.values()] for row, seeds in sorted(found.items())}
    scored = {row: [_clips(result) for result in results] for row, results in rows.items()}
    everything = set().union(*(clips for seeds in scored.values() for clips in seeds))
    for row, seeds in scored.items():
        for clips in seeds:
            if missing := everything - clips:
                which = f"{_style(row)} with {row.minutes:g} minutes and {row.steps} steps"
                raise UserError(f"{which} was not scored on {min(missing)}: give its run for that speaker too")
    return rows


def compare_sizes(runs: list[tuple[Config, dict]]) -> Table:
    """The table: at every duration each joint row less the split row.

    Raises:
        UserError: as `grouped`.
    """
    rows = grouped(runs)
    clips = sorted(_clips(next(iter(rows.values()))[0]))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title = f"{len(clips)} held-out clips; joint less split: mean [95% interval over clips × seeds]"
    headings = ["minutes", "generators", "steps of each", "seeds"]
    for heading in headings + [text for column in COLUMNS for text in (column, "less split")]:
        table.add_column(heading, justify="left" if heading == "generators" else "right", no_wrap=True)
    split: dict[float, list[list[dict]]] = defaultdict(list)
    for row, results in rows.items():
        cells = [f"{row.minutes:g}", _style(row), str(row.steps), str(len(results))]
        for column in COLUMNS:
            ours, digits = values(results, None, column, clips), DIGITS.get(column, 3)
            cells += [f"{ours.mean():.{digits}f}", ""]
            if row.is_joint and len(split[row.minutes]) == 1 and len(clips) > 1:
                d = paired_difference(ours, values(split[row.minutes][0], None, column, clips))
                cells[-1] = f"{d.mean:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]"
        if not row.is_joint:
            split[row.minutes].append(results)
        table.add_row(*cells)
    table.add_section()
    first = next(iter(rows.values()))
    trivial = [values(first, MEAN_FRAME, column, clips).mean() for column in COLUMNS]
    texts = [f"{value:.{DIGITS.get(column, 3)}f}" for column, value in zip(COLUMNS, trivial, strict=True)]
    table.add_row("", MEAN_FRAME, "", "", *[part for text in texts for part in (text, "")])
    return table


def _style(row: Training) -> str:
    return JOINT if row.is_joint else SPLIT


def _clips(result: dict) -> set[str]:
    return set(result["rows"][result["ours"]][COLUMNS[0]]["per_clip"])


def main() -> None:
    """Print Table 3 of the run folders on the command line."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m experiments.training_size <runs of collected_minutes and collected_minutes_split>")
        sys.exit(0 if len(sys.argv) > 1 else 2)
    folders = [Path(name) for name in sys.argv[1:]]
    wide_console().print(compare_sizes([(open_config(folder), read(folder)) for folder in folders]))


if __name__ == "__main__":
    guarded(main)
