"""Every configuration key, as a dataclass: an unknown key or a wrong type fails before anything runs.

Lower levels (`conf/<group>/*.yaml`) choose values; `conf/exp/*.yaml` state what an experiment changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, auto

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from lightning_modules.audio_to_expression import SpeechLossWeights
from lightning_modules.render_objective import RenderLossWeights


class Task(StrEnum):
    """What is trained; each has a LightningModule of the same name."""

    speaker_id = auto()
    audio_to_expression = auto()
    audio_to_landmark = auto()
    renderer = auto()
    joint = auto()


class Corpus(StrEnum):
    """How raw files are laid out; without `data.root` and `data.store` a synthetic corpus is made in that layout."""

    grid = auto()
    collected = auto()
    folder = auto()


class Detector(StrEnum):
    """What finds faces and their 68 landmarks while preparing."""

    dlib = auto()  # weights come with the package
    mediapipe = auto()  # FaceLandmarker, for large head turns; `detector_path` is its .task file
    precomputed = auto()  # landmarks from files beside the videos, or in the folder `detector_path`


class Choice(StrEnum):
    """Whose face is followed where a video shows several."""

    largest = auto()
    central = auto()
    talking = auto()


class Split(StrEnum):
    """Which clips are held out; see `datamodules.splits`."""

    hash = auto()  # some clips of every speaker, by the hash of their name
    chen2018 = auto()
    atvg2019 = auto()
    take = auto()  # takes whose name holds "test", or `test_takes`
    speaker = auto()  # a fifth of the speakers, or `test_speakers`
    duration = auto()  # the last `test_minutes` of every speaker and view


class Removal(StrEnum):
    """What takes identity out of speech: the network of Eq. 1, or the normalisation of every window."""

    learned = auto()
    moments = auto()


class Scope(StrEnum):
    """From what ID removal infers λ."""

    window = auto()  # each one-second window, as published
    clip = auto()  # the whole utterance


class LandmarkSpace(StrEnum):
    """Where the 2D rival predicts landmarks."""

    frame = auto()  # in the crop, as published
    face = auto()  # within the face's own plane, re-posed in each frame: the fair rival


class Norm(StrEnum):
    """Normalisation in the generator; batch norm would break per-sample penalties and the equality of processes."""

    none = auto()
    group = auto()


class Upsampling(StrEnum):
    """What doubles the resolution in the generator."""

    transposed = auto()  # 4×4 transposed convolutions, as in pix2pix
    resize = auto()  # bilinear, then a 3×3 convolution: no checkerboards


class Convolution(StrEnum):
    """The generator's other convolutions."""

    plain = auto()
    gated = auto()  # multiplied by learned gates (Yu et al. 2019)


class Output(StrEnum):
    """What the generator's last layer makes."""

    image = auto()  # the frame
    residual = auto()  # what differs from a reference frame of the same clip
    warped = auto()  # what differs from frames of the same clip that are warped to the driving landmarks


class Penalty(StrEnum):
    """Gradient penalty: zero-centred at true frames, or the paper's reference [19]."""

    r1 = auto()
    wgan = auto()


class Precision(StrEnum):
    """Arithmetic of the networks; losses and the gradient penalty stay in float32."""

    float32 = auto()
    bfloat16 = auto()


@dataclass
class StepsConfig:
    """Optimisation steps of each task."""

    speaker_id: int = MISSING
    audio_to_expression: int = MISSING
    renderer: int = MISSING
    joint: int = MISSING


@dataclass
class ScaleConfig:
    """Crop, widths, batch sizes and steps; never the method."""

    name: str = MISSING
    crop: int = MISSING  # px, a power of two
    generator_width: int = MISSING  # channels of the first convolution; 64 in the paper-scale network
    discriminator_width: int = MISSING  # channels of the first convolution
    lstm_width: int = MISSING  # hidden units of the audio-to-expression LSTM; 256 as published
    speaker_width: float = MISSING  # multiplier of VGG-M's channels
    video_batch: int = MISSING  # samples of 7 frames a step, renderer and joint
    speech_batch: int = MISSING  # one-second windows a step, speaker_id and audio_to_expression
    video_epochs: int = MISSING  # renderer and joint also end after this many passes over the training frames
    steps: StepsConfig = field(default_factory=StepsConfig)


@dataclass
class SyntheticConfig:
    """The built-in corpus, made when neither `data.root` nor `data.store` is given."""

    speakers: int = 6
    sentences: int = 8  # a speaker, of `grid`
    seconds: float = 12.0  # of each training take, of `collected`
    views: list[str] = field(default_factory=list)  # with pictures, of `collected`; none: all seven
    seed: int = 0
    pictures: bool = True  # false: sound and exact face parameters without video, for experiments on speech alone


@dataclass
class DataConfig:
    """Where the clips come from and how they are split and loaded."""

    corpus: Corpus = MISSING
    root: str | None = None  # folder of raw files; none: `store` is read as it is, without one synthetic
    consent: str | None = None  # research-corpus, self, written or synthetic; recorded with every clip
    consent_reference: str | None = None  # licence, name or document by which that consent is found
    cache: str | None = None  # folder of prepared clip stores; none: the user's cache folder
    store: str | None = None  # folder of this corpus' clip store; none: one below `cache`, by root, face and settings
    detector: Detector = Detector.dlib
    detector_path: str | None = None  # what the detector needs; see `Detector`
    choice: Choice = Choice.largest
    correct_offset: bool = False  # move the sound onto the picture where their offset is known with confidence
    split: Split | None = None  # none: `hash` for GRID, `take` for collected, `duration` for a folder of videos
    test_speakers: list[str] = field(default_factory=list)  # held out by split=speaker; none: a fifth of them
    test_takes: list[str] = field(default_factory=list)  # held out by split=take; none: those named "test"
    test_minutes: float | None = None  # held out by split=duration, of every speaker and view; none: 2
    speakers: list[str] = field(default_factory=list)  # train and test on these alone; none: on all
    train_minutes: float | None = None  # of every speaker and view that train (Table 3: 2, 5, 10, 15); none: all
    batch_workers: int = 1  # loader threads
    prepare_workers: int | None = None  # preparation processes; none: one a core
    val_clips: int = 4  # held-out clips scored during training; all are scored at the end
    val_stride: int = 5  # every n-th frame of them
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)


@dataclass
class FaceConfig:
    """The parametric face."""

    model: str = "procedural"  # `procedural`, an imported .safetensors, or any model that experiments.prepare imports
    landmarks: str | None = None  # file of the 68 landmarks' vertices, for models that carry none (Basel, FLAME)
    expressions: str | None = None  # 3DDFA's expression basis, for Basel 2009


@dataclass
class AudioConfig:
    """MFCC, the Audio ID-Removing Network and the Audio-to-Expression Network (§3.2)."""

    num_cepstra: int = 13
    id_removal: bool = True
    removal: Removal = Removal.learned
    scope: Scope = Scope.window
    num_components: int = 15  # K of Eq. 1
    id_hidden: int = 128  # units of the λ-LSTM
    id_layers: int = 1  # of the λ-LSTM
    component_std: float = 0.01  # of the components at the start; λ starts at 0 whatever it is
    utterance_rows: int = 300  # MFCC rows that a training sample brings for λ of scope `clip`; 100 a second
    normalise_speakers: bool = False  # per-speaker CMVN, a rival of ID removal
    stateful: bool = False  # one LSTM that listens on and on, in the place of windows; another model
    rows_per_step: int = 4  # MFCC rows that a step of the LSTM reads; 1, 2, 4, 5, 10, 20, 25, 50 or 100
    frames: int = 1  # consecutive video frames of a training sample without pixels
    landmark_space: LandmarkSpace = LandmarkSpace.frame  # of audio_to_landmark
    lstm_layers: int = 3
    lstm_width: int = 256
    learning_rate: float = 1e-3  # of the networks from speech to a face
    speaker_learning_rate: float = 1e-3  # of the speaker network


@dataclass
class AugmentConfig:
    """What training samples hear and see (conf/augment), drawn from the seed, the epoch and the sample."""

    enabled: bool = False  # gain and noise, on the waveform
    voice_scale: float = 0.0  # deviation of a factor of each cepstrum
    voice_offset: float = 0.0  # deviation of a shift of each cepstrum, in deviations of the clip
    voice_tract: float = 0.0  # deviation of a log factor of all frequencies: a shorter or longer vocal tract
    voice_formants: float = 0.0  # deviation of another one at 0 Hz, 1.8 kHz and 8 kHz, linear in mel between
    gain_db: list[float] = field(default_factory=lambda: [-10.0, 10.0])  # lowest and highest
    noise: float = 0.5  # share of the samples with noise
    snr_db: list[float] = field(default_factory=lambda: [5.0, 35.0])  # level of the clip over the noise
    tilt: list[float] = field(default_factory=lambda: [-6.0, 0.0])  # of the noise, dB an octave; 0 is white, -3 pink
    landmark_heard: float = 1.0  # least share of the mouth's movement that landmarks keep, as if heard; 1: all
    landmark_bias: float = 0.0  # deviation of their constant error, in deviations of each mode of movement
    flip: float = 0.0  # share of the stretches of video that are mirrored; this and the next four: renderer alone
    colour: float = 0.0  # deviation of each channel's factor, and of the brightness as a share of its range
    rotate: float = 0.0  # largest turn of the crop, degrees
    zoom: float = 0.0  # largest change of its scale, share
    shift: float = 0.0  # largest move of it, px at 256


@dataclass
class RendererConfig:
    """The Neural Video Rendering Network (§3.3)."""

    width: int = 64
    discriminator_width: int = 64
    norm: Norm = Norm.none
    upsampling: Upsampling = Upsampling.transposed
    convolution: Convolution = Convolution.plain
    attention: bool = False  # self-attention on the 32-px map
    output: Output = Output.image
    references: int = 1  # frames that output=residual shows: 1 (closed mouth) or 2 (open too); output=warped: 1 to 8
    gallery: int = 40  # frames of each clip among which output=warped chooses
    full_face: bool = False  # generate the whole of frame t from the six before it (Table 5)
    start: str | None = None  # checkpoint of a renderer or joint run whose generator and discriminators to go on from
    learning_rate: float = 2e-4  # of a generator of width 64; others get 64/width times as much
    discriminator_learning_rate: float = 2e-4
    penalty: Penalty = Penalty.r1
    penalty_every: int = 8  # steps between penalties; the weight is multiplied accordingly
    critic_steps: int = 1  # of the discriminators on each batch
    adversary_from: float = 0.0  # share of the run over which the other terms train alone
    clip: float = 0.0  # most norm of each optimiser's gradient, renderer and joint; 0: any
    gradients_every: int = 500  # steps between two looks at the gradient of each term, logged as grad_<term>; 0: never
    ema_decay: float = 0.99  # exponential moving average of the generator's weights; 0: off
    teacher_forcing: float = 0.5  # joint: share of the steps over which heatmaps pass from true to predicted landmarks


@dataclass
class LossConfig:
    """Weights of every term; 0 switches one off."""

    speech: SpeechLossWeights = field(default_factory=SpeechLossWeights)
    render: RenderLossWeights = field(default_factory=RenderLossWeights)


@dataclass
class TrainerConfig:
    """Hardware, precision, and how often to score, log and save."""

    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    precision: Precision = Precision.bfloat16
    max_steps: int | None = None  # none: the scale's steps for the task
    val_every: int | None = None  # steps; none: a quarter of the run
    log_every: int = 10  # steps
    checkpoint_every: int | None = None  # steps; none: with each validation
    resume: str | None = None  # checkpoint of an interrupted run of the same configuration
    progress: bool = True
    warmup: float = 0.0  # share of the run over which learning rates rise
    decay: float = 0.5  # share of the run, at its end, over which they fall to zero
    cosine: bool = False  # fall along half a cosine rather than a line
    deterministic: bool = False


@dataclass
class LoggerConfig:
    """Weights & Biases; metrics.csv is always written."""

    wandb: bool = True
    project: str = "talkin"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    mode: str | None = None  # `online`, `offline` or `disabled`; none: online when a key is set


@dataclass
class Config:
    """One run."""

    task: Task = MISSING
    name: str = MISSING  # of the experiment; the run folder is <output>/<name>/<stamp>
    output: str = "outputs"
    seed: int = 0
    pretrain: list[Task] = field(default_factory=list)  # trained first, in this order, in the same run folder
    data: DataConfig = field(default_factory=DataConfig)
    face: FaceConfig = field(default_factory=FaceConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    renderer: RendererConfig = field(default_factory=RendererConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)


def register() -> None:
    """Make the schema known to Hydra under the name that `conf/config.yaml` lists first."""
    ConfigStore.instance().store(name="schema", node=Config)
