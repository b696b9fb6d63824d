"""The synthetic corpora without pictures."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from datamodules.clip_store import ClipStore, clip_path
from datamodules.manifest import MANIFEST
from datamodules.prepare.decode import read_audio, video_start
from datamodules.synthetic.corpus import generate_collected_corpus, generate_grid_corpus
from datamodules.synthetic.spoken_store import spoken_collected, spoken_grid
from model_zoo.functional.camera import apply_similarity


def test_it_holds_the_performances_of_the_rendered_corpus(tmp_path):
    raw = generate_grid_corpus(tmp_path / "raw", 1, 1, seed=3, workers=0)
    store = ClipStore(spoken_grid(tmp_path / "spoken", 1, 1, seed=3, workers=0))
    (row,) = store.manifest
    clip, truth = store.open(row.id), load_file(raw / "truth" / f"{row.id}.safetensors")
    assert torch.equal(clip.expression, truth["expression"])
    assert torch.equal(clip.shape, truth["shape"])
    in_frame = apply_similarity(clip.crop_transform, truth["landmarks"])
    assert torch.allclose(clip.landmarks, in_frame, atol=1e-2)
    # The video's sound went through a lossy codec.
    video = raw / f"{row.id}.mpg"
    heard = read_audio(video, video_start(video))[: len(clip.sound)]
    kept = clip.sound.numpy()[: len(heard)]
    assert np.corrcoef(heard, kept)[0, 1] > 0.9
    assert [word.text for word in clip.words] == row.transcript.split()


def test_a_view_shows_the_same_performance_from_another_side(tmp_path):
    raw = generate_collected_corpus(tmp_path / "raw", 1, ["left-30"], seconds=1.0, seed=1, workers=0)
    store = ClipStore(spoken_collected(tmp_path / "spoken", 1, 1.0, ["front", "left-30"], seed=1, workers=0))
    assert [row.view for row in store.manifest] == ["front", "front", "left-30", "left-30"]
    front, side = (store.open(f"p1/{view}/train") for view in ("front", "left-30"))
    truth = load_file(raw / "truth" / "p1" / "left-30" / "train.safetensors")
    assert torch.equal(side.expression, truth["expression"])
    assert torch.equal(front.expression, side.expression)
    assert torch.equal(front.sound, side.sound)
    assert not torch.allclose(front.landmarks, side.landmarks, atol=1.0)


def test_what_is_there_is_kept_and_what_is_missing_is_made(tmp_path):
    out = spoken_grid(tmp_path, 1, 2, workers=0)
    first, second = (clip_path(out, row.id) for row in ClipStore(out).manifest)
    kept, bytes_before = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    (out / MANIFEST).unlink()
    spoken_grid(tmp_path, 1, 2, workers=0)
    assert first.stat().st_mtime_ns == kept
    assert second.read_bytes() == bytes_before
    assert len(ClipStore(out)) == 2


def test_pictures_are_refused_in_one_line(tmp_path):
    store = ClipStore(spoken_grid(tmp_path, 1, 1, workers=0))
    with pytest.raises(ValueError, match="no pictures"):
        store.open(store.manifest[0].id).crop(0)
