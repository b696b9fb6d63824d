import pytest
import torch

from model_zoo.functional.network_share import crosswise_shares, network_share

SHAPE = (6, 3, 8, 8)
REGION = torch.zeros(6, 1, 8, 8, dtype=torch.bool)
REGION[..., 2:6, 2:6] = True


def noise(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_finds_the_share_that_is_true(share):
    base, added = noise(0), noise(1)
    assert network_share(base + share * added, base, base + added, REGION) == pytest.approx(share, abs=1e-6)


def test_is_the_least_squares_share_of_the_region_and_stays_between_none_and_all():
    true, base, frame = noise(0), noise(1), noise(2)
    found = network_share(true, base, frame, REGION)
    tried = torch.linspace(0, 1, 1001)
    errors = [torch.where(REGION, true - base.lerp(frame, share), 0).square().sum() for share in tried]
    assert found == pytest.approx(tried[torch.stack(errors).argmin()].item(), abs=1e-3)
    elsewhere = torch.where(REGION, frame, 100.0)
    assert network_share(true, base, elsewhere, REGION) == pytest.approx(found)
    assert network_share(base - (frame - base), base, frame, REGION) == 0
    assert network_share(base + 3 * (frame - base), base, frame, REGION) == 1
    assert network_share(true, base, base, REGION) == 1


def test_no_frame_bears_on_its_own_share():
    base, added = noise(0), noise(1)
    true = base + torch.tensor([0.2] * 3 + [0.8] * 3)[:, None, None, None] * added
    shares = crosswise_shares(true, base, base + added, REGION)
    torch.testing.assert_close(shares, torch.tensor([0.8] * 3 + [0.2] * 3))
    changed = true.clone()
    changed[:3] = noise(3)[:3]
    again = crosswise_shares(changed, base, base + added, REGION)
    assert torch.equal(again[:3], shares[:3])
    assert not torch.equal(again[3:], shares[3:])
    assert crosswise_shares(true[:1], base[:1], noise(2)[:1], REGION[:1]).tolist() == [1]
