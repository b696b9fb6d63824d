import pytest
import torch

from model_zoo.audio.standardise import MfccStandardise


def test_gives_zero_mean_and_unit_variance_and_is_the_identity_before():
    rows = 7 * torch.randn(500, 13, generator=torch.Generator().manual_seed(0)) - 3
    standardise = MfccStandardise()
    assert torch.equal(standardise(rows), rows)
    standardise.set_statistics(rows.mean(0), rows.std(0))
    std, mean = torch.std_mean(standardise(rows), dim=0)
    torch.testing.assert_close(mean, torch.zeros(13), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones(13))


def test_statistics_are_saved():
    source, target = MfccStandardise(), MfccStandardise()
    source.set_statistics(torch.arange(13.0), torch.arange(1.0, 14.0))
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(torch.ones(1, 13)), source(torch.ones(1, 13)))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (torch.zeros(12), torch.ones(12)),
        (torch.zeros(13), torch.zeros(13)),
        (torch.full((13,), torch.nan), torch.ones(13)),
    ],
)
def test_useless_statistics_are_refused(mean, std):
    with pytest.raises(ValueError, match="statistics must be"):
        MfccStandardise().set_statistics(mean, std)
