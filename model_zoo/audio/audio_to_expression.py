"""Audio-to-Expression Translation Network, §3.2.2 of Song et al. 2020.

From one second of ID-removed MFCC (0.8 s before a frame, 0.2 s after) to the 29 expression coefficients of that frame.
The paper calls it "simple but effective" without saying more; chosen here: three LSTM layers of 256 over the window and
a fully connected layer on the last state. It predicts in units of the training corpus' deviation from its mean.

Shape legend: B batch, A audio frames, C cepstra, H hidden, E expression.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model_zoo.audio.standardise import store_statistics

NUM_EXPRESSIONS = 29  # §3.1 of Song et al. 2020


class WindowEncoder(nn.Module):
    """LSTM over a window of standardised MFCC: (B, A, C) to its last state (B, H).

    Args:
        num_cepstra: C.
        hidden: width of each layer, H.
        num_layers: stacked layers.
    """

    def __init__(self, num_cepstra: int = 13, hidden: int = 256, num_layers: int = 3) -> None:
        super().__init__()
        self.lstm = nn.LSTM(num_cepstra, hidden, num_layers, batch_first=True)

    def forward(self, x_BAC: Float[Tensor, "B A C"]) -> Float[Tensor, "B H"]:
        return self.lstm(x_BAC)[1][0][-1]


class AudioToExpression(nn.Module):
    """Expression coefficients of the frame that a one-second window of MFCC belongs to.

    Args:
        num_cepstra: C.
        hidden: width of the LSTM layers.
        num_layers: LSTM layers.
        num_expressions: E.
    """

    expression_mean: Float[Tensor, "E"]
    expression_std: Float[Tensor, "E"]

    def __init__(
        self, num_cepstra: int = 13, hidden: int = 256, num_layers: int = 3, num_expressions: int = NUM_EXPRESSIONS
    ) -> None:
        super().__init__()
        self.encoder = WindowEncoder(num_cepstra, hidden, num_layers)
        self.to_expression = nn.Linear(hidden, num_expressions)
        self.register_buffer("expression_mean", torch.zeros(num_expressions))
        self.register_buffer("expression_std", torch.ones(num_expressions))

    def set_statistics(self, mean: Float[Tensor, "E"], std: Float[Tensor, "E"]) -> None:
        """Store mean and standard deviation of the training expressions; inactive modes have zero deviation.

        Raises:
            ValueError: wrong shape, not finite, or a negative deviation.
        """
        store_statistics(self.expression_mean, mean, self.expression_std, std, allow_constant=True)

    def forward(self, x_BAC: Float[Tensor, "B A C"]) -> Float[Tensor, "B E"]:
        """Expression, in standard deviations of the face model, from standardised (ID-removed) MFCC."""
        return self.expression_mean + self.expression_std * self.to_expression(self.encoder(x_BAC)).float()
