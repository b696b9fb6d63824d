import csv
import json
import math
import shutil

import av
import pytest
import torch
from rich.console import Console

from experiments.command_line import UserError
from experiments.evaluate import Options, evaluate, parse
from experiments.evaluation.scores import Networks, Scoreboard
from model_zoo.metrics.functional import psnr

from .painted_store import NUM_FRAMES, write_store

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _without_networks(monkeypatch):
    monkeypatch.setattr("experiments.evaluate.find_networks", lambda: Networks(None, None, None))


def options(run, *more: str) -> Options:
    return parse([str(run), *more])


def test_from_a_run_to_its_table(run, tmp_path):
    results = evaluate(options(run, "--swap", "--samples=1", f"--out={tmp_path}"), QUIET)
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["rows"].keys() == results["rows"].keys()
    rows = results["rows"]
    assert set(rows) == {
        "generator, true landmarks",
        "composited, true landmarks",
        "mean-frame",
        "copy-mouth",
        "retrieval",
        "previous true frame",
    }
    assert results["unavailable"] == ["LPIPS", "FID", "IS"]
    assert results["frames"] == NUM_FRAMES * results["clips"]
    for row in rows.values():
        assert {"PSNR", "SSIM", "PSNR_mouth", "SSIM_mouth", "sharpness", "seam", "flicker"} <= row.keys()
        assert all(cell["n"] == results["clips"] for cell in row.values())
        assert all(cell["low"] <= cell["mean"] <= cell["high"] for cell in row.values())
    assert {"generator", "composited", "true frames"} == set(results["swap"])
    with open(tmp_path / "evaluation.csv") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(len(row) for row in rows.values())
    found = next(line for line in lines if (line["row"], line["column"]) == ("retrieval", "PSNR"))
    assert float(found["mean"]) == rows["retrieval"]["PSNR"]["mean"]
    assert len(list(tmp_path.glob("*_sheet.png"))) == len(list(tmp_path.glob("*_mouths.png"))) == 1
    with av.open(str(next(tmp_path.glob("*.mp4")))) as video:
        assert video.streams.video[0].frames == NUM_FRAMES


def test_other_prepared_clips_and_fewer_of_them(run, tmp_path):
    store = tmp_path / "people"
    write_store(store, ["x1/a", "x2/b", "x2/c"], invalid={"x2/b": [5]})
    before = sorted(path.name for path in store.rglob("*"))
    chosen = (f"--store={store}", "--clips=2", "--samples=0", f"--out={tmp_path / 'out'}")
    results = evaluate(options(run, *chosen), QUIET)
    assert results["clips"] == 2
    assert results["rows"]["mean-frame"]["PSNR"]["per_clip"].keys() < {"x1/a", "x2/b", "x2/c"}
    assert sorted(path.name for path in store.rglob("*")) == before
    again = evaluate(options(run, *chosen), QUIET)
    assert again["rows"] == results["rows"]


def test_faster_arithmetic_is_compared_with_float32(run, tmp_path):
    results = evaluate(options(run, "--arithmetic", "--clips=1", "--samples=0", f"--out={tmp_path}"), QUIET)
    rows = {name.removeprefix("generator in "): row for name, row in results["rows"].items() if " in " in name}
    assert {"float32", "bfloat16"} <= rows.keys()
    own = results["rows"]["generator, true landmarks"]["PSNR_mouth"]["mean"]
    assert rows["float32"]["PSNR_mouth"]["mean"] == pytest.approx(own, abs=1e-4)  # the run is one in float32
    for name, row in rows.items():
        assert row["PSNR_mouth"]["mean"] == pytest.approx(own, abs=0.1)
        assert (row["PSNR_mouth"]["mean"] == own) == (name == "float32")


def test_warped_references_without_a_network_are_a_row(warped_run, tmp_path):
    results = evaluate(options(warped_run, "--swap", "--arithmetic", "--samples=1", f"--out={tmp_path}"), QUIET)
    rows = results["rows"]
    assert rows["warped references"]["PSNR_mouth"]["n"] == results["clips"]
    assert all(0 <= share <= 1 for share in results["network_share"].values())
    assert len(results["network_share"]) == results["clips"]
    assert {"generator in float32", "generator in bfloat16"} <= rows.keys()
    assert set(results["swap"]) == {"generator", "composited", "true frames"}


def test_what_was_trained_on_is_not_evaluated(run, store, tmp_path):
    results = evaluate(options(run, f"--store={store}", "--samples=0", f"--out={tmp_path}"), QUIET)
    own = evaluate(options(run, "--samples=0", f"--out={tmp_path}"), QUIET)
    clips = [set(each["rows"]["mean-frame"]["PSNR"]["per_clip"]) for each in (results, own)]
    assert clips[0] == clips[1]


def spoilt(run, folder, name: str):
    broken = folder / "run"
    shutil.copytree(run, broken)
    config, checkpoint = broken / "config.yaml", broken / "checkpoints" / "last.ckpt"
    match name:
        case "not a run":
            config.unlink()
        case "not finished":
            checkpoint.unlink()
        case "damaged":
            checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
        case "of another version":
            config.write_text(config.read_text() + "gone: 1\n")
        case "no yaml":
            config.write_text("{")
        case "another scale":
            config.write_text(config.read_text().replace("crop: 32", "crop: 64"))
        case "another width":
            config.write_text(config.read_text().replace("width: 4", "width: 8"))
        case "speech alone":
            config.write_text(config.read_text().replace("task: renderer", "task: audio_to_expression"))
    return broken


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not a run", "no config.yaml"),
        ("not finished", "let the run finish first"),
        ("damaged", "is no checkpoint"),
        ("of another version", "versions.json"),
        ("no yaml", "versions.json"),
        ("another scale", "config.yaml"),
        ("another width", "another scale"),
        ("speech alone", "give a run of renderer or joint"),
    ],
)
def test_a_run_that_cannot_be_evaluated_is_refused_in_one_line(run, tmp_path, name, message):
    with pytest.raises(UserError, match=message) as caught:
        evaluate(options(spoilt(run, tmp_path, name)), QUIET)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--gap"], "--gap needs predicted landmarks"), (["--store=nowhere"], "no folder of prepared clips")],
)
def test_options_that_cannot_work_are_refused_in_one_line(run, more, message):
    with pytest.raises(UserError, match=message) as caught:
        evaluate(options(run, *more), QUIET)
    assert "\n" not in str(caught.value)


def test_perceptual_columns_with_random_networks(run, tmp_path):
    """Only the path: LPIPS of equal frames is 0, FID of equal sets is about 0, IS lies between 1 and the classes."""

    class Shown:
        true = torch.rand(10, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        clip = type("Clip", (), {"id": "a"})
        region = box = torch.tensor([60.0, 60, 200, 200])
        size = 64

        def __len__(self):
            return 10

        def mask(self, box):
            mask = torch.zeros(10, 1, 64, 64, dtype=torch.bool)
            mask[..., 16:48, 16:48] = True
            return mask

        def follows(self):
            return torch.ones(9, dtype=torch.bool)

    class Pixels(torch.nn.Module):
        def forward(self, first, second=None):
            if second is not None:
                return (first - second).abs().mean((1, 2, 3), keepdim=True)
            return first.float().mean((2, 3))

    class Classes(torch.nn.Module):
        def forward(self, images):
            return images.float().mean((2, 3))

    board, shown = Scoreboard(Networks(Pixels(), Pixels(), Classes(), num_features=3)), Shown()
    board.add("same", shown, shown.true, shown.mask(None))
    board.add("other", shown, -shown.true, shown.mask(None))
    rows = board.rows()
    assert rows["same"]["LPIPS"]["mean"] == 0
    expected = psnr(-shown.true, shown.true).mean()
    assert rows["other"]["PSNR"]["mean"] == pytest.approx(float(expected), abs=1e-4)
    assert rows["other"]["LPIPS"]["mean"] > 0
    assert abs(rows["same"]["FID"]["mean"]) < 1e-2
    assert rows["other"]["FID"]["mean"] > rows["same"]["FID"]["mean"]
    assert 1 <= rows["same"]["IS"]["mean"] <= 3
    assert math.isnan(rows["same"]["IS"]["low"])
    assert board.unavailable(64) == []
    assert board.unavailable(32) == ["LPIPS"]
