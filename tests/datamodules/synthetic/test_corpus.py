"""The synthetic corpora on disk: layout, truth, repeatability."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from datamodules.prepare.sources import scan_collected, scan_grid
from datamodules.synthetic.corpus import VIEWS, generate_collected_corpus, generate_grid_corpus
from datamodules.synthetic.performance import draw_speaker, recorded, seeded
from datamodules.synthetic.speech import draw_sentences, placed, sentence, speak
from model_zoo.face.procedural import procedural_face
from model_zoo.functional.mfcc import mfcc


def contents(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return generate_grid_corpus(tmp_path_factory.mktemp("grid"), 2, 2, seed=3, workers=0)


def test_layout_is_grids(corpus):
    clips = scan_grid(corpus)
    assert [c.speaker for c in clips] == ["s1", "s1", "s2", "s2"]
    for clip in clips:
        with av.open(str(clip.video)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, video.width, video.height) == ("mpeg1video", 360, 288)
            assert video.average_rate == 25
            assert (audio.codec_context.name, audio.rate) == ("mp2", 44_100)
            assert sum(1 for _ in container.decode(video=0)) == 75
        with av.open(str(clip.video)) as container:
            assert sum(f.samples for f in container.decode(audio=0)) == pytest.approx(3 * 44_100, abs=1152)
        lines = [line.split() for line in clip.alignment.read_text().splitlines()]
        assert [word for *_, word in lines] == ["sil", *sentence(clip.video.stem), "sil"]
        bounds = [int(b) for start, end, _ in lines for b in (start, end)]
        assert bounds[0] == 0
        assert bounds[-1] == 75_000
        assert bounds == sorted(bounds)


def test_truth_projects_onto_its_landmarks(corpus):
    face = procedural_face()
    for path in (corpus / "truth").rglob("*.safetensors"):
        truth = load_file(path)
        assert {k: tuple(v.shape) for k, v in truth.items()} == {
            "expression": (75, 29), "pose": (75, 6), "landmarks": (75, 68, 2), "shape": (199,),
        }  # fmt: skip
        projected = face.project_landmarks(truth["shape"], truth["expression"], truth["pose"])
        assert torch.allclose(projected, truth["landmarks"], atol=1e-3)
        frame = torch.tensor([360.0, 288.0])
        assert ((truth["landmarks"] > 0) & (truth["landmarks"] < frame)).all()


def test_mouth_moves_while_somebody_speaks(corpus):
    for path in (corpus / "truth").rglob("*.safetensors"):
        points = load_file(path)["landmarks"]
        opening = (points[:, 66, 1] - points[:, 62, 1]) / (points[:, 45] - points[:, 36]).norm(dim=1)
        speaker, name = path.parent.name, path.stem
        lines = [line.split() for line in (corpus / "alignments" / speaker / f"{name}.align").read_text().splitlines()]
        start, end = int(lines[1][0]) // 1000, int(lines[-2][1]) // 1000  # frames
        assert opening[start:end].std() > 0.015
        assert opening[: start - 3].abs().max() < 0.03
        assert 0.05 < opening.max() < 0.35


def test_what_is_lost_is_made_again_with_the_same_bytes(corpus):
    """Resuming, another process and another order all give the same files."""
    before = contents(corpus)
    lost = scan_grid(corpus)[2]
    lost.video.unlink()
    lost.alignment.unlink()
    seen = []
    generate_grid_corpus(corpus, 2, 2, seed=3, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 4)]
    assert contents(corpus) == before


def test_seeds_and_speakers_differ():
    one, two, other = draw_speaker(0, 0, 5), draw_speaker(0, 1, 5), draw_speaker(1, 0, 5)
    assert torch.equal(one.shape, draw_speaker(0, 0, 5).shape)
    assert not torch.allclose(one.shape, two.shape)
    assert not torch.allclose(one.shape, other.shape)
    tones = sorted(draw_speaker(0, i, 12).look.skin.mean() for i in range(12))
    assert tones[0] < 0.4
    assert tones[-1] > 0.7
    assert np.diff(tones).max() < 0.15


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="speakers"):
        generate_grid_corpus(tmp_path, 0, 1)
    with pytest.raises(ValueError, match="no view"):
        generate_collected_corpus(tmp_path, 1, views=("behind",))
    with pytest.raises(ValueError, match="even"):
        generate_collected_corpus(tmp_path, 1, resolution=(321, 240))


def test_collected_layout(tmp_path):
    views = ("front", "left-30", "up-30")
    generate_collected_corpus(tmp_path, 1, views, seconds=1, resolution=(160, 120), seed=0, workers=0)
    assert [c.id for c in scan_collected(tmp_path)] == [f"p1/{v}/{take}" for v in views for take in ("test", "train")]
    truth = {v: load_file(tmp_path / "truth" / "p1" / v / "train.safetensors") for v in views}
    with av.open(str(tmp_path / "p1" / "front" / "train.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25
    # One performance, three cameras.
    assert torch.equal(truth["front"]["expression"], truth["left-30"]["expression"])
    nose = {v: truth[v]["landmarks"][:, 30] - truth[v]["landmarks"][:, [36, 45]].mean(1) for v in views}
    scale = truth["front"]["pose"][:, 5].exp().mean()
    assert ((nose["left-30"] - nose["front"])[:, 0] < -0.15 * scale).all()
    assert ((nose["up-30"] - nose["front"])[:, 1] < -0.1 * scale).all()
    assert set(views) < set(VIEWS)


@pytest.mark.slow
def test_voices_are_told_apart_by_a_linear_probe():
    """Logistic regression on the mean and deviation of a clip's MFCC: 90% of held-out clips of 34 speakers."""
    features, labels = [], []
    for index in range(34):
        voice = draw_speaker(0, index, 34).voice
        for name in draw_sentences(8, seeded(0, "sentences", index)):
            sound = recorded(
                placed([(0.5, speak(sentence(name), voice))], 3.0), seeded(0, "probe", index, name)
            ).waveform
            at_16k = torch.from_numpy(_resampled(sound))
            cepstra = mfcc(at_16k)
            features.append(torch.cat([cepstra.mean(0), cepstra.std(0)]))
            labels.append(index)
    x, y = torch.stack(features), torch.tensor(labels)
    train = torch.arange(len(y)) % 8 < 6
    x = (x - x[train].mean(0)) / x[train].std(0)
    probe = torch.nn.Linear(26, 34)
    optimizer = torch.optim.Adam(probe.parameters(), 0.03, weight_decay=1e-4)
    for _ in range(1000):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(probe(x[train]), y[train]).backward()
        optimizer.step()
    assert (probe(x[~train]).argmax(1) == y[~train]).float().mean() > 0.9


def _resampled(sound: np.ndarray) -> np.ndarray:
    from scipy.signal import resample_poly

    return resample_poly(sound, 160, 441).astype(np.float32)
