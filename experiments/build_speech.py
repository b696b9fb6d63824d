"""The part of `experiments.build` that turns a configuration into what hears: samples of sound and audio networks."""

from __future__ import annotations

import torch

from datamodules.corpus_module import CorpusDataModule
from datamodules.hearing import Hearing, SoundAugmentation, VoiceAugmentation
from experiments.command_line import UserError
from experiments.schema import Config, LandmarkSpace, Removal, Scope, Task
from lightning_modules.audio_to_landmark import mouth_movement
from model_zoo.audio.audio_to_expression import AudioToExpression
from model_zoo.audio.audio_to_landmark import AudioToLandmark
from model_zoo.audio.causal import CausalAudioToExpression
from model_zoo.audio.id_removal import AudioIdRemoval, MomentRemoval
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.audio.standardise import MfccStandardise
from model_zoo.audio.vggvox import VGGVox
from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.heatmaps import MOUTH


def build_hearing(config: Config, task: Task) -> Hearing:
    """How the speech part of samples is made; the judge of Eq. 2 hears single windows."""
    audio, augment = config.audio, config.augment
    ranges = (augment.gain_db, augment.snr_db, augment.tilt)
    if any(len(bounds) != 2 for bounds in ranges):
        raise UserError("augment.gain_db, snr_db and tilt take two numbers: [lowest, highest]")
    gain, snr, tilt = ((bounds[0], bounds[1]) for bounds in ranges)
    voice = VoiceAugmentation(augment.voice_scale, augment.voice_offset, augment.voice_tract, augment.voice_formants)
    return Hearing(
        num_frames=1 if task is Task.speaker_id else audio.frames,
        utterance_rows=audio.utterance_rows if audio.id_removal and audio.scope is Scope.clip else 0,
        augmentation=SoundAugmentation(gain, augment.noise, snr, tilt) if augment.enabled else None,
        voice=voice or None,
        seed=config.seed,
    )


def build_standardise(config: Config, data) -> MfccStandardise:
    """Standardisation by the statistics of the training clips."""
    standardise = MfccStandardise(config.audio.num_cepstra)
    standardise.set_statistics(*data.mfcc_statistics)
    return standardise


def build_speaker_network(config: Config, data) -> VGGVox:
    """An untrained judge of Eq. 2."""
    return VGGVox(data.num_speakers, config.audio.num_cepstra, config.scale.speaker_width)


def build_speech(config: Config, data) -> SpeechToExpression:
    """The networks from MFCC to expression, with the statistics of the training clips."""
    audio = config.audio
    translation: AudioToExpression | CausalAudioToExpression
    if audio.stateful:
        translation = CausalAudioToExpression(audio.num_cepstra, audio.lstm_width, audio.lstm_layers)
    else:
        translation = AudioToExpression(
            audio.num_cepstra, audio.lstm_width, audio.lstm_layers, rows_per_step=audio.rows_per_step
        )
    translation.set_statistics(*data.expression_statistics)
    return SpeechToExpression(build_standardise(config, data), build_id_removal(config), translation)


def learns_removal(config: Config) -> bool:
    """Whether there is an Audio ID-Removing Network to train."""
    return config.audio.id_removal and config.audio.removal is Removal.learned


def build_id_removal(config: Config) -> AudioIdRemoval | MomentRemoval | None:
    """The Audio ID-Removing Network, or what takes its place; none for the baseline."""
    audio = config.audio
    if not audio.id_removal:
        return None
    if audio.removal is Removal.moments:
        return MomentRemoval()
    return AudioIdRemoval(
        audio.num_cepstra,
        audio.num_components,
        audio.id_hidden,
        audio.scope.value,
        audio.id_layers,
        audio.component_std,
    )


def build_landmark_speech(config: Config, data: CorpusDataModule, face: MorphableFace) -> SpeechToExpression:
    """The networks from MFCC to mouth landmarks, in the statistics of the training clips."""
    audio = config.audio
    network = AudioToLandmark(audio.num_cepstra, audio.lstm_width, audio.lstm_layers, audio.rows_per_step)
    clips = [(data.store.open(clip), slice(frames.start, frames.stop)) for clip, frames in data.train_frames.items()]
    if audio.landmark_space is LandmarkSpace.frame:
        mouths = [clip.landmarks[part, MOUTH.start : MOUTH.stop][clip.valid[part]] for clip, part in clips]
    else:
        fits = [(clip.shape[None], clip.expression[part][clip.valid[part]]) for clip, part in clips]
        mouths = [mouth_movement(face, *fit) for fit in fits]
    mouth = torch.cat(mouths)
    network.set_statistics(mouth.mean(0), mouth.std(0).clamp_min(1e-3 * float(mouth.std())))
    return SpeechToExpression(build_standardise(config, data), build_id_removal(config), network)


def check_audio(config: Config) -> None:
    """Refuse audio settings that cannot work.

    Raises:
        UserError: with the remedy.
    """
    audio = config.audio
    if config.task is Task.audio_to_landmark and config.loss.speech.shape == 0:
        raise UserError("no loss is left to train: give loss.speech.shape a weight")
    if audio.frames < 1 or audio.rows_per_step < 1 or 100 % audio.rows_per_step or audio.utterance_rows < 1:
        raise UserError("audio.frames and utterance_rows must be at least 1, rows_per_step a divisor of 100")
    if audio.removal is Removal.moments and audio.scope is Scope.clip:
        raise UserError("audio.removal=moments looks at windows: use audio.scope=window")
    if audio.stateful and audio.id_removal and audio.scope is not Scope.clip:
        raise UserError("a stateful network hears no windows: use audio=stateful, or audio.scope=clip beside it")
    if audio.stateful and config.task is Task.audio_to_landmark:
        raise UserError("audio.stateful is for audio_to_expression and joint: leave it out")
