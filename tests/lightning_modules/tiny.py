"""A talking disc: a world small enough to train in seconds, in which speech, face and pixels depend on one another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.batch import JointBatch, SpeechBatch, VideoBatch
from lightning_modules.audio_to_expression import SpeechLossWeights, SpeechObjective
from lightning_modules.joint import JointModule
from lightning_modules.render_objective import RenderLossWeights, RenderObjective
from lightning_modules.renderer import RendererModule
from model_zoo.audio.audio_to_expression import AudioToExpression
from model_zoo.audio.id_removal import AudioIdRemoval
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.audio.standardise import MfccStandardise
from model_zoo.audio.vggvox import VGGVox
from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.masks import NOISE_FIELDS, mouth_box, mouth_region
from model_zoo.render.discriminator import PatchDiscriminator
from model_zoo.render.frame_windows import FrameBank, FrameWindows
from model_zoo.render.generator import UNetGenerator
from model_zoo.render.mouth_renderer import MouthRenderer

SIZE = 32  # px
NUM_SPEAKERS = 4


def face() -> MorphableFace:
    """68 vertices on a disc; the first expression mode opens the mouth."""
    angle = torch.linspace(0, 2 * torch.pi, 69)[:-1]
    mean = torch.stack([0.8 * angle.cos(), 0.8 * angle.sin(), torch.zeros(68)], dim=1)
    mean[36, :2], mean[45, :2] = torch.tensor([-0.5, -0.4]), torch.tensor([0.5, -0.4])
    ring = torch.linspace(0, 2 * torch.pi, 21)[:-1]
    mean[48:, 0], mean[48:, 1] = 0.3 * ring.cos(), 0.4 + 0.08 * ring.sin()
    shape_basis, expression_basis = torch.zeros(68, 3, 199), torch.zeros(68, 3, 29)
    expression_basis[48:, 1, 0] = ring.sin() / ring.sin().norm()
    shape_std, expression_std = torch.zeros(199), torch.zeros(29)
    expression_std[0] = 0.4
    return MorphableFace(
        mean=mean,
        shape_basis=shape_basis,
        shape_std=shape_std,
        expression_basis=expression_basis,
        expression_std=expression_std,
        triangles=torch.tensor([[0, 1, 2]]),
        landmark_index=torch.arange(68),
    )


def clip_samples(model: MorphableFace, seed: int, num_samples: int, clip: int = 0) -> list[JointBatch]:
    """Batches of one in which one cepstrum says how far the mouth is open, and the pixels show it."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    pose = torch.tensor([0.0, 0.0, 0.0, 128.0, 128.0, 4.3]).expand(7, 6)
    shape = torch.zeros(199)
    for frame in range(num_samples):
        opening = torch.rand(1, generator=generator) * 3 - 1
        mfcc = 0.3 * torch.randn(124, 13, generator=generator)
        mfcc[:, 1] += opening
        mfcc[:, 2] += frame % NUM_SPEAKERS - 1.5  # by which speakers can be told apart
        expression = torch.zeros(7, 29)
        expression[:, 0] = opening
        landmarks = model.project_landmarks(shape, expression, pose).detach()
        images = draw(landmarks)
        speech = SpeechBatch(
            mfcc=mfcc[None],
            expression=expression[None],
            pose=pose[None],
            shape=shape[None],
            landmarks=landmarks[None],
            speaker=torch.tensor([frame % NUM_SPEAKERS]),
            clip=torch.tensor([clip]),
            frame=torch.tensor([frame]),
            silent=torch.zeros(1, 7, dtype=torch.bool),
            closed_gap=torch.zeros(1),
            clip_mean=torch.zeros(1, 29),
            utterance=torch.zeros(1, 0, 13),
        )
        every_opening = torch.zeros(3, 29)
        every_opening[:, 0] = torch.tensor([-1.0, 0.5, 2.0])
        extent = model.project_landmarks(shape, every_opening, pose[:3]).detach()
        video = VideoBatch(
            windows=FrameWindows(
                FrameBank(torch.cat([images, images.mean(0, keepdim=True)]), torch.cat([landmarks, landmarks[:1]])),
                torch.arange(7)[None],
            ),
            mouth_box=mouth_box(extent)[None],
            mouth_region=mouth_region(extent)[None],
            noise_number=torch.randint(NOISE_FIELDS, (1,), generator=generator),
            mean_row=torch.tensor([7]),
            other_row=torch.tensor([0]),
            clip=torch.tensor([clip]),
            frame=torch.tensor([frame]),
        )
        samples.append(JointBatch(speech, video))
    return samples


def draw(landmarks_TL2: Tensor) -> Tensor:
    """(T, 3, SIZE, SIZE): a gray face whose mouth is dark between the lips."""
    centre = (torch.arange(SIZE) + 0.5) * 256 / SIZE - 0.5
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    mouth = landmarks_TL2[:, 48:68]
    middle = mouth.mean(1)[:, :, None, None]
    radius = ((mouth - mouth.mean(1, keepdim=True)).abs().amax(1) + 1)[:, :, None, None]
    inside = ((x - middle[:, 0]) / radius[:, 0]) ** 2 + ((y - middle[:, 1]) / radius[:, 1]) ** 2
    return (0.5 - 1.2 * torch.sigmoid(4 * (1 - inside)))[:, None].expand(-1, 3, -1, -1).contiguous()


def trained_judge(steps: int = 40) -> VGGVox:
    """A speaker network that tells the talking disc's speakers apart."""
    torch.manual_seed(0)
    judge = VGGVox(NUM_SPEAKERS, 13, 1 / 16)
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-2)
    for batch in loader(clip_samples(face(), seed=7, num_samples=8 * steps), batch_size=8):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(judge(batch.speech.mfcc[:, -100:]), batch.speech.speaker).backward()
        optimizer.step()
    return judge


def speech_networks() -> SpeechToExpression:
    """ID removal and translation, narrow."""
    return SpeechToExpression(MfccStandardise(13), AudioIdRemoval(13, 3, 8), AudioToExpression(13, 16, 1))


def joint_module(
    speech_weights: SpeechLossWeights | None = None,
    render_weights: RenderLossWeights | None = None,
    judge: VGGVox | None = None,
    penalty: str = "r1",
    **options,
) -> JointModule:
    """The joint module on the talking disc, every network narrow and random; so is the judge unless it is given."""
    torch.manual_seed(0)
    judge = judge or VGGVox(NUM_SPEAKERS, 13, 1 / 16)
    return JointModule(
        speech_networks(),
        SpeechObjective(face(), judge, speech_weights or SpeechLossWeights()),
        MouthRenderer(UNetGenerator(28, SIZE, 8)),
        render_objective(render_weights, penalty=penalty),
        num_clips=2,
        **options,
    )


def render_objective(weights: RenderLossWeights | None = None, **options) -> RenderObjective:
    """Losses with narrow discriminators, without VGG-19."""
    judge, temporal = PatchDiscriminator(7, SIZE, 8), PatchDiscriminator(15, SIZE, 8)
    return RenderObjective(judge, None, weights or RenderLossWeights(), temporal=temporal, **options)


def renderer_module(render_weights: RenderLossWeights | None = None, **options) -> RendererModule:
    """The renderer on the talking disc."""
    torch.manual_seed(0)
    renderer = MouthRenderer(UNetGenerator(28, SIZE, 8))
    return RendererModule(renderer, render_objective(render_weights, **options), num_clips=2)


def every_render_term() -> RenderLossWeights:
    """All terms that need no weights of others."""
    return RenderLossWeights(mouth=50.0, match=10.0, temporal=1.0)


def joined(samples: list):
    """One batch of many."""
    values: dict = {}
    for name in vars(samples[0]):
        parts = [getattr(sample, name) for sample in samples]
        if isinstance(parts[0], Tensor):
            values[name] = torch.cat(parts)
        elif isinstance(parts[0], FrameWindows):
            banks = [part.bank for part in parts]
            bank = FrameBank(torch.cat([bank.crops for bank in banks]), torch.cat([bank.landmarks for bank in banks]))
            first = torch.tensor([0, *map(len, banks[:-1])]).cumsum(0)
            values[name] = FrameWindows(bank, torch.cat([part.rows for part in parts]) + first[:, None])
        else:
            values[name] = joined(parts)
    for name in {"mean_row", "other_row"} & values.keys():
        values[name] = values[name] + first
    return type(samples[0])(**values)


def loader(samples: list, batch_size: int = 4) -> DataLoader:
    """In order; with nothing random."""
    return DataLoader(samples, batch_size=batch_size, collate_fn=joined)
