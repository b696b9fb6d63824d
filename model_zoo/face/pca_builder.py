"""The bases of §3.1 of Song et al. 2020: "geometry and expression bases are computed … via PCA".

Everything here speaks in deltas: displacements (V, 3) whose outer products add up to the second moment Σ δ δᵀ of what a
model has to express. A published mode is the delta of one standard deviation; one of N blendshapes counts 1/√N. So one
function serves scans (about their mean), blendshapes and poses (about the neutral face; uncentred, so that e = 0 stays
neutral).

Shape legend: N deltas, M modes, V vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_NEGLIGIBLE = 1e-6  # of the largest standard deviation: what N deltas of lower rank leave as rounding


@dataclass(frozen=True)
class Modes:
    """Orthogonal or published directions of a model.

    Attributes:
        deltas: (M, V, 3) displacement by one standard deviation of each mode.
        given: how many the source had.
        variance_kept: share of the source's second moment that lies in their span, 0 to 1.
    """

    deltas: Float[np.ndarray, "M V 3"]
    given: int
    variance_kept: float

    @property
    def residual(self) -> float:
        """What they leave: RMS residual relative to the RMS displacement, √(1 − variance kept)."""
        return float(np.sqrt(max(0.0, 1 - self.variance_kept)))


def principal_modes(deltas: Float[np.ndarray, "N V 3"], limit: int, rows: slice = slice(None)) -> Modes:
    """The `limit` leading principal components of deltas: an uncentred SVD over the vertices `rows`.

    Their coefficients have unit second moment, and modes are orthogonal over `rows`. The SVD goes through the (N, N)
    Gram matrix, for N ≪ 3V. The largest entry of a mode is positive, so that every machine finds the same ones.

    Args:
        deltas: displacements, any unit.
        limit: the most modes to keep.
        rows: vertices that decide; the modes cover all.
    """
    flat = deltas[:, rows].reshape(len(deltas), -1)
    values, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    total = values.sum()
    kept = min(limit, int((values > _NEGLIGIBLE**2 * values.max(initial=0)).sum()))
    modes = np.tensordot(vectors[:, :kept].T, deltas, axes=1)
    flat = modes.reshape(kept, modes[0].size if kept else 0)
    largest = np.take_along_axis(flat, np.abs(flat).argmax(1, keepdims=True), axis=1) if kept else np.empty((0, 1))
    return Modes(
        modes * np.where(largest < 0, -1, 1)[..., None],
        len(deltas),
        float(values[:kept].sum() / total) if total > 0 else 1.0,
    )


def fitting_modes(deltas: Float[np.ndarray, "N V 3"], limit: int) -> Modes:
    """Published modes as they are while there is room for them, else their principal components."""
    return Modes(deltas, len(deltas), 1.0) if len(deltas) <= limit else principal_modes(deltas, limit)


def modes_about_neutral(deltas: Float[np.ndarray, "N V 3"], offset: Float[np.ndarray, "V 3"], limit: int) -> Modes:
    """Expression modes about the neutral face, of a model whose expressions scatter about neutral + `offset`.

    The second moment about the neutral is Σ δ δᵀ + offset offsetᵀ. Where the published modes fit they are kept as they
    are, and `variance_kept` says how well their span reaches the neutral face; else the offset is one delta more.
    """
    if len(deltas) > limit:
        modes = principal_modes(np.concatenate((deltas, offset[None])), limit)
        return Modes(modes.deltas, len(deltas), modes.variance_kept)
    basis, target = deltas.reshape(len(deltas), -1).T.astype(np.float64), offset.reshape(-1).astype(np.float64)
    missed = target - basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
    total = (basis**2).sum() + (target**2).sum()
    return Modes(deltas, len(deltas), float(1 - (missed**2).sum() / total) if total > 0 else 1.0)
