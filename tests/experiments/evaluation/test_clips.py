import pytest
import torch

from experiments.evaluation.clips import (
    PREVIOUS_FRAME,
    RETRIEVAL,
    DrawnClip,
    Retrieval,
    ShownClip,
    draw_clip,
    network_shares,
    trivial_clips,
)
from experiments.evaluation.opened import open_run
from experiments.evaluation.scores import Networks, Scoreboard
from lightning_modules.renderer import MEAN_FRAME
from model_zoo.functional.masks import box_mask
from model_zoo.render.mouth_renderer import Rendering


class Painter(torch.nn.Module):
    """A renderer that adds to the truth in the mouth box, and remembers the landmarks that it was given."""

    def __init__(self, added: float = 0.0) -> None:
        super().__init__()
        self.added = torch.nn.Parameter(torch.tensor(added))
        self.given: list[torch.Tensor] = []

    def forward(self, windows, box, noise, landmarks):
        self.given.append(landmarks)
        mask = box_mask(box, windows.bank.size).float()
        return Rendering((windows.last + self.added * mask).clamp(-1, 1), mask, mask)


@pytest.fixture(scope="module")
def opened(run):
    return open_run(run, None, None, None, 0)


@pytest.fixture(scope="module")
def shown(opened) -> ShownClip:
    return ShownClip.read(opened.data, opened.clips[0], 750)


def test_each_frame_is_driven_by_its_own_seven(shown):
    painter, driven = Painter(), shown.clip.landmarks + 0.5
    draw_clip(painter, shown, driven)
    given = torch.cat(painter.given)
    for t in (0, 3, 11):
        expected = driven[[max(0, t - k) for k in range(6, -1, -1)]]
        torch.testing.assert_close(given[t], expected)


class Adder(torch.nn.Module):
    """A renderer that adds light to a base that is the truth, in the mouth box."""

    def __init__(self) -> None:
        super().__init__()
        self.added = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, windows, box, noise, landmarks):
        mask = box_mask(box, windows.bank.size).float()
        return Rendering(windows.last + self.added * mask, mask, mask, windows.last)


def test_what_a_network_adds_in_vain_is_not_believed(shown):
    assert network_shares(Painter(), shown) is None
    shares = network_shares(Adder(), shown)
    assert shares.tolist() == [0] * len(shown)
    inside = shown.mask(shown.box).expand_as(shown.true)
    for given, added in ((shares, 0.0), (None, 0.3), (torch.full((len(shown),), 0.5), 0.15)):
        drawn = draw_clip(Adder(), shown, shown.clip.landmarks, given)
        assert ((drawn.generated - shown.true)[inside] - added).abs().max() < 1e-5


def test_a_perfect_renderer_scores_as_the_truth(shown):
    drawn = draw_clip(Painter(), shown, shown.clip.landmarks)
    board = Scoreboard(Networks(None, None, None))
    box = shown.mask(shown.box)
    board.add("generator", shown, drawn.generated, box, drawn.flagged)
    board.add("composited", shown, drawn.composited, drawn.mask > 0.5, drawn.flagged)
    for row in board.rows().values():
        assert row["PSNR_mouth"]["mean"] > 60
        for column in ("SSIM", "SSIM_mouth", "sharpness", "seam"):
            assert row[column]["mean"] == pytest.approx(1, abs=1e-3)
    assert board.rows()["generator"]["flicker"]["mean"] == pytest.approx(1, abs=1e-4)


def test_compositing_takes_away_a_wrong_light_and_its_seam(shown):
    drawn = draw_clip(Painter(0.3), shown, shown.clip.landmarks)
    board = Scoreboard(Networks(None, None, None))
    board.add("generator", shown, drawn.generated, shown.mask(shown.box), drawn.flagged)
    board.add("composited", shown, drawn.composited, drawn.mask > 0.5, drawn.flagged)
    rows = board.rows()
    assert rows["generator"]["seam"]["mean"] > 2
    assert rows["composited"]["seam"]["mean"] == pytest.approx(1, abs=0.1)
    assert rows["composited"]["PSNR_mouth"]["mean"] > rows["generator"]["PSNR_mouth"]["mean"] + 20


def test_frames_with_bad_landmarks_are_flagged_and_score_nothing(shown):
    driven = shown.clip.landmarks.clone()
    driven[4, 60, 0] = torch.nan  # seven windows hold it
    driven[18] += 500
    drawn: DrawnClip = draw_clip(Painter(0.3), shown, driven)
    assert drawn.flagged.nonzero()[:, 0].tolist() == [4, 5, 6, 7, 8, 9, 10, 18]
    assert torch.equal(drawn.generated[drawn.flagged], shown.true[drawn.flagged])
    assert torch.equal(drawn.composited[drawn.flagged], shown.true[drawn.flagged])
    board = Scoreboard(Networks(None, None, None))
    board.add("all", shown, drawn.generated, shown.mask(shown.box), drawn.flagged)
    board.add("good", shown, draw_clip(Painter(0.3), shown, shown.clip.landmarks).generated, shown.mask(shown.box))
    # the true frames among them would have raised it by several dB
    rows = board.rows()
    assert rows["all"]["PSNR"]["mean"] == pytest.approx(rows["good"]["PSNR"]["mean"], abs=0.5)


def test_trivial_predictors(opened, shown):
    """Outside of the box all are the truth; inside, what their names say."""
    found = {row: (frames, missing) for row, frames, missing in trivial_clips(shown, Retrieval(opened.data))}
    outside = ~shown.mask(shown.box).expand(-1, 3, -1, -1)
    for frames, _ in found.values():
        assert torch.equal(frames[outside], shown.true[outside])
    inside = ~outside
    before, missing = found[PREVIOUS_FRAME]
    assert missing.tolist() == [True] + [False] * (len(shown) - 1)
    assert torch.equal(before[1:][inside[1:]], shown.true[:-1][inside[1:]])
    mean = torch.from_numpy(shown.clip.mean_crop(shown.size)).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(found[MEAN_FRAME][0][3][inside[3]], mean[inside[3]])


def test_retrieval_finds_the_training_frame_with_the_nearest_mouth_of_the_same_speaker(opened, shown):
    data = opened.data
    frames = Retrieval(data).frames(shown)
    chosen = [*range(3, 14), *range(48, 68)]
    best, least = None, float("inf")
    for clip_id in data.train_clips:
        clip = data.store.open(clip_id)
        if clip.row.speaker != shown.clip.row.speaker:
            continue
        for t in range(clip.num_frames):
            distance = float((clip.landmarks[t, chosen] - shown.landmarks[5, chosen]).square().sum())
            if distance < least:
                best, least = clip.crop(t, shown.size), distance
    torch.testing.assert_close(frames[5], torch.from_numpy(best).permute(2, 0, 1) / 127.5 - 1)
    assert any(row == RETRIEVAL for row, _, _ in trivial_clips(shown, Retrieval(data)))


def test_a_clip_is_read_no_further_than_asked(opened):
    assert len(ShownClip.read(opened.data, opened.clips[0], 7)) == 7
