"""Memory of a preparation worker on full-HD video, short and long."""

import pytest

from experiments.checks.looped_video import prepare_alone, write_looped

MOST = 1.5e9  # bytes a worker
GROWTH = 1.10  # from a 10-second to a 10-minute file


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path):
    reports = []
    for seconds in (10, 600):
        write_looped(tmp_path / f"{seconds}s.mp4", seconds)
        reports.append(prepare_alone(tmp_path / f"{seconds}s.mp4", tmp_path / f"store-{seconds}"))
        print(f"\n{seconds} s of 1080p: {reports[-1].peak / 1e6:.0f} MB, {reports[-1].rate:.0f} frames a CPU second")
        assert reports[-1].frames == [seconds * 25], reports[-1]
        assert reports[-1].valid == [seconds * 25]
    short, long = (report.peak for report in reports)
    assert long <= MOST
    assert long <= GROWTH * short
