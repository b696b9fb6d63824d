"""Does ID removal remove identity? `python -m experiments.probes <run folder>`.

Fooling the frozen judge of Eq. 2 alone proves little: probes are trained afresh on what comes out, split by clip.
Beside them, what the network does: ‖W̄ − I‖, the variance of λ within and between speakers, and E_exp when every window
gets λ of another speaker. Figure 11 of Song et al. 2020 goes to samples/tsne.png and to W&B.

Shape legend: N windows, A audio frames, C cepstra, K fMLLR components.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
import wandb
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from torch import Tensor, nn

from datamodules.atomic import atomic_path
from datamodules.hearing import silence_of
from experiments.command_line import UserError, guarded
from experiments.run import wandb_mode
from experiments.tables import wide_console
from experiments.trained import TrainedSpeech, open_speech
from model_zoo.functional.mfcc import audio_window
from model_zoo.functional.tsne import tsne
from model_zoo.metrics.functional import expression_error

REPORT = "probes.json"
WINDOWS_A_CLIP = 16
TEST_SHARE = 4  # one clip in four of every speaker is what a probe is tested on
RIDGE = 1e-3  # of the logistic regression
CNN_WIDTH, CNN_LAYERS, CNN_EPOCHS, CNN_BATCH, CNN_RATE = 32, 4, 20, 64, 2e-3
PICTURE_POINTS = 500


class Windows(NamedTuple):
    """Windows of the training speakers' clips; x is standardised, x' what ID removal makes of it."""

    x: Float[Tensor, "N 100 C"]
    adapted: Float[Tensor, "N 100 C"]
    by_speaker: Float[Tensor, "N 100 C"]  # x by each speaker's own mean and deviation
    weights: Float[Tensor, "N K"] | None
    expression: Float[Tensor, "N E"]
    speaker: Int[Tensor, "N"]
    is_test: Bool[Tensor, "N"]


@torch.inference_mode()
def collect(trained: TrainedSpeech, per_clip: int = WINDOWS_A_CLIP) -> Windows:
    """Evenly spaced windows of every training clip, of frames at which somebody speaks: silence has no speaker.

    Raises:
        UserError: fewer than two speakers train, or one of them with a single clip.
    """
    data, speech = trained.data, trained.speech
    if data.num_speakers < 2:
        raise UserError("probes need two training speakers or more: give a run on a corpus with several")
    clips: dict[str, list[str]] = {speaker: [] for speaker in data.speakers}
    for clip_id in data.train_clips:
        clips[data.store.row(clip_id).speaker].append(clip_id)
    if min(map(len, clips.values())) < 2:
        raise UserError("probes are split by clip: every training speaker needs two clips or more")
    columns: list[list[Tensor]] = [[] for _ in Windows._fields]
    for number, (speaker, clip_ids) in enumerate(clips.items()):
        raw = torch.cat([data.store.open(clip_id).mfcc for clip_id in clip_ids])
        mean, std = raw.mean(0), raw.std(0)
        for place, clip_id in enumerate(clip_ids):
            clip = data.store.open(clip_id)
            spoken = (~silence_of(clip)).nonzero().ravel()
            if len(spoken) == 0:
                continue
            frames = spoken[torch.linspace(0, len(spoken) - 1, per_clip).round().long()].tolist()
            rows = torch.stack([audio_window(clip.mfcc, frame) for frame in frames])
            own = data.hearing.normal.get(speaker)
            heard = rows if own is None else (rows - own[0]) / own[1]
            output = speech(heard, 1, _utterance(speech, clip.mfcc, own, len(frames)))
            weights = output.weights if output.weights is not None else rows.new_zeros(len(rows), 0)
            is_test = torch.full((len(rows),), place % TEST_SHARE == TEST_SHARE - 1 or place == len(clip_ids) - 1)
            values = (speech.standardise(heard), output.features, (rows - mean) / std, weights, clip.expression[frames])
            for column, value in zip(columns, (*values, torch.full((len(rows),), number), is_test), strict=True):
                column.append(value)
    joined = Windows(*map(torch.cat, columns))
    has_weights = speech.id_removal is not None
    return joined if has_weights else joined._replace(weights=None)


def _utterance(speech, mfcc: Tensor, own, count: int) -> Tensor | None:
    if not speech.uses_utterance:
        return None
    rows = mfcc if own is None else (mfcc - own[0]) / own[1]
    return rows.expand(count, -1, -1)


def logistic_accuracy(x_NAC: Tensor, speaker: Tensor, is_test: Tensor) -> float:
    """Probe (a): logistic regression on each window's mean and deviation; share of test windows named right."""
    features = torch.cat([x_NAC.mean(1), x_NAC.std(1)], dim=1).double()
    known = features[~is_test]
    features = (features - known.mean(0)) / known.std(0).clamp_min(1e-6)
    layer = nn.Linear(features.shape[1], int(speaker.max()) + 1, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(layer(features[~is_test]), speaker[~is_test]) + RIDGE * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.inference_mode():
        return float((layer(features[is_test]).argmax(1) == speaker[is_test]).float().mean())


def cnn_accuracy(x_NAC: Tensor, speaker: Tensor, is_test: Tensor, seed: int = 0, epochs: int = CNN_EPOCHS) -> float:
    """Probe (b): a 1-D CNN of four layers over time; share of test windows named right."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = _cnn(x_NAC.shape[2], int(speaker.max()) + 1)
    known = x_NAC[~is_test]
    x_NCA = ((x_NAC - known.mean((0, 1))) / known.std((0, 1)).clamp_min(1e-6)).mT.contiguous()
    x, y = x_NCA[~is_test], speaker[~is_test]
    optimizer = torch.optim.Adam(network.parameters(), CNN_RATE)
    for _ in range(epochs):
        for picks in torch.randperm(len(x), generator=generator).split(CNN_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(x[picks]), y[picks]).backward()
            optimizer.step()
    with torch.inference_mode():
        return float((network(x_NCA[is_test]).argmax(1) == speaker[is_test]).float().mean())


def _cnn(num_cepstra: int, num_speakers: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = num_cepstra
    for _ in range(CNN_LAYERS):
        layers += [nn.Conv1d(channels, CNN_WIDTH, 5, stride=2, padding=2), nn.ReLU()]
        channels = CNN_WIDTH
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, num_speakers))


@torch.inference_mode()
def mechanism(trained: TrainedSpeech, windows: Windows, seed: int = 0) -> dict[str, float]:
    """What the network does: the size of its change, where λ varies, and E_exp with λ of another speaker."""
    speech, removal = trained.speech, trained.speech.id_removal
    if removal is None or windows.weights is None or speech.is_stateful:
        return {}
    change = removal.transform(windows.weights) - torch.eye(windows.x.shape[2], windows.x.shape[2] + 1)
    speakers = range(int(windows.speaker.max()) + 1)
    means = torch.stack([windows.weights[windows.speaker == number].mean(0) for number in speakers])
    within = (windows.weights - means[windows.speaker]).square().sum(1).mean()
    between = (means - means.mean(0)).square().sum(1).mean()
    others = _of_another(windows.speaker, seed)
    shuffled = speech.translation(removal.adapt(windows.x, windows.weights[others]))
    own = speech.translation(windows.adapted)
    active = slice(0, trained.objective.face.num_active_expression)
    truth = windows.expression[:, active]
    return {
        "change": float(change.flatten(1).norm(dim=1).mean()),
        "lambda_within": float(within),
        "lambda_between": float(between),
        "E_exp": float(expression_error(own[:, active], truth).mean()),
        "E_exp_shuffled": float(expression_error(shuffled[:, active], truth).mean()),
    }


def _of_another(speaker: Int[Tensor, "N"], seed: int) -> Int[Tensor, "N"]:
    """For every window one of another speaker."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.empty_like(speaker)
    for number in speaker.unique():
        others = (speaker != number).nonzero().ravel()
        mine = (speaker == number).nonzero().ravel()
        found[mine] = others[torch.randint(len(others), (len(mine),), generator=generator)]
    return found


def draw(windows: Windows, path: Path, seed: int = 0) -> None:
    """Figure 11: t-SNE of window mean and deviation before and after ID removal, a colour a speaker."""
    order = torch.randperm(len(windows.speaker), generator=torch.Generator().manual_seed(seed))[:PICTURE_POINTS]
    figure = Figure(figsize=(11, 5))
    axes = figure.subplots(1, 2)
    for axis, title, x in ((axes[0], "x: MFCC", windows.x), (axes[1], "x': identity removed", windows.adapted)):
        features = torch.cat([x.mean(1), x.std(1)], dim=1)[order]
        features = (features - features.mean(0)) / features.std(0).clamp_min(1e-6)
        places = tsne(features, perplexity=min(30.0, (len(order) - 1) / 4))
        axis.scatter(*places.T.numpy(), c=windows.speaker[order].numpy(), cmap="gist_rainbow", s=8)
        axis.set(title=title, xticks=[], yticks=[])
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def probe(folder: Path) -> dict:
    """Everything about one run; also written to its folder."""
    trained = open_speech(folder)
    windows = collect(trained)
    accuracy = {
        name: {
            "logistic": logistic_accuracy(x, windows.speaker, windows.is_test),
            "cnn": cnn_accuracy(x, windows.speaker, windows.is_test),
        }
        for name, x in (("x", windows.x), ("x'", windows.adapted), ("x + CMVN", windows.by_speaker))
    }
    chance = float(torch.bincount(windows.speaker[windows.is_test]).max() / windows.is_test.sum())
    found = {"accuracy": accuracy, "chance": chance, "mechanism": mechanism(trained, windows)}
    picture = folder / "samples" / "tsne.png"
    draw(windows, picture)
    with atomic_path(folder / REPORT) as path:
        path.write_text(json.dumps(found, indent=2) + "\n")
    _log(trained, folder, found, picture)
    return found


def _log(trained: TrainedSpeech, folder: Path, found: dict, picture: Path) -> None:
    """A W&B run of its own in the group of the run that was probed."""
    mode = wandb_mode(trained.config)
    if mode == "disabled":
        return
    name = f"{folder.parent.name}/{folder.name}"
    settings = wandb.Settings(silent=True)
    logger = trained.config.logger
    with wandb.init(
        project=logger.project,
        entity=logger.entity,
        group=name,
        name=f"{name}-probes",
        job_type="probes",
        dir=folder,
        mode=mode,
        settings=settings,
    ) as run:
        flat = {f"probe/{kind} {name}": value for name, row in found["accuracy"].items() for kind, value in row.items()}
        run.log(flat | found["mechanism"] | {"probe/chance": found["chance"], "tsne": wandb.Image(str(picture))})


def main() -> None:
    """Probe the run on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m experiments.probes <run folder>")
        sys.exit(0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2)
    folder = Path(sys.argv[1])
    found = probe(folder)
    table = Table(box=box.SIMPLE_HEAD, title="speakers named right by probes, split by clip")
    for heading in ("", "logistic, mean + std", "1-D CNN"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for name, row in found["accuracy"].items():
        table.add_row(name, f"{row['logistic']:.1%}", f"{row['cnn']:.1%}")
    table.add_row("chance", *[f"{found['chance']:.1%}"] * 2, style="dim")
    console = wide_console()
    console.print(table)
    for name, value in found["mechanism"].items():
        console.print(f"{name}: {value:.4f}", highlight=False)
    console.print(f"picture: {folder / 'samples' / 'tsne.png'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    guarded(main)
