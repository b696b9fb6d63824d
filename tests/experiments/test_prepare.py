"""`python -m experiments.prepare data=…`: from raw videos to a store and its report; mistakes are one line."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from datamodules.clip_store import ClipStore, clip_path
from experiments import build_data
from experiments.command_line import UserError
from experiments.prepare import Action, Shard, main, parse_action
from tests.datamodules.fake_corpus import NumberDetector, fake_face, true_landmarks, write_grid
from tests.datamodules.prepare.test_crash import files

TRUTH = true_landmarks(fake_face(), 0, 40)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    write_grid(root, TRUTH, {"ann/a": 40, "ann/b": 30, "bob/c": 20})
    shutil.rmtree(root / "alignments")
    (root / "bob/text.mp4").write_text("no video")
    return root


@pytest.fixture(autouse=True)
def _dots(tmp_path, monkeypatch):
    """The face and the detector of the talking dots, in this process."""
    monkeypatch.setenv("TALKIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build_data, "build_face", lambda config: fake_face())
    monkeypatch.setattr("experiments.build_data.DlibDetector", lambda: NumberDetector(TRUTH))


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command; gives its exit status, what it printed, and its error line."""

    def command(*arguments: str) -> tuple[int, str, str]:
        everything = [*arguments, "data.prepare_workers=0", "trainer.progress=false"]
        monkeypatch.setattr(sys, "argv", ["prepare", *everything])
        monkeypatch.chdir(tmp_path)
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def folder(raw: Path, store: Path, *more: str) -> list[str]:
    return ["data=folder", f"data.root={raw}", f"data.store={store}", "data.consent=self", *more]


def test_a_folder_of_videos_becomes_a_store_with_a_report(run, raw, tmp_path):
    status, said, _ = run(*folder(raw, tmp_path / "store", "data.consent_reference='the author'"))
    assert status == 0
    assert "3 clips, 90 frames" in said
    assert "1 × not readable as video" in said
    assert str(tmp_path / "store/report.html") in said.replace("\n", "")
    rows = ClipStore(tmp_path / "store").manifest
    assert [row.id for row in rows] == ["ann/a", "ann/b", "bob/c"]
    assert {(row.consent, row.consent_reference) for row in rows} == {("self", "the author")}
    assert {row.split for row in rows} <= {"train", "test", "train+test"}
    assert any("test" in row.split for row in rows)
    assert "held out" in said


def test_paths_and_references_may_hold_anything(run, raw, tmp_path):
    root = shutil.copytree(raw / "bob", tmp_path / "it's (1), a = b {c} ü")
    status, _, _ = run(*folder(root, tmp_path / "store, (2)", "data.consent_reference=form 3, see [Ann's] file"))
    assert status == 0
    (only,) = ClipStore(tmp_path / "store, (2)").manifest
    assert only.consent_reference == "form 3, see [Ann's] file"


def test_shards_merge_and_verification(run, raw, tmp_path):
    store = tmp_path / "store"
    for shard in (["--shard", "1/2"], ["--shard=2/2"]):
        status, said, _ = run(*folder(raw, store, *shard))
        assert status == 0
        assert "--merge" in said
    assert not (store / "manifest.parquet").exists()
    assert run(*folder(raw, store, "--merge"))[0] == 0
    assert len(ClipStore(store)) == 3
    path = clip_path(store, "ann/b")
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    status, said, _ = run(*folder(raw, store, "--verify"))
    assert status == 0
    assert "ann/b" in said
    assert path.read_bytes() == whole


def test_lost_clips_are_an_error_that_names_the_remedy(run, raw, tmp_path):
    store, copy = tmp_path / "store", shutil.copytree(raw, tmp_path / "raw")
    run(*folder(copy, store))
    (copy / "ann/b.mpg").unlink()
    clip_path(store, "ann/b").write_bytes(b"damaged")
    status, _, error = run(*folder(copy, store, "--verify"))
    assert status == 1
    assert "damaged clips: ann/b: bring their sources back" in error


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["data=folder"], "data=folder needs data.root="),
        (["data=folder", "data.root={raw}"], "data.consent=<research-corpus, self or written> and data.consent_ref"),
        (["data=collected", "data.root={raw}"], "data.consent=<research-corpus, self or written>"),
        (["data=folder", "data.root={raw}", "data.consent=yes"], "data.consent=yes: expected research-corpus, self"),
        (["data=folder", "data.root={raw}", "data.consent=written"], "needs data.consent_reference="),
        (["data=folder", "data.root={tmp}/none", "data.consent=self"], "none does not exist"),
        (["data=folder", "data.root={raw}/bob/text.mp4", "data.consent=self"], "text.mp4 is no folder"),
        (["data=folder", "data.root={tmp}", "data.consent=self"], "holds no video"),
        (["data=folder", "data.root={raw}", "data.consent=self", "data.choice=loudest"], "data.choice=loudest"),
        (["data=folder", "data.root={raw}", "data.consent=self", "data.detector=eyes"], "data.detector=eyes"),
        (["data=folder", "data.root={raw}", "data.consent=self", "data.detector=mediapipe"], "needs data.detector_p"),
        (
            ["data=folder", "data.root={raw}", "data.consent=self", "data.detector_path={raw}"],
            "data.detector_path belongs to",
        ),
        (["data=folder", "data.root={raw}", "data.consent=self", "data.store={raw}/bob/text.mp4"], "cannot be written"),
        (["data=folder", "data.root={raw}", "data.consent=self", "data.store=s3://a/b"], "prepare in a folder"),
        (["data=grid", "data.store={tmp}/none"], "none: give what is to be prepared into it, data.root="),
        (["data=grid", "data.store={tmp}/none", "--verify"], "give what is to be prepared"),
        (["data=films", "data.root={raw}"], "does not exist"),
        (["data=grid", "data.root={raw}", "--shard", "0/0"], "give i/n with i from 1 to n"),
        (["data=grid", "data.root={raw}", "--shard=5/4"], "give i/n with i from 1 to n"),
        (["data=grid", "data.root={raw}", "--shard"], "give i/n with i from 1 to n"),
        (["data=grid", "data.root={raw}", "--merge", "data.store={tmp}/none"], "prepare the shards first"),
        (["data=grid", "data.root={raw}", "--merge", "--verify"], "--merge and --verify: give one of them"),
        (["data=grid", "data.root={raw}", "--fast"], "--fast: the flags are"),
    ],
)
def test_mistakes_are_one_line(run, raw, tmp_path, arguments, line):
    status, _, error = run(*(part.format(raw=raw, tmp=tmp_path) for part in arguments))
    assert status != 0
    assert line in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_grid_states_its_licence_and_synthetic_people_need_no_consent(raw):
    from experiments.command_line import check_overrides
    from experiments.schema import register

    register()

    def settings(*overrides: str):
        return build_data.prepare_settings(check_overrides(["+exp=grid_joint", *overrides]))

    grid = settings(f"data.root={raw}")
    assert grid.consent == "research-corpus"
    assert "Zenodo" in grid.consent_reference
    assert settings().consent == "synthetic"
    assert settings("data=collected").consent == "synthetic"
    other = settings("data=folder", f"data.root={raw}", "data.consent=self", "data.choice=talking")
    assert (other.choice, other.correct_offset) == ("talking", False)


def test_a_store_alone_gets_no_synthetic_clips(run, raw, tmp_path):
    from experiments.command_line import check_overrides
    from experiments.schema import Task, register

    store = tmp_path / "store"
    run(*folder(raw, store))
    register()
    config = OmegaConf.to_object(check_overrides(["+exp=grid_joint", "data=grid", f"data.store={store}"]))
    before = files(store)
    data = build_data.build_data(config, Task.joint, fake_face())
    data.prepare_data()
    data.store = ClipStore(data.store_root)
    assert not build_data.is_synthetic(config, data)
    assert files(store) == before
    assert not (tmp_path / "cache").exists()
    data.store.manifest = [replace(row, consent="synthetic") for row in data.store.manifest]
    assert build_data.is_synthetic(config, data)


def test_flags():
    assert parse_action(["data=grid", "--shard", "2/3", "seed=1"]) == (Action(Shard(2, 3)), ["data=grid", "seed=1"])
    assert parse_action(["--verify"]) == (Action(verify=True), [])
    with pytest.raises(UserError, match="give one of them"):
        parse_action(["--shard=1/2", "--merge"])


def test_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prepare", "--help"])
    main()
    assert "--shard i/n" in capsys.readouterr().out
