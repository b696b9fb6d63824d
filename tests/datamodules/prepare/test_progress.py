"""The remaining time goes by what this run does, and silence is silence."""

import time

import pytest

from datamodules.prepare import progress
from datamodules.prepare.progress import PreparationProgress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_rate_and_remaining_time_go_by_bytes_done_in_this_run(clock, capsys):
    with PreparationProgress("preparing", 4, 1000, True) as shown:
        assert shown.status() == "0/4"
        clock[0] = 50.0
        shown.advance(200, 5000)
        assert shown.status() == "1/4, 100 frames/s, 0:03:20 left"
        clock[0] = 100.0
        shown.advance(600, 15000)
        assert shown.status() == "2/4, 200 frames/s, 0:00:25 left"
        shown.advance(200, 0)
        assert "left" not in shown.status()
    # not a terminal: a line a minute
    assert capsys.readouterr().err.splitlines() == ["preparing: 2/4, 200 frames/s, 0:00:25 left"]
    assert progress._clock(3661) == "1:01:01"


def test_nothing_is_shown_when_not_wanted_and_nothing_to_do_is_no_mistake(clock, capsys):
    with PreparationProgress("verifying", 0, 0, False) as shown:
        clock[0] = 100.0
        assert shown.status() == "0/0"
    with PreparationProgress("verifying", 1, 0, False) as shown:
        clock[0] = 200.0
        shown.advance(0, 0)
    assert capsys.readouterr().err == ""
