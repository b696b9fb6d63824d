"""The datamodules from raw files to batches, through Lightning's own loops, interrupted and not."""

import shutil

import pytest
import pytorch_lightning as pl
import torch

from datamodules.collected import CollectedDataModule
from datamodules.grid import GridDataModule
from datamodules.prepare.clip import PrepareSettings
from tests.datamodules.fake_corpus import (
    NumberDetector,
    draw,
    fake_face,
    tone,
    true_landmarks,
    write_clip_file,
    write_grid,
)
from tests.datamodules.prepare.test_crash import files

FACE = fake_face()
TRUTH = true_landmarks(FACE, 0, 30)
CLIPS = {f"s{speaker}/clip{n}": 12 + n for speaker in (1, 2) for n in range(5)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw") / "grid"
    write_grid(root, TRUTH, CLIPS)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def datamodule(root, cache, kind="speech", **changes) -> GridDataModule:
    settings = dict(crop_size=32, batch_size=8, prepare_workers=0, detector=NumberDetector(TRUTH), progress=False)
    module = GridDataModule(root, cache, FACE, kind=kind, **{**settings, **changes})
    module.prepare_data()
    module.setup()
    return module


def test_corpus_is_prepared_once_and_split(root, cache):
    data = datamodule(root, cache)
    assert data.clip_ids == sorted(CLIPS)
    assert data.speakers == ["s1", "s2"]
    assert data.num_speakers == 2
    assert len(data.test_clips) == 2
    assert sorted(data.train_clips + data.test_clips) == data.clip_ids
    assert data.speaker_shares.keys() == {"s1", "s2"}
    assert sum(data.speaker_shares.values()) == pytest.approx(1)
    assert data.num_test_frames == sum(CLIPS[clip] for clip in data.test_clips)
    assert data.store.row("s1/clip0").consent == GridDataModule.consent
    assert "2 speakers, 8 clips train, 2 are held out" in data.describe()
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    assert datamodule(root, cache, "joint").store_root == data.store_root
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} == written


def test_another_root_is_another_store(root, cache, tmp_path):
    here = GridDataModule(root, cache, FACE)
    assert here.store_root != GridDataModule(tmp_path, cache, FACE).store_root
    assert here.store_root.parent == cache


def test_a_store_without_its_raw_corpus_is_opened_as_it_is(root, cache, tmp_path, caplog):
    copy = shutil.copytree(root, tmp_path / "grid")
    store = datamodule(copy, cache, store_root=tmp_path / "store").store_root
    shutil.rmtree(copy)
    before = files(store)
    caplog.set_level("INFO")
    assert datamodule(copy, cache, store_root=store).clip_ids == sorted(CLIPS)
    assert [record.message for record in caplog.records] == [f"{copy} is missing: {store} is used as it is"]
    alone = datamodule(None, cache, store_root=store)
    assert alone.clip_ids == sorted(CLIPS)
    assert str(store) in alone.describe()
    assert datamodule(None, cache, store_root=f"file://{store}").clip_ids == sorted(CLIPS)
    assert files(store) == before
    with pytest.raises(ValueError, match="give the raw corpus too"):
        alone.scan()
    with pytest.raises(ValueError, match="neither"):
        GridDataModule(None, cache, FACE)


def test_statistics_are_those_of_the_training_clips(root, cache):
    data = datamodule(root, cache)
    mfcc = torch.cat([data.store.open(clip).mfcc for clip in data.train_clips])
    expression = torch.cat([data.store.open(clip).expression for clip in data.train_clips])
    for rows, statistics in ((mfcc, data.mfcc_statistics), (expression, data.expression_statistics)):
        assert torch.allclose(statistics.mean, rows.mean(0), atol=1e-4)
        assert torch.allclose(statistics.std, rows.std(0, correction=0), atol=1e-4)


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader_gives_every_frame_of_every_held_out_clip_in_order(root, cache, workers):
    data = datamodule(root, cache, "video", num_workers=workers)
    seen = [
        (int(clip), int(frame))
        for batch in data.test_dataloader()
        for clip, frame in zip(batch.clip, batch.frame, strict=True)
    ]
    assert seen == [(data.clip_ids.index(clip), t) for clip in data.test_clips for t in range(CLIPS[clip])]
    assert all(len(set(batch.clip.tolist())) == 1 for batch in data.test_dataloader())


def test_validation_can_be_thinned_out(root, cache):
    data = datamodule(root, cache, val_clips=1, val_every=5)
    frames = torch.cat([batch.frame for batch in data.val_dataloader()]).tolist()
    assert frames == [*range(0, CLIPS[data.test_clips[0]], 5)]


def test_one_clip_for_previews(root, cache):
    data = datamodule(root, cache, "joint")
    clip = data.test_clips[1]
    frames = torch.cat([batch.video.frame for batch in data.clip_batches(clip)])
    assert frames.tolist() == [*range(CLIPS[clip])]
    assert data.clip_sound(clip).shape == (640 * CLIPS[clip],)


def test_loader_processes_do_not_change_what_is_seen(root, cache):
    alone, helped = (datamodule(root, cache, "joint", num_workers=workers) for workers in (0, 2))
    for one, two in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True):
        assert torch.equal(one.video.noise, two.video.noise)
        assert torch.equal(one.video.frames, two.video.frames)
        assert torch.equal(one.speech.mfcc, two.speech.mfcc)


class Recorder(pl.LightningModule):
    """Remembers the samples it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[tuple[int, int]]] = []

    def training_step(self, batch, _):
        self.seen.append(list(zip(batch.clip.tolist(), batch.frame.tolist(), strict=True)))
        return self.weight * batch.expression.mean()

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(pl.Callback):
    """Saves after so many batches, from the place where the project's own callback saves."""

    def __init__(self, batches: int, path) -> None:
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.batches:
            trainer.save_checkpoint(self.path)


def train(data, folder, steps: int, save_at: int | None = None, resume=None) -> Recorder:
    module = Recorder()
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        callbacks=[SaveAt(save_at, folder / "at.ckpt")] if save_at else [],
        default_root_dir=folder,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return module


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("stop", [1, 5, 12, 13, 14, 26, 30])
def test_resumed_training_sees_what_unbroken_training_sees(root, cache, tmp_path, stop):
    """An epoch has 13 batches, so this stops within the first, at both sides of its end, and in later ones."""
    assert datamodule(root, cache).batches_per_epoch() == 13
    unbroken = train(datamodule(root, cache), tmp_path, steps=33).seen
    train(datamodule(root, cache), tmp_path, steps=stop + 2, save_at=stop)
    resumed = train(datamodule(root, cache), tmp_path, steps=33, resume=tmp_path / "at.ckpt").seen
    assert resumed == unbroken[stop:]


def test_collected_corpus_is_split_by_take(tmp_path):
    frames = [draw(TRUTH[t], t) for t in range(12)]
    for name in ("ann/front/01", "ann/front/test", "bob/left-30/01", "bob/left-30/test"):
        write_clip_file(tmp_path / "raw" / f"{name}.mpg", frames, tone(0.5))
    how = dict(kind="speech", prepare_workers=0, detector=NumberDetector(TRUTH), progress=False)
    with pytest.raises(ValueError, match=r"shows real people: say on what basis .* data\.consent="):
        CollectedDataModule(tmp_path / "raw", tmp_path / "cache", FACE, **how).prepare_data()
    settings = PrepareSettings("written", "form 7")
    data = CollectedDataModule(tmp_path / "raw", tmp_path / "cache", FACE, settings=settings, **how)
    data.prepare_data()
    data.setup()
    assert data.test_clips == ["ann/front/test", "bob/left-30/test"]
    assert data.speakers == ["ann", "bob"]
    assert data.store.row("bob/left-30/01").view == "left-30"
    assert data.store.row("bob/left-30/01").consent_reference == "form 7"
