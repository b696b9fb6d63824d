"""Experiments side by side: `python -m experiments.compare <run folder> ...`, several seeds of each.

Runs of one experiment are one row, or one for each of its settings where they differ by more than the seed. Every
other row is compared with the first: mean difference, its 95% interval by a bootstrap over clips (paired: the same
clips for both) and seeds (each row's own), and the ratio.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from omegaconf import OmegaConf
from rich import box
from rich.table import Table

from experiments.command_line import UserError, guarded
from experiments.tables import DIGITS, read, wide_console
from experiments.trained import open_config
from model_zoo.metrics.functional import CONFIDENCE, NUM_RESAMPLES

COLUMNS = ("E_exp", "E_exp_mouth", "E_ldmk", "PSNR_mouth", "SSIM_mouth")
# Settings that say where and how fast, not what.
_ELSEWHERE = (
    "seed",
    "output",
    "logger.",
    "trainer.",
    "data.root",
    "data.cache",
    "data.prepare_workers",
    "data.batch_workers",
)
_MATTERS = ("trainer.max_steps", "trainer.precision", "trainer.warmup", "trainer.decay", "trainer.cosine")
TRIVIAL = {"E_exp": "mean-expression", "E_exp_mouth": "mean-expression", "E_ldmk": "mean-mouth"}


class Difference(NamedTuple):
    """First less second: mean and its interval, and first over second with its interval."""

    mean: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float


def paired_difference(
    first: Float[np.ndarray, "R N"], second: Float[np.ndarray, "S N"], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Difference:
    """Bootstrap of the difference of two experiments over the same N clips, with R and S seeds.

    A resample draws clips once for both and seeds for each, with replacement. With one seed, over clips alone.

    Raises:
        ValueError: the clips differ in number, or there are fewer than two.
    """
    if first.shape[1] != second.shape[1] or first.shape[1] < 2:
        raise ValueError(f"both need the same clips, two or more: got {first.shape[1]} and {second.shape[1]}")
    rng = np.random.default_rng(seed)
    clips = rng.integers(first.shape[1], size=(num_resamples, first.shape[1]))
    means = [
        values[rng.integers(len(values), size=(num_resamples, len(values)))[:, :, None], clips[:, None, :]].mean((1, 2))
        for values in (first, second)
    ]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(means[0] - means[1], tails)
    ratio_low, ratio_high = np.quantile(means[0] / means[1], tails)
    mean = first.mean() - second.mean()
    return Difference(mean, low, high, first.mean() / second.mean(), ratio_low, ratio_high)


def settings(folder: Path) -> dict[str, Any]:
    """What a run was run with, a value for each key, as far as it bears on results.

    Raises:
        UserError: as `open_config`.
    """
    found = flattened(OmegaConf.to_container(OmegaConf.structured(open_config(folder)), enum_to_str=True))
    return {key: value for key, value in found.items() if key in _MATTERS or not key.startswith(_ELSEWHERE)}


def flattened(config: dict, prefix: str = "") -> dict[str, Any]:
    """Keys with dots in between."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def grouped(runs: list[dict]) -> dict[str, list[dict]]:
    """Runs by experiment, and by the settings in which runs of one experiment differ, by which they are named.

    Raises:
        UserError: a group holds runs of different losses, or of one seed twice.
    """
    experiments: dict[str, list[dict]] = {}
    for run in runs:
        experiments.setdefault(run["name"].split("/")[0], []).append(run)
    labels: dict[int, str] = {}
    for name, members in experiments.items():
        keys = dict.fromkeys(key for run in members for key in run["settings"])
        differ = [key for key in keys if len({str(run["settings"].get(key)) for run in members}) > 1]
        for run in members:
            labels[id(run)] = "\n  ".join([name, *(f"{key}={run['settings'].get(key)}" for key in differ)])
    groups: dict[str, list[dict]] = {}
    for run in runs:
        groups.setdefault(labels[id(run)], []).append(run)
    for label, members in groups.items():
        if len({tuple(run["active_losses"]) for run in members}) > 1:
            raise UserError(f"runs of {label} differ in active losses: they are no seeds of one experiment")
        if len({run["seed"] for run in members}) < len(members):
            raise UserError(f"runs of {label} hold a seed twice: give each seed once")
    return groups


def values(runs: list[dict], row: str | None, column: str, clips: list[str]) -> Float[np.ndarray, "R N"]:
    """A column of every seed, clip by clip; row None is ours."""
    return np.array([[run["rows"][row or run["ours"]][column]["per_clip"][clip] for clip in clips] for run in runs])


def compare(runs: list[dict]) -> Table:
    """The table.

    Raises:
        UserError: the runs cannot be compared.
    """
    groups = grouped(runs)
    ours = [run["rows"][run["ours"]] for run in runs]
    columns = [column for column in COLUMNS if all(column in row for row in ours)]
    if not columns:
        raise UserError("the runs have no score in common: compare experiments of the same task")
    clips = sorted(set.intersection(*(set(row[columns[0]]["per_clip"]) for row in ours)))
    if len(clips) < 2:
        raise UserError("the runs share fewer than two held-out clips: compare runs on the same corpus and split")
    first = next(iter(groups))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title = f"{len(clips)} clips; less the first row: mean [95% interval], and ratio, over clips × seeds"
    for heading in ("", "seeds", "score", "mean", "/ trivial", "less the first row", "ratio"):
        table.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    for label, members in groups.items():
        for column in columns:
            found, digits = values(members, None, column, clips), DIGITS.get(column, 3)
            trivial = TRIVIAL.get(column)
            has_trivial = trivial is not None and all(trivial in run["rows"] for run in members)
            share = f"{found.mean() / values(members, trivial, column, clips).mean():.3f}" if has_trivial else ""
            cells = ["", ""]
            if label != first:
                d = paired_difference(found, values(groups[first], None, column, clips))
                cells = [f"{d.mean:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]"]
                cells.append(f"{d.ratio:.3f} [{d.ratio_low:.3f}, {d.ratio_high:.3f}]")
            name = label if column == columns[0] else ""
            table.add_row(name, str(len(members)) if name else "", column, f"{found.mean():.{digits}f}", share, *cells)
        table.add_section()
    return table


def main() -> None:
    """Compare the run folders on the command line."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m experiments.compare <run folder> <run folder> ...   (the first row is compared with)")
        sys.exit(0 if len(sys.argv) > 1 else 2)
    wide_console().print(compare([read(Path(name)) | {"settings": settings(Path(name))} for name in sys.argv[1:]]))


if __name__ == "__main__":
    guarded(main)
