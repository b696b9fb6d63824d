import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments.command_line import UserError, check_overrides
from experiments.compare import compare, grouped, paired_difference, settings
from experiments.schema import register


def run(name: str, seed: int, values, losses=("shape",), **settings) -> dict:
    per_clip = {f"c{i}": float(value) for i, value in enumerate(values)}
    score = {"mean": float(np.mean(values)), "low": 0.0, "high": 1.0, "per_clip": per_clip}
    trivial = {"mean": 2.0, "low": 2.0, "high": 2.0, "per_clip": dict.fromkeys(per_clip, 2.0)}
    rows = {"ours": {"E_ldmk": score}, "mean-mouth": {"E_ldmk": trivial}}
    return {
        "name": f"{name}/1",
        "seed": seed,
        "settings": settings,
        "active_losses": list(losses),
        "ours": "ours",
        "rows": rows,
    }


def test_pairing_takes_out_what_clips_have_in_common():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 10, 40)  # some clips are much harder for everybody
    first, second = hard - 0.2 + rng.normal(0, 0.05, (3, 40)), hard + rng.normal(0, 0.05, (3, 40))
    difference = paired_difference(first, second)
    assert difference.mean == pytest.approx(-0.2, abs=0.03)
    assert difference.high < 0
    assert difference.low < difference.mean < difference.high
    assert difference.ratio == pytest.approx(first.mean() / second.mean())


def test_seeds_widen_the_interval():
    clips = np.random.default_rng(0).normal(5, 0.1, 50)
    seeds = np.stack([clips, clips + 1, clips - 1])
    alone, together = paired_difference(seeds[:1], clips[None]), paired_difference(seeds, clips[None])
    assert together.high - together.low > 5 * (alone.high - alone.low)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        difference = paired_difference(rng.normal(0, 1, (1, 30)), rng.normal(0, 1, (1, 30)), 400, trial)
        covered += difference.low <= 0 <= difference.high
    assert 88 <= covered <= 100


def test_runs_are_grouped_by_experiment_and_by_settings_that_differ():
    shared = {"audio.removal": "learned"}
    runs = [run("bl", 0, [1, 2], **{"audio.learning_rate": rate}, **shared) for rate in (1e-3, 3e-3)]
    runs += [run("ir", seed, [1, 2], **{"audio.learning_rate": 1e-2}, **shared) for seed in (0, 1)]
    assert {label: len(members) for label, members in grouped(runs).items()} == {
        "bl\n  audio.learning_rate=0.001": 1,
        "bl\n  audio.learning_rate=0.003": 1,
        "ir": 2,
    }
    with pytest.raises(UserError, match="twice"):
        grouped([run("ir", 0, [1, 2]), run("ir", 0, [1, 2])])
    with pytest.raises(UserError, match="differ"):
        grouped([run("ir", 0, [1, 2]), run("ir", 1, [1, 2], losses=("norm",))])


def test_settings_are_what_bears_on_results(tmp_path):
    register()
    config = check_overrides(["+exp=grid_a2e", "audio=moments", "trainer.max_steps=7", "seed=3", "output=elsewhere"])
    OmegaConf.save(config, tmp_path / "config.yaml")
    found = settings(tmp_path)
    assert (found["audio.removal"], found["trainer.max_steps"], found["scale.steps.joint"]) == ("moments", 7, 2000)
    assert not {"seed", "output", "trainer.devices", "data.root"} & found.keys()
    (tmp_path / "config.yaml").write_text("audio: {removal: nonsense}")
    with pytest.raises(UserError, match="not of this version"):
        settings(tmp_path)


def test_table_names_the_difference():
    table = compare([run("bl", 0, [2, 2, 3]), run("ir", 0, [1, 1, 2]), run("ir", 1, [1, 1, 2])])
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["bl", "ir"]
    assert cells[1] == ["1", "2"]
    assert cells[4] == ["1.167", "0.667"]
    assert cells[5][1].startswith("-1.000 [-1.000, -1.000]")
    with pytest.raises(UserError, match="fewer than two"):
        compare([run("bl", 0, [2])])
