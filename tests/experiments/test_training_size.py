import pytest
from omegaconf import OmegaConf

from experiments.command_line import UserError, check_overrides
from experiments.schema import Config, register
from experiments.training_size import Training, compare_sizes, grouped

register()


def run(speakers: list[str], minutes: float, steps: int, seed: int = 0, better: float = 0.0, **changes):
    """A finished run whose clips, one of each speaker, score 30 dB and 0.9, or `better` by so many dB."""
    name = "collected_minutes_split" if len(speakers) == 1 else "collected_minutes"
    given = [f"+exp={name}", f"data.train_minutes={minutes}", f"data.speakers=[{','.join(speakers)}]"]
    config = OmegaConf.to_object(check_overrides(given))
    assert isinstance(config, Config)
    clips = {f"{speaker}/front/test": float(speaker[1:]) for speaker in speakers or ("p1", "p2", "p3", "p4")}

    def score(level: float, slope: float) -> dict:
        return {"per_clip": {clip: level + slope * number for clip, number in clips.items()}}

    rows = {
        "ours": {"PSNR_mouth": score(30 + better, 1), "SSIM_mouth": score(0.9, 0)},
        "mean-frame": {"PSNR_mouth": score(25, 1), "SSIM_mouth": score(0.8, 0)},
    }
    results = {"name": f"{name}/1", "seed": seed, "steps": steps, "active_losses": ["recon"], "ours": "ours"}
    return config, results | {"rows": rows} | changes


def all_splits(minutes: float, **options):
    return [run([f"p{number}"], minutes, 500, **options) for number in range(1, 5)]


def cells(table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_runs_of_one_speaker_are_one_row_and_joint_is_compared_with_it_at_each_duration():
    runs = [run([], 5, 2000, better=1.0), *all_splits(5), run([], 2, 2000, better=-0.5), *all_splits(2)]
    table = cells(compare_sizes(runs))
    assert [row[:4] for row in table[:4]] == [
        ["2", "split", "500", "1"],
        ["2", "joint", "2000", "1"],
        ["5", "split", "500", "1"],
        ["5", "joint", "2000", "1"],
    ]
    assert [row[4] for row in table] == ["32.50", "32.00", "32.50", "33.50", "27.50"]  # of the mean over four speakers
    assert table[1][5] == "-0.50 [-0.50, -0.50]"
    assert table[3][5] == "+1.00 [+1.00, +1.00]"
    assert table[0][5] == table[2][5] == ""


def test_joint_generators_of_other_steps_and_seeds():
    runs = [*all_splits(2), *all_splits(2, seed=1), run([], 2, 500), run([], 2, 2000), run([], 2, 2000, seed=1)]
    rows = grouped(runs)
    assert {row: len(results) for row, results in rows.items()} == {
        Training(2, False, 500): 2,
        Training(2, True, 500): 1,
        Training(2, True, 2000): 2,
    }


def test_refuses_what_cannot_be_compared():
    joint, splits = run([], 2, 2000), all_splits(2)
    with pytest.raises(UserError, match="split with 2 minutes and 500 steps was not scored on p4/front/test"):
        grouped([joint, *splits[:3]])
    with pytest.raises(UserError, match="scored twice"):
        grouped([joint, *splits, splits[0]])
    with pytest.raises(UserError, match="active losses"):
        grouped([run([], 2, 2000, active_losses=["recon", "adv"]), *splits])
    config, results = joint
    del results["steps"]
    with pytest.raises(UserError, match="older version"):
        grouped([(config, results)])
    config.data.train_minutes = None
    with pytest.raises(UserError, match="collected_minutes"):
        grouped([(config, results)])
