"""Audio-to-Expression Translation Network, §3.2.2 of Song et al. 2020.

From one second of ID-removed MFCC (0.8 s before a frame, 0.2 s after) to the 29 expression coefficients of that frame.
The paper calls it "simple but effective" without saying more; chosen here: three LSTM layers of 256 over the window and
a fully connected layer on the last state. A step of the LSTM may read several MFCC rows at once, as in speech
recognition (Sak et al. 2015): four rows, one video frame, take a quarter of the time. It predicts in units of the
training corpus' deviation from its mean.

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
        rows_per_step: MFCC rows that a step reads, a divisor of A.
    """

    def __init__(self, num_cepstra: int = 13, hidden: int = 256, num_layers: int = 3, rows_per_step: int = 1) -> None:
        super().__init__()
        self.rows_per_step = rows_per_step
        self.lstm = nn.LSTM(num_cepstra * rows_per_step, hidden, num_layers, batch_first=True)

    def forward(self, x_BAC: Float[Tensor, "B A C"]) -> Float[Tensor, "B H"]:
        return self.lstm(stacked_rows(x_BAC, self.rows_per_step))[1][0][-1]


class AudioToExpression(nn.Module):
    """Expression coefficients of the frame that a one-second window of MFCC belongs to.

    Args:
        num_cepstra: C.
        hidden: width of the LSTM layers.
        num_layers: LSTM layers.
        num_expressions: E.
        rows_per_step: MFCC rows that a step of the LSTM reads.
    """

    expression_mean: Float[Tensor, "E"]
    expression_std: Float[Tensor, "E"]

    def __init__(
        self,
        num_cepstra: int = 13,
        hidden: int = 256,
        num_layers: int = 3,
        num_expressions: int = NUM_EXPRESSIONS,
        rows_per_step: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = WindowEncoder(num_cepstra, hidden, num_layers, rows_per_step)
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


def stacked_rows(x_BAC: Float[Tensor, "B A C"], rows_per_step: int) -> Float[Tensor, "B N D"]:
    """Neighbouring rows side by side: N = A / rows_per_step steps of D = C * rows_per_step features.

    Raises:
        ValueError: the rows do not divide into steps.
    """
    if x_BAC.shape[1] % rows_per_step:
        raise ValueError(
            f"{x_BAC.shape[1]} MFCC rows do not divide into steps of {rows_per_step}: use a divisor of 100"
        )
    return x_BAC.unflatten(1, (-1, rows_per_step)).flatten(2)
