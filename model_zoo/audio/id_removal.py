"""Audio ID-Removing Network, §3.2.1 and Eq. 1 of Song et al. 2020.

x' = W̄ [x; 1] with W̄ = I + Σ_j λ_j W̄^j takes the MFCC of any speaker to those of a "global speaker"; an LSTM and a
fully connected layer infer λ, the components W̄^j are learned. Where the paper is silent: W̄^j is C×(C+1), an affine map
as in fMLLR; K = 15 components with a standard deviation of 0.01; a single LSTM layer of 128. The layer that infers λ
starts at zero, so that nothing is changed at first while its gradients live. λ comes from each window (`scope`
'window', what the paper says) or from all that was heard of the speaker ('clip').

Shape legend: B batch, A audio frames, C cepstra, K fMLLR components.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

NUM_COMPONENTS = 15
COMPONENT_STD = 0.01


class AudioIdRemoval(nn.Module):
    """Speaker-dependent affine map of standardised MFCC, Eq. 1.

    Args:
        num_cepstra: C.
        num_components: K.
        hidden: width of the LSTM that infers λ.
        num_layers: layers of it.
        component_std: deviation of the components at the start.
        scope: 'window': λ from the LSTM's last state. 'clip': from the mean of all its states, those
            of the context where one is given.

    Raises:
        ValueError: unknown scope.
    """

    def __init__(
        self,
        num_cepstra: int = 13,
        num_components: int = NUM_COMPONENTS,
        hidden: int = 128,
        scope: Literal["window", "clip"] = "window",
        num_layers: int = 1,
        component_std: float = COMPONENT_STD,
    ) -> None:
        super().__init__()
        if scope not in ("window", "clip"):
            raise ValueError(f"scope of ID removal must be 'window' or 'clip', got {scope!r}")
        self.scope = scope
        self.lstm = nn.LSTM(num_cepstra, hidden, num_layers, batch_first=True)
        self.to_weights = nn.Linear(hidden, num_components)
        nn.init.zeros_(self.to_weights.weight)
        nn.init.zeros_(self.to_weights.bias)
        self.components = nn.Parameter(component_std * torch.randn(num_components, num_cepstra, num_cepstra + 1))

    def forward(
        self, x_BAC: Float[Tensor, "B A C"], context: Float[Tensor, "B N C"] | None = None
    ) -> tuple[Float[Tensor, "B A C"], Float[Tensor, "B K"]]:
        """Move a window towards the global speaker.

        Args:
            x_BAC: standardised MFCC.
            context: scope 'clip' only: the whole utterance (of N audio frames) from which λ is inferred.

        Returns:
            x' and λ.
        """
        weights_BK = self.weights(x_BAC if context is None else context)
        if context is not None and self.scope == "window":
            raise ValueError(
                "scope 'window' infers λ from the window itself: leave out the context or use scope 'clip'"
            )
        return self.adapt(x_BAC, weights_BK), weights_BK

    def weights(self, x_BAC: Float[Tensor, "B A C"]) -> Float[Tensor, "B K"]:
        """λ of a window or of an utterance, by the network's scope."""
        if self.scope == "clip":
            return self.to_weights(self.lstm(x_BAC)[0].mean(1))
        return self.to_weights(self.lstm(x_BAC)[1][0][-1])

    def transform(self, weights_BK: Float[Tensor, "B K"]) -> Float[Tensor, "B C D"]:
        """W̄ = I + Σ_j λ_j W̄^j, of C rows and D = C + 1 columns, the last of which is the offset."""
        change_BCD = torch.einsum("bk,kcd->bcd", weights_BK, self.components)
        identity_CD = torch.eye(*change_BCD.shape[1:], dtype=change_BCD.dtype, device=change_BCD.device)
        return identity_CD + change_BCD

    def adapt(self, x_BAC: Float[Tensor, "B A C"], weights_BK: Float[Tensor, "B K"]) -> Float[Tensor, "B A C"]:
        """x' = W̄ [x; 1] of every audio frame."""
        # The identity is added as x itself: at the start x' equals x to the last bit.
        change_BCD = torch.einsum("bk,kcd->bcd", weights_BK, self.components)
        return x_BAC + torch.baddbmm(change_BCD[:, None, :, -1], x_BAC, change_BCD[:, :, :-1].mT)


class MomentRemoval(nn.Module):
    """Every window to mean 0 and deviation 1 exactly, cepstrum by cepstrum; beyond the paper, nothing is learned.

    Instance normalisation, which takes the speaker out of speech (Chou et al. 2019), as the map of Eq. 1 with
    W̄ = [diag(1/σ) | −μ/σ] of the window itself; λ are its moments. Per-speaker normalisation without a speaker's data.

    Args:
        floor: least deviation, in those of the corpus: silence stays silent. Speech is above it; a floor that is added
            to all deviations would leave a trace of each, by which a probe finds the speaker.
    """

    scope = "window"

    def __init__(self, floor: float = 0.1) -> None:
        super().__init__()
        self.floor = floor

    def forward(
        self, x_BAC: Float[Tensor, "B A C"], context: Float[Tensor, "B N C"] | None = None
    ) -> tuple[Float[Tensor, "B A C"], Float[Tensor, "B K"]]:
        """x' and λ, as `AudioIdRemoval`; a context is of no use.

        Raises:
            ValueError: there is a context.
        """
        if context is not None:
            raise ValueError("moments are those of the window itself: leave out the context")
        weights_BK = self.weights(x_BAC)
        return self.adapt(x_BAC, weights_BK), weights_BK

    def weights(self, x_BAC: Float[Tensor, "B A C"]) -> Float[Tensor, "B K"]:
        """K = 2 C: mean and floored deviation of each cepstrum."""
        mean = x_BAC.mean(1)
        variance = (x_BAC - mean[:, None]).square().mean(1)
        return torch.cat([mean, variance.clamp_min(self.floor**2).sqrt()], dim=1)

    def transform(self, weights_BK: Float[Tensor, "B K"]) -> Float[Tensor, "B C D"]:
        """W̄, of C rows and D = C + 1 columns, the last of which is the offset."""
        mean, deviation = weights_BK.chunk(2, dim=1)
        return torch.cat([torch.diag_embed(1 / deviation), (-mean / deviation)[..., None]], dim=2)

    def adapt(self, x_BAC: Float[Tensor, "B A C"], weights_BK: Float[Tensor, "B K"]) -> Float[Tensor, "B A C"]:
        """x' = W̄ [x; 1] of every audio frame."""
        mean, deviation = weights_BK[:, None].chunk(2, dim=2)
        return (x_BAC - mean) / deviation


class RunningWeights:
    """λ of scope 'clip' while somebody speaks: the mean over the states so far; its last row is the utterance's.

    Args:
        network: ID removal of scope 'clip'.

    Raises:
        ValueError: it has another scope.
    """

    def __init__(self, network: AudioIdRemoval) -> None:
        if network.scope != "clip":
            raise ValueError("only scope 'clip' infers λ from what was heard so far")
        self._network = network
        self._state: tuple[Tensor, Tensor] | None = None
        self._sum: Tensor | float = 0.0
        self._count = 0

    def __call__(self, x_AC: Float[Tensor, "A C"]) -> Float[Tensor, "A K"]:
        """λ after each of the next rows of standardised MFCC."""
        if len(x_AC) == 0:
            return x_AC.new_zeros(0, self._network.to_weights.out_features)
        states, self._state = self._network.lstm(x_AC, self._state)
        sums = self._sum + states.double().cumsum(0)  # hours of float32 would lose the newest rows
        counts = self._count + torch.arange(1, len(x_AC) + 1, device=x_AC.device)
        self._sum, self._count = sums[-1], self._count + len(x_AC)
        return self._network.to_weights((sums / counts[:, None]).float())
