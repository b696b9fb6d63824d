"""The parametric face of §3.1 of Song et al. 2020: a linear model of shape (199) and expression (29).

X = mean + S (σ_s s) + E (σ_e e), in the model frame: x right, y down, z away from the camera, outer-eye distance 1 at
the mean, e = 0 the neutral closed mouth. Coefficients are in units of the model's own standard deviations.

Shape legend: V vertices, F triangles, S shape modes (199), E expression modes (29), L landmarks (68), P pose (6).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model_zoo.functional.camera import project
from model_zoo.functional.heatmaps import MOUTH

NUM_SHAPE = 199  # s of §3.1 of Song et al. 2020
NUM_EXPRESSION = 29  # e of §3.1 of Song et al. 2020
NUM_LANDMARKS = 68  # iBUG order
NUM_JAW, _CHIN = 17, 8  # the jawline from ear to ear
CONTOUR_SLOTS = 16  # vertices from a jaw landmark to the middle of the face, where the outline may pass
_CONTOUR_BAND = 0.06  # eye distances above and below a jaw landmark that count as its height


class MorphableFace(nn.Module):
    """Linear face model; a model with fewer modes is zero-padded, and its padding has zero standard deviation.

    Args:
        mean: (V, 3) mean face, model frame.
        shape_basis: (V, 3, ≤199) directions of identity, columns of unit length.
        shape_std: (≤199,) standard deviation along each of them, model units; 0 marks an inactive mode.
        expression_basis: (V, 3, ≤29) directions of expression.
        expression_std: (≤29,) standard deviation along each of them.
        triangles: (F, 3) vertex indices.
        landmark_index: (68,) vertices of the iBUG landmarks.
        contour_index: (17, 16) for each jaw landmark the vertices at its height from itself to the middle of the face,
            where the outline may pass when the head turns (contour.py); found on the mean mesh if None.

    Raises:
        ValueError: shapes disagree, there are more modes than 199 and 29, an index is out of range, or a value is not
            finite.
    """

    mean: Float[Tensor, "V 3"]
    shape_basis: Float[Tensor, "V 3 S"]
    shape_std: Float[Tensor, "S"]
    expression_basis: Float[Tensor, "V 3 E"]
    expression_std: Float[Tensor, "E"]
    triangles: Int[Tensor, "F 3"]
    landmark_index: Int[Tensor, "L"]
    contour_index: Int[Tensor, "17 M"]
    landmark_mean: Float[Tensor, "L 3"]
    landmark_shape: Float[Tensor, "S L3"]
    landmark_expression: Float[Tensor, "E L3"]

    def __init__(
        self,
        mean: Float[Tensor, "V 3"],
        shape_basis: Float[Tensor, "V 3 s"],
        shape_std: Float[Tensor, "s"],
        expression_basis: Float[Tensor, "V 3 e"],
        expression_std: Float[Tensor, "e"],
        triangles: Int[Tensor, "F 3"],
        landmark_index: Int[Tensor, "68"],
        contour_index: Int[Tensor, "17 M"] | None = None,
    ) -> None:
        super().__init__()
        num_vertices = _length(mean)
        _check_shape("mean", mean, (num_vertices, 3))
        _check_modes("shape", shape_basis, shape_std, num_vertices, NUM_SHAPE)
        _check_modes("expression", expression_basis, expression_std, num_vertices, NUM_EXPRESSION)
        _check_shape("triangles", triangles, (_length(triangles), 3))
        _check_shape("landmark_index", landmark_index, (NUM_LANDMARKS,))
        for name, index in (("triangles", triangles), ("landmark_index", landmark_index)):
            if index.numel() and not (index.min() >= 0 and index.max() < num_vertices):
                raise ValueError(f"face model: {name} points outside of its {num_vertices} vertices")
        values = {
            "mean": mean,
            "shape_basis": _pad_last(shape_basis, NUM_SHAPE),
            "shape_std": _pad_last(shape_std, NUM_SHAPE),
            "expression_basis": _pad_last(expression_basis, NUM_EXPRESSION),
            "expression_std": _pad_last(expression_std, NUM_EXPRESSION),
        }
        for name, value in values.items():
            if not torch.isfinite(value).all():
                raise ValueError(f"face model: {name} has values that are not finite")
            self.register_buffer(name, value.to(torch.float32).contiguous())
        self.register_buffer("triangles", triangles.long())
        self.register_buffer("landmark_index", landmark_index.long())
        if contour_index is None:
            contour_index = _outlines(self.mean, self.triangles, self.landmark_index)
        _check_shape("contour_index", contour_index, (NUM_JAW, CONTOUR_SLOTS))
        self.register_buffer("contour_index", contour_index.long(), persistent=False)
        self._refresh_landmark_rows()
        self.register_load_state_dict_post_hook(_refresh_landmark_rows)  # a function: lambdas can't be sent to workers

    def _refresh_landmark_rows(self) -> None:
        """Keep the 68 rows that most callers want as small matrices with σ multiplied in."""
        rows = self.landmark_index
        shape = self.shape_basis[rows] * self.shape_std
        expression = self.expression_basis[rows] * self.expression_std
        self.register_buffer("landmark_mean", self.mean[rows], persistent=False)
        self.register_buffer("landmark_shape", shape.flatten(0, 1).T.contiguous(), persistent=False)
        self.register_buffer("landmark_expression", expression.flatten(0, 1).T.contiguous(), persistent=False)

    @property
    def num_vertices(self) -> int:
        """V."""
        return self.mean.shape[0]

    @property
    def num_active_shape(self) -> int:
        """How many shape modes the model really has; the rest of the 199 do nothing."""
        return int((self.shape_std > 0).sum())

    @property
    def num_active_expression(self) -> int:
        """How many expression modes the model really has; the rest of the 29 do nothing."""
        return int((self.expression_std > 0).sum())

    def vertices(
        self, shape: Float[Tensor, "*#batch 199"], expression: Float[Tensor, "*#batch 29"]
    ) -> Float[Tensor, "*batch V 3"]:
        """All vertices X = mean + S (σ_s s) + E (σ_e e), model units; leading axes broadcast.

        Raises:
            ValueError: the last axes are not 199 and 29.
        """
        _check_coefficients(shape, expression)
        identity = (shape * self.shape_std) @ self.shape_basis.flatten(0, 1).T
        offset = (expression * self.expression_std) @ self.expression_basis.flatten(0, 1).T
        return self.mean + (identity + offset).unflatten(-1, (-1, 3))

    def landmarks(
        self, shape: Float[Tensor, "*#batch 199"], expression: Float[Tensor, "*#batch 29"]
    ) -> Float[Tensor, "*batch 68 3"]:
        """The 68 landmark vertices alone, model units; leading axes broadcast.

        Raises:
            ValueError: the last axes are not 199 and 29.
        """
        _check_coefficients(shape, expression)
        offset = shape @ self.landmark_shape + expression @ self.landmark_expression
        return self.landmark_mean + offset.unflatten(-1, (-1, 3))

    def project_landmarks(
        self,
        shape: Float[Tensor, "*#batch 199"],
        expression: Float[Tensor, "*#batch 29"],
        pose: Float[Tensor, "*#batch 6"],
    ) -> Float[Tensor, "*batch 68 2"]:
        """The 68 landmarks in the image, px: l = scale · (R X)[xy] + t.

        Args:
            shape: coefficients; leading axes broadcast, so one shape serves all frames of a clip.
            expression: coefficients.
            pose: rotation vector (rad), translation (px), log scale.

        Raises:
            ValueError: the last axes are not 199, 29 and 6.
        """
        return project(self.landmarks(shape, expression), pose)

    def mouth_expression_energy(self) -> Float[Tensor, "29"]:
        """RMS displacement of landmarks 48..67 by one standard deviation of each expression mode (eye distances)."""
        offset = self.landmark_expression.unflatten(-1, (NUM_LANDMARKS, 3))[:, list(MOUTH)]
        return offset.square().sum(-1).mean(-1).sqrt()

    def landmark_face(self) -> MorphableFace:
        """The same model of its landmarks and contours only: what fits and losses need, at a fraction of the memory."""
        contours, where = self.contour_index.unique(return_inverse=True)
        rows = torch.cat((self.landmark_index, contours))
        return MorphableFace(
            self.mean[rows],
            self.shape_basis[rows],
            self.shape_std,
            self.expression_basis[rows],
            self.expression_std,
            torch.empty(0, 3, dtype=torch.long, device=rows.device),
            torch.arange(NUM_LANDMARKS, device=rows.device),
            where + NUM_LANDMARKS,
        )


def _outlines(
    mean: Float[Tensor, "V 3"], triangles: Int[Tensor, "F 3"], landmark_index: Int[Tensor, "68"]
) -> Int[Tensor, "17 M"]:
    """For each jaw landmark the outermost vertices of its height, evenly spaced in angle from itself to the middle.

    Angles are about a vertical axis that passes between the ends of the jaw. Where a mesh has no vertex in some
    direction, its place is taken by the one before; the chin stands for itself.
    """
    jaw = landmark_index[:NUM_JAW]
    index = jaw[:, None].repeat(1, CONTOUR_SLOTS)
    surface = triangles.unique()
    points, ends = mean[surface], mean[jaw[[0, -1]]]
    axis = ends.mean(0)
    for landmark in range(NUM_JAW):
        if landmark == _CHIN:
            continue
        side = 1.0 if landmark > _CHIN else -1.0
        across, depth = side * (points[:, 0] - axis[0]), axis[2] - points[:, 2]
        angle, radius = torch.atan2(across, depth), torch.hypot(across, depth)
        own = mean[jaw[landmark]]
        first = torch.atan2(side * (own[0] - axis[0]), axis[2] - own[2])
        height = (points[:, 1] - own[1]).abs()
        for slot in range(1, CONTOUR_SLOTS):
            middle = first * (1 - slot / (CONTOUR_SLOTS - 1))
            near = (height < _CONTOUR_BAND) & ((angle - middle).abs() < first.abs() / (CONTOUR_SLOTS - 1))
            index[landmark, slot] = index[landmark, slot - 1]
            if near.any():  # the outer surface, not what lies inside the head
                index[landmark, slot] = surface[torch.where(near, radius - height, -torch.inf).argmax()]
    return index


def _length(value: Tensor) -> int:
    return value.shape[0] if value.ndim else 0


def _check_shape(name: str, value: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(value.shape) != expected:
        raise ValueError(f"face model: {name} must be {expected}, got {tuple(value.shape)}")


def _check_modes(kind: str, basis: Tensor, std: Tensor, num_vertices: int, limit: int) -> None:
    modes = std.shape[0] if std.ndim == 1 else -1
    if modes > limit:
        raise ValueError(f"face model: at most {limit} {kind} modes, got {modes}; keep the first {limit}")
    _check_shape(f"{kind}_std", std, (max(modes, 0),))
    _check_shape(f"{kind}_basis", basis, (num_vertices, 3, modes))
    if (std < 0).any():
        raise ValueError(f"face model: {kind}_std must not be negative")


def _check_coefficients(shape: Tensor, expression: Tensor) -> None:
    if torch.compiler.is_compiling():
        return
    for name, value, size in (("shape", shape, NUM_SHAPE), ("expression", expression, NUM_EXPRESSION)):
        if value.shape[-1] != size:
            raise ValueError(f"{name} must be (..., {size}), got {tuple(value.shape)}")


def _pad_last(value: Tensor, size: int) -> Tensor:
    return nn.functional.pad(value, (0, size - value.shape[-1]))


def _refresh_landmark_rows(face: MorphableFace, _: object) -> None:
    face._refresh_landmark_rows()
    if face.triangles.numel():
        face.contour_index = _outlines(face.mean, face.triangles, face.landmark_index)
