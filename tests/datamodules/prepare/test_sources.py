"""Finding the clips of a corpus in the packings that are about."""

from pathlib import Path

import pytest

from datamodules.prepare.sources import scan_collected, scan_grid


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("alignment", ["alignments/s1/a.align", "align/s1/a.align", "s1/align/a.align", "s1/a.align"])
def test_words_are_found_wherever_they_lie(tmp_path, alignment):
    touch(tmp_path, "s1/a.mpg", "s2/a.mpg", alignment)
    first, second = scan_grid(tmp_path)
    assert (first.id, first.speaker, first.view) == ("s1/a", "s1", "front")
    assert first.alignment == tmp_path / alignment
    assert second.id == "s2/a"
    assert second.alignment is None  # every speaker says sentences of the same names


def test_alignments_without_a_speaker_belong_to_the_only_one(tmp_path):
    touch(tmp_path, "s1/a.mpg", "align/a.align")
    assert scan_grid(tmp_path)[0].alignment == tmp_path / "align/a.align"


def test_deeper_packing_and_a_single_speakers_folder(tmp_path):
    touch(tmp_path, "s3/video/mpg_6000/b.mpg", "s3/video/mpg_6000/a.mpg")
    assert [clip.id for clip in scan_grid(tmp_path)] == ["s3/a", "s3/b"]
    assert [clip.id for clip in scan_grid(tmp_path / "s3")] == ["mpg_6000/a", "mpg_6000/b"]
    touch(tmp_path, "s7/a.mpg")
    assert [clip.id for clip in scan_grid(tmp_path / "s7")] == ["s7/a"]


def test_folders_of_frames_with_sound_elsewhere(tmp_path):
    touch(tmp_path, "s1/a/000.jpg", "s1/a/001.jpg", "audio/s1/a.wav", "align/s1/a.align", "s2/a/000.jpg")
    first, second = scan_grid(tmp_path)
    assert first.video == tmp_path / "s1/a"
    assert first.audio == tmp_path / "audio/s1/a.wav"
    assert first.alignment == tmp_path / "align/s1/a.align"
    assert second.audio is None


def test_collected_corpus(tmp_path):
    touch(tmp_path, "ann/left-30/01.mp4", "ann/front/test.mp4", "ann/front/test.wav", "ann/notes.mp4", ".trash/x/y.mp4")
    clips = scan_collected(tmp_path)
    assert [clip.id for clip in clips] == ["ann/front/test", "ann/left-30/01"]
    assert clips[0].audio == tmp_path / "ann/front/test.wav"
    assert (clips[1].view, clips[1].audio) == ("left-30", None)


@pytest.mark.parametrize("scan", [scan_grid, scan_collected])
def test_missing_and_empty_roots_say_what_is_expected(tmp_path, scan):
    with pytest.raises(ValueError, match="does not exist: give the folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"expected <speaker>"):
        scan(tmp_path)
