"""Measure again what the project claims: `python -m experiments.verify [topic ...]`.

A topic is a module of `experiments.checks` with a function `measure(materials)` that yields figures. The exit status is
1 when a figure misses its bound; what has no bound, or no data at hand, is only told.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.checks.figure import Figure, Materials
from experiments.command_line import UserError, guarded

TOPICS = ("face", "synthetic", "preparation", "loader")
GRID_VARIABLE, ICT_VARIABLE = "TALKIN_GRID_ROOT", "TALKIN_ICT_FACEKIT"
VERDICTS = {True: "[green]holds[/]", False: "[bold red]missed[/]", None: ""}
COLUMNS = (("figure", 60), ("bound", 12), ("reached", 34), ("", 6), ("s", 5))  # and their widths, characters
LOG_WIDTH = 132  # characters, where there is no terminal to ask


class DoesNotHold(UserError):
    """Some figure missed its bound."""


def parse(arguments: list[str] | None = None) -> tuple[list[str], Materials]:
    """Topics and materials of a command line.

    Raises:
        UserError: there is no such topic, or a path does not exist.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.verify", description=__doc__.split("\n\n")[0])
    parser.add_argument("topics", nargs="*", metavar="topic", help=f"default: all of {', '.join(TOPICS)}")
    parser.add_argument("--grid", help=f"folder of real GRID clips (default: ${GRID_VARIABLE})")
    parser.add_argument("--ict", help=f"ICT-FaceKit, its folder or archive (default: ${ICT_VARIABLE})")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic people and sentences")
    parser.add_argument("--full", action="store_true", help="whole corpora instead of samples of them (minutes)")
    given = parser.parse_args(arguments)
    for topic in given.topics:
        if topic not in TOPICS:
            near = difflib.get_close_matches(topic, TOPICS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TOPICS)}"
            raise UserError(f"no topic {topic!r}: {hint}")
    grid = _existing("--grid", given.grid or os.environ.get(GRID_VARIABLE))
    ict = _existing("--ict", given.ict or os.environ.get(ICT_VARIABLE))
    return given.topics or list(TOPICS), Materials(grid, ict, given.seed, given.full)


def _existing(option: str, path: str | None) -> Path | None:
    if not path:
        return None
    found = Path(path).expanduser()
    if not found.exists():
        raise UserError(f"{option}: {found} does not exist")
    return found


def measure(topic: str, materials: Materials) -> Iterator[Figure]:
    """Figures of a topic, one by one as they are ready."""
    return importlib.import_module(f"experiments.checks.{topic}").measure(materials)


def verify(names: list[str], materials: Materials, console: Console) -> None:
    """Print the figures of some topics as they come.

    Raises:
        DoesNotHold: after all of them, if one missed its bound.
    """
    missed = 0
    for topic in names:
        console.print(f"\n[bold]{topic}[/]")
        console.print(_line([name for name, _ in COLUMNS], style="dim"))
        since = time.monotonic()
        for figure in measure(topic, materials):
            missed += figure.holds is False
            seconds, since = time.monotonic() - since, time.monotonic()
            verdict = VERDICTS[figure.holds]
            console.print(_line([figure.name, figure.bound, figure.reached, verdict, f"{seconds:.0f}"]))
    if missed:
        raise DoesNotHold(f"{missed} figure{'s' if missed > 1 else ''} missed the bound")


def _line(cells: list[str], style: str = "") -> Table:
    """A line of the table, to be printed as soon as it is known."""
    table = Table.grid(padding=(0, 2))
    for name, width in COLUMNS:
        table.add_column(width=width, justify="right" if name == "s" else "left", overflow="fold")
    table.add_row(*cells, style=style)
    return table


def main() -> None:
    """Run the command line."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    guarded(lambda: verify(*parse(), console))


if __name__ == "__main__":
    main()
