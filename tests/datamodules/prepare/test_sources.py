"""Finding the clips of a corpus in the packings that are about."""

import os
import re
from pathlib import Path

import pytest

from datamodules.prepare.sources import scan_collected, scan_folder, scan_grid


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


def test_any_folder_of_videos(tmp_path):
    touch(
        tmp_path,
        "ann/talk.mp4",
        "ann/2024/walk.MOV",
        "ann/talk.wav",
        "solo.webm",
        "notes.txt",
        ".trash/x.mp4",
        "a/.b.mp4",
    )
    clips = {clip.id: clip for clip in scan_folder(tmp_path)}
    assert list(clips) == ["ann/2024/walk", "ann/talk", "solo"]
    assert [clip.speaker for clip in clips.values()] == ["ann", "ann", "solo"]
    assert clips["ann/talk"].audio == tmp_path / "ann/talk.wav"
    assert clips["solo"].audio is None
    with pytest.raises(ValueError, match="holds no video"):
        scan_folder(tmp_path / "ann/2024/..//..//a")


def test_ids_are_plain_and_unique_whatever_the_names(tmp_path):
    names = [
        "my talk.mp4", "my_talk.mp4", "50%.mp4", "50%20.mp4", "é.mp4", "e.mp4", "日本語.mp4", "中文字.mp4",
        "..a.b..mp4", "x.mp4", "x.mov", "X.mkv", "x-001.mp4", "y-001.mp4", "-rf.mp4", "a;b&c.mp4",
        "n" * 200 + ".mp4", "n" * 201 + ".mp4",
        "new\nline.mp4", "{braces}[1]*?.mp4", "d.d/e e/f.mp4", "d.d/e_e/f.mp4",
    ]  # fmt: skip
    touch(tmp_path, *names)
    undecodable = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    with open(undecodable, "wb"):
        pass
    clips = scan_folder(tmp_path)
    shown = [name for name in names if not name.startswith(".")]
    ids = [clip.id for clip in clips]
    assert len({identity.casefold() for identity in ids}) == len(clips) == len(shown) + 1
    for identity in ids:
        assert re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]{0,90}/?)+", identity), identity
    assert "y-001" in ids  # a name that is plain already and nobody else's stays
    # the clips of one source are named after it, with numbers: no other source may have such a name
    parts = [re.sub(r"-\d{3,}$", "", identity) for identity in ids if re.search(r"-\d{3,}$", identity)]
    assert not set(parts) & set(ids)
    assert ids == [clip.id for clip in scan_folder(tmp_path)]


def test_speakers_of_a_folder_stay_apart(tmp_path):
    folders = ["张伟", "李娜", "José", "Jose", "ann", "Ann", "bob"]
    touch(tmp_path, *(f"{folder}/{name}.mp4" for folder in folders for name in ("a", "b")), "jürgen.mp4", "Ben.mp4")
    clips = scan_folder(tmp_path)
    speakers: dict[str, set[str]] = {}
    for clip in clips:
        speakers.setdefault(clip.video.relative_to(tmp_path).parts[0], set()).add(clip.speaker)
    assert all(len(names) == 1 for names in speakers.values())
    assert len({name.casefold() for names in speakers.values() for name in names}) == len(folders) + 2
    assert (speakers["bob"], speakers["Ben.mp4"]) == ({"bob"}, {"Ben"})
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for names in speakers.values() for name in names)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("01.mov", "01.mp4"), r"front/01\.mov and .*front/01\.mp4 have one name"),
        (("01.mp4", "02.mp4", "01-001.mp4"), r"01-001\.mp4 is named as a part of .*01\.mp4 would be"),
    ],
)
def test_takes_of_one_name_are_refused(tmp_path, names, reason):
    touch(tmp_path, *(f"ann/front/{name}" for name in names))
    with pytest.raises(ValueError, match=reason):
        scan_collected(tmp_path)


def test_numbers_at_the_end_of_a_takes_name_are_its_own(tmp_path):
    touch(tmp_path, "ann/front/01-001.mp4", "ann/front/01-002.mp4", "ann/left-30/01.mp4")
    assert [clip.id for clip in scan_collected(tmp_path)] == ["ann/front/01-001", "ann/front/01-002", "ann/left-30/01"]


@pytest.mark.parametrize(
    ("scan", "suffix", "view"),
    [(scan_grid, b".mpg", b""), (scan_collected, b".mp4", b"\xfe/"), (scan_folder, b".mp4", b"")],
)
def test_names_that_are_no_text_can_be_written_all_the_same(tmp_path, scan, suffix, view):
    for name in (b"s\xff/" + view + b"a\xfe", b"s\xff/" + view + b"a\xfd", b"s\xfd/" + view + b"a\xfe"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + suffix))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.with_suffix(".align" if scan is scan_grid else ".wav").touch()
    clips = scan(tmp_path)
    assert len({clip.id for clip in clips}) == 3
    assert len({clip.speaker for clip in clips}) == 2
    for clip in clips:
        "/".join((clip.id, clip.speaker, clip.view)).encode()  # as the manifest does
        assert clip.alignment is not None if scan is scan_grid else clip.audio is not None
