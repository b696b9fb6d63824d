"""Preparing in a process group of its own, which the tests kill: python -m tests.datamodules.prepare.interrupted."""

import sys
from pathlib import Path

from datamodules.prepare.pipeline import prepare_corpus
from datamodules.prepare.sources import scan_grid
from tests.datamodules.fake_corpus import NumberDetector, fake_face, true_landmarks

FACE = fake_face()
TRUTH = true_landmarks(FACE, 0, 40)


def prepare(root: Path, store: Path, workers: int) -> None:
    """Prepare a corpus of `write_grid` with the detector that reads the frames' numbers."""
    prepare_corpus(scan_grid(root), store, FACE, workers, False, detector=NumberDetector(TRUTH))


if __name__ == "__main__":
    print("begun", flush=True)
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
