"""The clip store: what goes in comes out, whole or not at all."""

import errno
import os
import pickle
import resource
import subprocess
import sys

import cv2
import fsspec
import numpy as np
import pytest
import torch

from datamodules import clip_store
from datamodules.atomic import StoreError
from datamodules.clip_store import ClipData, ClipStore, CropSpool, Word, clip_path, read_row, verify_clip, write_clip
from datamodules.corpus_module import _statistics
from datamodules.crop_codec import decode_crop, encode_crop
from datamodules.manifest import MANIFEST, ClipRow, read_manifest, write_manifest

NUM_FRAMES = 9
WORDS = (Word(0.0, 0.1, "sil"), Word(0.1, 0.3, "bin"))


def photo(seed: int) -> np.ndarray:
    """A smooth colour picture of 256 px."""
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return cv2.resize(noise, (256, 256), interpolation=cv2.INTER_CUBIC)


def row(clip_id: str = "s1/a", **changes) -> ClipRow:
    values = dict(
        id=clip_id,
        source=clip_id,
        part=1,
        parts=1,
        start=0.0,
        faces=1,
        offset=0.02,
        offset_confidence=0.5,
        consent_reference="",
        speaker=clip_id.split("/")[0],
        view="front",
        frames=NUM_FRAMES,
        valid_frames=NUM_FRAMES,
        transcript="bin",
        sha256="0" * 64,
        source_bytes=10,
        residual=0.02,
        noise=0.5,
        consent="synthetic",
        settings="x",
        versions="av=1",
        jpeg_quality=95,
    )
    return ClipRow(**{**values, **changes})


def data(**changes) -> ClipData:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    values = dict(
        crops=[encode_crop(photo(t)) for t in range(NUM_FRAMES)],
        mean_crop=encode_crop(photo(99)),
        landmarks=normal(NUM_FRAMES, 68, 2),
        landmarks_detected=normal(NUM_FRAMES, 68, 2),
        expression=normal(NUM_FRAMES, 29),
        pose=normal(NUM_FRAMES, 6),
        shape=normal(199),
        valid=torch.ones(NUM_FRAMES, dtype=torch.bool),
        sound=torch.arange(640 * NUM_FRAMES, dtype=torch.int16),
        mfcc=normal(4 * NUM_FRAMES, 13),
        crop_transform=normal(NUM_FRAMES, 2, 3),
        mouth_box=torch.tensor([10.0, 20, 30, 40]),
        mouth_region=torch.tensor([11.0, 21, 29, 39]),
        words=WORDS,
    )
    return ClipData(**{**values, **changes})


@pytest.fixture
def store(tmp_path) -> ClipStore:
    rows = [row("s2/b"), row("s1/a")]
    for each in rows:
        write_clip(tmp_path, each, data())
    write_manifest(tmp_path, rows)
    return ClipStore(tmp_path)


def test_every_tensor_comes_back_as_it_went_in(store):
    clip, expected = store.open("s1/a"), data()
    names = set(vars(expected)) - {"crops", "mean_crop", "words", "thumbnail"}
    assert len(names) == 11
    for name in names:
        assert torch.equal(getattr(clip, name), getattr(expected, name)), name
    assert clip.words == WORDS
    assert clip.row == row("s1/a")
    assert clip.num_frames == NUM_FRAMES
    assert torch.equal(clip.waveform()[:2], torch.tensor([0.0, 1 / 32768]))
    assert not hasattr(clip, "no_such_thing")


def test_manifest_is_sorted_and_typed(store):
    assert [each.id for each in store.manifest] == ["s1/a", "s2/b"]
    assert read_manifest(store.root)[1] == row("s2/b")
    with pytest.raises(ValueError, match="holds no clip 's9/x'"):
        store.open("s9/x")


def test_crops_are_close_to_what_was_stored(store):
    clip = store.open("s1/a")
    assert np.abs(clip.crop(3).astype(int) - photo(3)).mean() < 1.5  # grey levels; RGB order is kept
    assert np.abs(clip.mean_crop().astype(int) - photo(99)).mean() < 1.5
    np.testing.assert_array_equal(clip.crops([2, 5, 2], 128), [clip.crop(t, 128) for t in (2, 5, 2)])
    with pytest.raises(IndexError, match="frames 0 to 8, not 9"):
        clip.crop(9)


def test_chroma_is_stored_at_full_resolution():
    checker = np.zeros((256, 256, 3), np.uint8)
    checker[::2, ::2] = checker[1::2, 1::2] = (200, 60, 60)
    checker[1::2, ::2] = checker[::2, 1::2] = (60, 100, 200)
    assert np.abs(decode_crop(np.frombuffer(encode_crop(checker), np.uint8)).astype(int) - checker).mean() < 6


@pytest.mark.parametrize("size", [64, 96, 128, 256, 512])
def test_pixel_centres_stay_where_the_convention_says(size):
    """A blob at x lies at (x + 1/2) k - 1/2 after resizing by k, for the decoder's own scaling as well."""
    y, x = np.mgrid[:256, :256]
    blob = np.exp(-((x - 101.3) ** 2 + (y - 140.6) ** 2) / (2 * 10.0**2))
    crop = np.repeat((255 * blob).astype(np.uint8)[..., None], 3, 2)
    small = decode_crop(np.frombuffer(encode_crop(crop), np.uint8), size)
    assert small.shape == (size, size, 3)
    weight = small[..., 0].astype(float) * (small[..., 0] > 10)
    v, u = np.mgrid[:size, :size]
    found = np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()
    factor = size / 256
    np.testing.assert_allclose(found, (np.array([101.3, 140.6]) + 0.5) * factor - 0.5, atol=0.06 * max(1, factor))


def test_reduced_decoding_is_an_area_average():
    jpeg = np.frombuffer(encode_crop(photo(1)), np.uint8)
    averaged = cv2.resize(decode_crop(jpeg), (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(decode_crop(jpeg, 128).astype(int) - averaged).mean() < 1


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def half(file, tensors, metadata):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(clip_store, "write_tensors", half)
    with pytest.raises(KeyboardInterrupt):
        write_clip(tmp_path, row(), data())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert read_row(tmp_path, "s1/a") is None


def test_damaged_clips_are_noticed(store):
    path = clip_path(store.root, "s1/a")
    whole = path.read_bytes()
    for broken in (whole[:-100], whole[:50], b"", b"no clip at all" * 100):
        path.write_bytes(broken)
        assert read_row(store.root, "s1/a") is None
        with pytest.raises(ValueError, match="prepare"):
            ClipStore(store.root).open("s1/a")
    path.write_bytes(whole)
    assert read_row(store.root, "s1/a") == row("s1/a")


def test_parts_of_different_lengths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected 9 frames everywhere"):
        write_clip(tmp_path, row(), data(pose=torch.zeros(8, 6)))


def test_store_without_manifest_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="prepare it first"):
        ClipStore(tmp_path)


def test_store_travels_to_loader_processes_without_its_memory_maps(store):
    store.open("s1/a")
    copy = pickle.loads(pickle.dumps(store))
    assert torch.equal(copy.open("s1/a").pose, store.open("s1/a").pose)


def test_only_so_many_clips_stay_open(store, monkeypatch):
    monkeypatch.setattr(clip_store, "OPEN_CLIPS", 1)
    first = store.open("s1/a")
    assert store.open("s1/a") is first
    store.open("s2/b")
    assert store.open("s1/a") is not first


def test_manifest_without_clips_keeps_its_columns(tmp_path):
    write_manifest(tmp_path, [])
    assert (tmp_path / MANIFEST).is_file()
    assert read_manifest(tmp_path) == []


def test_spooled_crops_make_the_same_file(tmp_path):
    write_clip(tmp_path / "list", row(), data())
    with CropSpool(tmp_path / "spool") as spool:
        for jpeg in data().crops:
            spool.append(jpeg)
        assert len(spool) == NUM_FRAMES
        write_clip(tmp_path / "spool", row(), data(crops=spool))
    assert clip_path(tmp_path / "spool", "s1/a").read_bytes() == clip_path(tmp_path / "list", "s1/a").read_bytes()
    assert [path.name for path in (tmp_path / "spool").rglob("*") if path.is_file()] == ["a.safetensors"]


def test_bit_rot_is_found(store):
    path = clip_path(store.root, "s1/a")
    assert verify_clip(path)
    whole = path.read_bytes()
    for position in (200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert not verify_clip(path)
    assert not verify_clip(clip_path(store.root, "s1/none"))


def test_store_behind_a_url_is_the_same_store(store):
    files = fsspec.filesystem("memory")
    for path in store.root.rglob("*"):
        if path.is_file():
            files.pipe(f"/bucket/store/{path.relative_to(store.root)}", path.read_bytes())
    far = pickle.loads(pickle.dumps(ClipStore("memory://bucket/store/")))
    assert far.manifest == store.manifest
    near, clip = store.open("s2/b"), far.open("s2/b")
    assert torch.equal(clip.landmarks, near.landmarks)
    np.testing.assert_array_equal(clip.crops([2, 3, 7], 64), near.crops([2, 3, 7], 64))
    np.testing.assert_array_equal(clip.mean_crop(), near.mean_crop())
    files.rm("/bucket/store/s1/a.safetensors")
    with pytest.raises(ValueError, match="missing or damaged"):
        far.open("s1/a")
    with pytest.raises(ValueError, match="prepare it first"):
        ClipStore("memory://bucket/nothing")


def test_full_disk_ends_with_the_remedy_and_leaves_nothing(tmp_path, monkeypatch):
    def full(file, tensors, metadata):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(clip_store, "write_tensors", full)
    with pytest.raises(StoreError, match=r"no room left in .*: free some space, or choose another folder"):
        write_clip(tmp_path, row(), data())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_disk_that_is_full_in_earnest(tmp_path):
    """A limit of the process on the size of files stands for the disk: the kernel refuses the write."""
    code = (
        "import resource; from pathlib import Path\n"
        "from datamodules.clip_store import CropSpool, write_clip\n"
        "from tests.datamodules.test_clip_store import data, row\n"
        f"root = Path({str(tmp_path)!r}); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "for attempt in (lambda: write_clip(root, row(), data()), lambda: CropSpool(root).append(b'x' * 10**6)):\n"
        "    try:\n        attempt()\n"
        "    except OSError as error:\n        print(type(error).__name__, error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [line.split(" (")[0] for line in said.splitlines()] == [f"StoreError no room left in {tmp_path}"] * 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_statistics_of_a_corpus_of_more_clips_than_files_may_be_open(tmp_path, monkeypatch):
    """They go through all clips and hold none of them."""
    monkeypatch.setattr(clip_store, "OPEN_CLIPS", 8)
    rows = [row(f"s1/c{number:03d}") for number in range(100)]
    for each in rows:
        write_clip(tmp_path, each, data())
    write_manifest(tmp_path, rows)
    store = ClipStore(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64 + len(os.listdir("/proc/self/fd")), before[1]))
    try:
        mean, std = _statistics(store.open(each.id).mfcc[2:] for each in rows)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    expected = torch.cat([store.open(each.id).mfcc[2:] for each in rows]).double()
    torch.testing.assert_close(mean, expected.mean(0).float())
    torch.testing.assert_close(std, expected.std(0, correction=0).float())
