"""All kinds of hostile inputs, and the page that lists them.

`python -m tests.datamodules.prepare.hostile_table` writes docs/hostile_inputs.md from the cases.
"""

from __future__ import annotations

from pathlib import Path

from tests.datamodules.prepare import hostile_files, hostile_pictures
from tests.datamodules.prepare.hostile import CASES

__all__ = ["CASES", "DOCUMENT", "hostile_files", "hostile_pictures", "table"]

DOCUMENT = Path(__file__).parents[3] / "docs" / "hostile_inputs.md"


def table() -> str:
    """The cases as a page of Markdown."""
    lines = [
        "# Hostile inputs",
        "",
        "Each kind is made by the tests (`tests/datamodules/prepare/hostile*.py`) and put through the whole",
        "preparation of a source; `test_hostile.py` asserts the outcome, and that this page says the same. Nothing",
        "raises, and no unfinished file is left. `python -m tests.datamodules.prepare.hostile_table` writes this page.",
        "",
        f"{len(CASES)} kinds.",
    ]
    for group in dict.fromkeys(one.group for one in CASES):
        lines += ["", f"## {group}", "", "| kind | outcome |", "|---|---|"]
        lines += [f"| {one.kind} | {one.outcome} |" for one in CASES if one.group == group]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(table(), encoding="utf-8")
