import pytest
from omegaconf import OmegaConf

from experiments.command_line import check_overrides
from experiments.run_folder import experiment_folder
from experiments.schema import register

register()


@pytest.mark.parametrize(
    ("given", "name"),
    [([], "grid_a2e_synthetic"), (["data.root=clips"], "grid_a2e"), (["data.store=clips"], "grid_a2e")],
)
def test_runs_on_the_built_in_corpora_lie_apart(given, name, tmp_path):
    config = OmegaConf.to_object(check_overrides(["+exp=grid_a2e", f"output={tmp_path}", *given]))
    assert experiment_folder(config) == tmp_path / name
    assert (tmp_path / name).is_dir()
