"""The index of a prepared corpus: one row a clip, and files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = "manifest.parquet"


@dataclass(frozen=True)
class ClipRow:
    """What the manifest knows about a clip.

    Attributes:
        id: "<speaker>/<name>" or "<speaker>/<view>/<take>".
        frames: number of frames at 25 a second. valid_frames: those with a fitted face.
        transcript: the words, blank-separated; empty if not known.
        sha256: of the source video. source_bytes: its size.
        residual: mean distance of fitted from detected landmarks / outer-eye distance.
        noise: estimated noise of the detected landmarks, px of the source frame.
        consent: on what basis the person's face may be processed.
        settings: fingerprint of the preparation's settings and face model.
        versions: of the tools that made the clip. jpeg_quality: of its crops.
    """

    id: str
    speaker: str
    view: str
    frames: int
    valid_frames: int
    transcript: str
    sha256: str
    source_bytes: int
    residual: float
    noise: float
    consent: str
    settings: str
    versions: str
    jpeg_quality: int


def write_manifest(root: Path, rows: Iterable[ClipRow]) -> None:
    """Write the manifest, sorted by id, complete or not at all."""
    ordered = sorted(rows, key=lambda row: row.id)
    table = rows_to_table(ordered, ClipRow)
    with AtomicFile(root / MANIFEST) as temporary:
        pq.write_table(table, temporary)


def read_manifest(root: Path) -> list[ClipRow]:
    """Rows of the manifest, in order of id."""
    return [ClipRow(**row) for row in pq.read_table(root / MANIFEST).to_pylist()]


def rows_to_table(rows: Sequence[object], kind: type) -> pa.Table:
    """Flat dataclasses of str, int and float as a table, typed even when there are none."""
    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    schema = pa.schema([(field.name, types[str(field.type)]) for field in fields(kind)])
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)  # type: ignore[call-overload]


class AtomicFile:
    """Context that gives a temporary name, and puts the file in place, flushed to the disk, if all went well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            self.temporary.unlink(missing_ok=True)
            return
        with open(self.temporary, "rb") as file:
            os.fsync(file.fileno())
        self.temporary.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)
