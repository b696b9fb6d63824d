"""Word alignments of GRID."""

import pytest

from datamodules.clip_store import Word
from datamodules.prepare.align import read_alignment, transcript


def test_times_are_seconds_and_silence_is_no_word(tmp_path):
    path = tmp_path / "bbaf2n.align"
    path.write_text("0 23750 sil\n23750 29500 bin\n29500 34000 blue\n\n34000 35500 sp\n")
    words = read_alignment(path)
    assert words[1] == Word(0.95, 1.18, "bin")
    assert transcript(words) == "bin blue"


@pytest.mark.parametrize("line", ["0 100", "a b c", "200 100 bin"])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "x.align"
    path.write_text(f"0 100 sil\n{line}\n")
    with pytest.raises(ValueError, match=r"x\.align, line 2"):
        read_alignment(path)
