"""What an evaluation prints: rows beside trivial predictors, margins over them, swap test, gap."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.compare import Difference, paired_difference
from experiments.evaluation.arithmetic import FLOAT32
from experiments.evaluation.clips import RETRIEVAL
from experiments.evaluation.scores import UNITS
from experiments.evaluation.swap import GENERATED as GENERATOR
from experiments.tables import PAPER, cell
from lightning_modules.renderer import MEAN_FRAME

FIDELITY = ("PSNR", "SSIM", "PSNR_mouth", "SSIM_mouth", "PSNR_frame")  # one table; how it looks, another
DIGITS = dict.fromkeys(("PSNR", "PSNR_mouth", "PSNR_frame"), 2)
MARGINS = (MEAN_FRAME, RETRIEVAL)  # predictors that a row is compared with, clip by clip
ARITHMETIC_COLUMNS = ("PSNR", "PSNR_mouth", "SSIM_mouth", "sharpness")
GAP_COLUMNS = ("PSNR_mouth", "SSIM_mouth", "sharpness", "flicker")
SWAP_UNITS = {
    "given": "r, given",
    "hidden": "r, hidden",
    "chance": "r, given–hidden",
    "stillness": "moves at rest / truth",
}


def show(results: dict, console: Console) -> None:
    """Print one evaluation."""
    rows = results["rows"]
    known = [column for column in UNITS if any(column in row for row in rows.values())]
    console.print(
        f"{results['name']}: {results['clips']} held-out clips, {results['frames']} frames, {results['crop']} px, "
        f"seed {results['seed']}; mean ± half of the 95% interval over clips",
        highlight=False,
        soft_wrap=True,
    )
    paper = PAPER.get(results["corpus"], {})
    for columns in ([name for name in known if name in FIDELITY], [name for name in known if name not in FIDELITY]):
        table = _table(["", *(f"{column}\n{UNITS[column]}" for column in columns)])
        for name, row in rows.items():
            table.add_row(name, *(cell(row.get(column), DIGITS.get(column, 3)) for column in columns))
        if any(column in paper for column in columns):
            table.add_section()
            table.add_row("paper, its data", *(str(paper.get(column, "")) for column in columns), style="dim")
        console.print(table)
    if shares := results["network_share"]:
        believed = np.array([*shares.values()])
        console.print(
            f"of what the generator adds to warped references {believed.mean():.2f} is believed "
            f"({believed.min():.2f} to {believed.max():.2f} over clips)",
            highlight=False,
        )
    if results["flagged"]:
        console.print(f"{results['flagged']} frames were flagged and score nothing", highlight=False)
    if results["unavailable"]:
        console.print(f"unavailable: {', '.join(results['unavailable'])}", highlight=False)
    _show_margins(rows, console)
    if results["gap"]:
        _show_gap(rows, console)
    _show_arithmetic(rows, console)
    if results["swap"]:
        _show_swap(results["swap"], console)


def paired(rows: dict, first: str, second: str, column: str) -> Difference | None:
    """First row less second over the clips that both have; None for fewer than two."""
    values = [rows[name][column]["per_clip"] for name in (first, second)]
    clips = sorted(values[0].keys() & values[1].keys())
    if len(clips) < 2:
        return None
    ours, theirs = (np.array([[each[clip] for clip in clips]]) for each in values)
    return paired_difference(ours, theirs)


def _show_margins(rows: dict, console: Console) -> None:
    table = _table(["mouth PSNR, dB, less", *MARGINS])
    for name in (name for name in rows if name.partition(",")[2]):
        table.add_row(name, *(_difference(paired(rows, name, other, "PSNR_mouth"), 2) for other in MARGINS))
    console.print(table)


def _show_gap(rows: dict, console: Console) -> None:
    """Predicted less true landmarks."""
    table = _table(["predicted less true landmarks", *GAP_COLUMNS])
    for stage in dict.fromkeys(name.partition(", ")[0] for name in rows if name.endswith("predicted landmarks")):
        pair = (f"{stage}, predicted landmarks", f"{stage}, true landmarks")
        table.add_row(stage, *(_difference(paired(rows, *pair, column), 3) for column in GAP_COLUMNS))
    console.print(table)


def _show_arithmetic(rows: dict, console: Console) -> None:
    """Faster arithmetic less float32."""
    exact = f"{GENERATOR} in {FLOAT32}"
    if exact not in rows:
        return
    table = _table(["less float32", *ARITHMETIC_COLUMNS])
    for name in (name for name in rows if name.startswith(f"{GENERATOR} in ") and name != exact):
        table.add_row(name, *(_difference(paired(rows, name, exact, column), 3) for column in ARITHMETIC_COLUMNS))
    console.print(table)


def _show_swap(swap: dict, console: Console) -> None:
    table = _table(["another clip's mouth", *SWAP_UNITS.values(), "r, all frames", "slope", "frames", "no face"])
    for name, row in swap.items():
        pooled = row["pooled"]
        table.add_row(
            name,
            *(cell(row.get(column), 3) for column in SWAP_UNITS),
            f"{pooled['given']:.3f}",
            f"{pooled['slope']:.2f}",
            str(pooled["frames"]),
            str(pooled["missed"]),
        )
    console.print(table)


def _difference(found: Difference | None, digits: int) -> str:
    if found is None:
        return ""
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def _table(headings: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right", no_wrap=True)
    return table
