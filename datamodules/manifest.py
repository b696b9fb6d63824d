"""The index of a prepared corpus: one row a clip, and files that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.atomic import atomic_file

MANIFEST = "manifest.parquet"


@dataclass(frozen=True)
class ClipRow:
    """What the manifest knows about a clip.

    Attributes:
        id: "<speaker>/<name>" or "<speaker>/<view>/<take>"; with "-001", "-002", ... where a source gave several clips.
        source: id of the source. part, parts: which of the clips that were made of it, 1 to parts. start: of the
            clip's first frame, seconds into the source.
        frames: number of frames at 25 a second. valid_frames: those with a fitted face.
        transcript: the words, blank-separated; empty if not known.
        sha256: of the source video and the files that belong to it. source_bytes: their size.
        residual: mean distance of fitted from detected landmarks / outer-eye distance.
        noise: estimated noise of the detected landmarks, px of the source frame.
        faces: most faces that were seen at once.
        offset: sound after picture, s; positive when the sound is late, NaN if it cannot be told.
        offset_confidence: 0 to 1.
        consent: on what basis the person's face may be processed: research-corpus, self, written or synthetic.
        consent_reference: licence, name or document that the consent is found by.
        settings: fingerprint of the preparation's settings and face model.
        versions: of the tools that made the clip. jpeg_quality: of its crops.
        dropped: JSON of the source's spans that are in no clip, with reasons; on part 1, else empty.
        frame_width, frame_height: of the decoded frames, which `crop_transform` starts from: upright, in square pixels
            and reduced to 1920 px; 0 if not known.
        split: side of the stored split; empty in the clip's own file.
    """

    id: str
    source: str
    part: int
    parts: int
    speaker: str
    view: str
    start: float
    frames: int
    valid_frames: int
    transcript: str
    sha256: str
    source_bytes: int
    residual: float
    noise: float
    faces: int
    offset: float
    offset_confidence: float
    consent: str
    consent_reference: str
    settings: str
    versions: str
    jpeg_quality: int
    dropped: str = ""
    frame_width: int = 0
    frame_height: int = 0
    split: str = ""


def write_manifest(root: Path, rows: Iterable[ClipRow]) -> None:
    """Write the manifest, sorted by id, complete or not at all.

    Raises:
        StoreError: the store cannot be written.
    """
    ordered = sorted(rows, key=lambda row: row.id)
    with atomic_file(root, root / MANIFEST) as file:
        pq.write_table(rows_to_table(ordered, ClipRow), file)


def read_manifest(root: Path | str) -> list[ClipRow]:
    """Rows of the manifest, in order of id.

    Args:
        root: of the store, or its URL for fsspec.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it was written by another version.
    """
    place = f"{str(root).rstrip('/')}/{MANIFEST}"
    with fsspec.open(place, "rb") as file:
        rows = pq.read_table(file).to_pylist()
    try:
        return [ClipRow(**row) for row in rows]
    except TypeError as error:
        raise ValueError(f"{place} is of another version: prepare the corpus again") from error


def rows_to_table(rows: Sequence[object], kind: type) -> pa.Table:
    """Flat dataclasses of str, int and float as a table, typed even when there are none."""
    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    schema = pa.schema([(field.name, types[str(field.type)]) for field in fields(kind)])
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)  # type: ignore[call-overload]
