"""What a check yields: a figure beside its bound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Figure(NamedTuple):
    """One line of the table.

    Attributes:
        name: what was measured.
        bound: what is claimed; empty for a figure that is only told.
        reached: what was measured, with its unit.
        holds: whether the claim holds; None where nothing is claimed or the data are not at hand.
    """

    name: str
    bound: str
    reached: str
    holds: bool | None


@dataclass(frozen=True)
class Materials:
    """What the checks may use.

    Attributes:
        grid: folder of real GRID clips, if at hand. ict: ICT-FaceKit, its folder or archive.
        seed: of the synthetic people and sentences.
        full: measure whole corpora instead of samples of them.
    """

    grid: Path | None = None
    ict: Path | None = None
    seed: int = 0
    full: bool = False


def at_least(name: str, value: float, bound: float, form: str = "{:.3f}") -> Figure:
    """A figure that must not be lower than its bound; NaN does not hold."""
    return Figure(name, "≥ " + form.format(bound), form.format(value), bool(value >= bound))


def at_most(name: str, value: float, bound: float, form: str = "{:.3f}") -> Figure:
    """A figure that must not be higher than its bound; NaN does not hold."""
    return Figure(name, "≤ " + form.format(bound), form.format(value), bool(value <= bound))


def told(name: str, reached: str) -> Figure:
    """A figure without a claim."""
    return Figure(name, "", reached, None)


def unavailable(name: str, remedy: str) -> Figure:
    """A figure whose data are not at hand."""
    return Figure(name, "", f"unavailable: {remedy}", None)
