"""A stateful rival of the windows of §3.2.2 of Song et al. 2020: one LSTM that listens on and on.

The published network starts anew for every frame and hears each MFCC row twenty-five times. This one carries its state,
so that a frame costs one step; it sees as far ahead (0.2 s) and, once it runs, further back. It is another model and
trained as such: on stretches that begin in the middle of speech from an empty state, 0.8 s before the first frame that
counts.

Shape legend: B batch, A audio frames, C cepstra, T video frames, E expression.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model_zoo.audio.audio_to_expression import NUM_EXPRESSIONS, stacked_rows
from model_zoo.audio.standardise import store_statistics
from model_zoo.functional.mfcc import FRAMES_PER_VIDEO_FRAME

State = tuple[Tensor, Tensor]


class CausalAudioToExpression(nn.Module):
    """Expressions of consecutive frames from one pass over the MFCC; a step reads the four rows of a video frame.

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
        self.lstm = nn.LSTM(num_cepstra * FRAMES_PER_VIDEO_FRAME, hidden, num_layers, batch_first=True)
        self.to_expression = nn.Linear(hidden, num_expressions)
        self.register_buffer("expression_mean", torch.zeros(num_expressions))
        self.register_buffer("expression_std", torch.ones(num_expressions))

    def set_statistics(self, mean: Float[Tensor, "E"], std: Float[Tensor, "E"]) -> None:
        """Store mean and standard deviation of the training expressions; inactive modes have zero deviation."""
        store_statistics(self.expression_mean, mean, self.expression_std, std, allow_constant=True)

    def forward(self, x_BAC: Float[Tensor, "B A C"], num_frames: int) -> Float[Tensor, "B T E"]:
        """Expressions of the last `num_frames` frames of a stretch, from an empty state."""
        return self.listen(x_BAC)[0][:, -num_frames:]

    def listen(self, x_BAC: Float[Tensor, "B A C"], state: State | None = None) -> tuple[Float[Tensor, "B T E"], State]:
        """One expression for every four rows (that of the frame 0.2 s before their end), and the state after them."""
        hidden, state = self.lstm(stacked_rows(x_BAC, FRAMES_PER_VIDEO_FRAME), state)
        return self.expression_mean + self.expression_std * self.to_expression(hidden).float(), state
