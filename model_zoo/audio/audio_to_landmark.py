"""Audio-to-Landmark Translation Network, the 2D rival of Table 1 of Song et al. 2020.

"Modifies the last fully connected layer of the Audio-to-Expression Translation Network so that its output dimension is
the coordinate number of mouth region landmarks."

Shape legend: B batch, A audio frames, C cepstra, L = 20 mouth landmarks.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model_zoo.audio.audio_to_expression import WindowEncoder
from model_zoo.audio.standardise import store_statistics

NUM_MOUTH_LANDMARKS = 20


class AudioToLandmark(nn.Module):
    """Mouth landmarks (px at 256) of the frame that a one-second window of MFCC belongs to.

    Args:
        num_cepstra: C.
        hidden: width of the LSTM layers.
        num_layers: LSTM layers.
        rows_per_step: MFCC rows that a step of the LSTM reads.
    """

    landmark_mean: Float[Tensor, "L 2"]
    landmark_std: Float[Tensor, "L 2"]

    def __init__(self, num_cepstra: int = 13, hidden: int = 256, num_layers: int = 3, rows_per_step: int = 1) -> None:
        super().__init__()
        self.encoder = WindowEncoder(num_cepstra, hidden, num_layers, rows_per_step)
        self.to_landmarks = nn.Linear(hidden, NUM_MOUTH_LANDMARKS * 2)
        self.register_buffer("landmark_mean", torch.zeros(NUM_MOUTH_LANDMARKS, 2))
        self.register_buffer("landmark_std", torch.ones(NUM_MOUTH_LANDMARKS, 2))

    def set_statistics(self, mean: Float[Tensor, "L 2"], std: Float[Tensor, "L 2"]) -> None:
        """Store mean and standard deviation of the training clips' mouth landmarks, px at 256.

        Raises:
            ValueError: wrong shape, not finite, or a deviation that is not positive.
        """
        store_statistics(self.landmark_mean, mean, self.landmark_std, std, allow_constant=False)

    def forward(self, x_BAC: Float[Tensor, "B A C"]) -> Float[Tensor, "B L 2"]:
        """Landmarks 48..67, px at 256, from standardised (ID-removed) MFCC."""
        deviations = self.to_landmarks(self.encoder(x_BAC)).float().unflatten(-1, (NUM_MOUTH_LANDMARKS, 2))
        return self.landmark_mean + self.landmark_std * deviations
