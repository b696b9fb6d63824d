"""Principal components against numpy's singular vectors, and faces built from folders of meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from model_zoo.face.importers import import_face
from model_zoo.face.pca_builder import fitting_modes, modes_about_neutral, principal_modes
from model_zoo.face.scans import align_rigidly
from tests.model_zoo.face.model_files import source_mean, to_frame, triangles, write_landmarks


def test_modes_are_the_singular_vectors():
    deltas = np.random.default_rng(0).standard_normal((12, 20, 3))
    modes = principal_modes(deltas, 5)
    _, singular, right = np.linalg.svd(deltas.reshape(12, -1), full_matrices=False)
    flat = modes.deltas.reshape(5, -1)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), singular[:5])
    np.testing.assert_allclose(np.abs((flat / singular[:5, None] * right[:5]).sum(1)), 1)
    assert modes.variance_kept == pytest.approx((singular[:5] ** 2).sum() / (singular**2).sum())
    assert modes.residual**2 == pytest.approx(1 - modes.variance_kept)
    assert modes.given == 12


def test_rows_decide_and_all_vertices_follow():
    deltas = np.random.default_rng(1).standard_normal((4, 20, 3))
    modes = principal_modes(deltas, 4, slice(0, 6))
    near = modes.deltas[:, :6].reshape(4, -1)
    np.testing.assert_allclose(near @ near.T, np.diag((near**2).sum(1)), atol=1e-10)
    mix = np.linalg.lstsq(deltas[:, :6].reshape(4, -1).T, near.T, rcond=None)[0]
    np.testing.assert_allclose(np.tensordot(mix.T, deltas, 1), modes.deltas, atol=1e-10)


def test_rank_is_not_overstated():
    deltas = np.random.default_rng(2).standard_normal((3, 20, 3))
    modes = principal_modes(np.concatenate((deltas, deltas - deltas.mean(0))), 29)
    assert len(modes.deltas) == 3
    assert modes.variance_kept == pytest.approx(1)
    assert principal_modes(np.zeros((3, 20, 3)), 29).deltas.shape == (0, 20, 3)


def test_published_modes_are_kept_where_they_fit():
    deltas = np.random.default_rng(3).standard_normal((6, 20, 3))
    assert fitting_modes(deltas, 6).deltas is deltas
    assert fitting_modes(deltas, 5).deltas.shape == (5, 20, 3)
    inside, outside = deltas[0] - 2 * deltas[3], np.random.default_rng(4).standard_normal((20, 3))
    assert modes_about_neutral(deltas, inside, 6).variance_kept == pytest.approx(1)
    assert 0.5 < modes_about_neutral(deltas, outside, 6).variance_kept < 1
    squeezed = modes_about_neutral(deltas, outside, 5)
    everything = np.concatenate((deltas, outside[None])).reshape(7, -1)
    singular = np.linalg.svd(everything, compute_uv=False) ** 2
    assert squeezed.variance_kept == pytest.approx(singular[:5].sum() / singular.sum())


def test_alignment_takes_out_turns_and_shifts():
    rng = np.random.default_rng(5)
    head = rng.standard_normal((40, 3))
    turned = [head @ Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix().T + rng.normal(0, 5, 3) for _ in range(4)]
    aligned = align_rigidly(np.stack([head, *turned]))
    np.testing.assert_allclose(aligned - aligned[:1], 0, atol=1e-9)
    np.testing.assert_allclose(aligned[0] - aligned[0].mean(0), head - head.mean(0), atol=1e-9)


def write_heads(folder: Path, suffix: str = "ply") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Five scans of a two-mode family in slightly different poses, and two people's blendshapes."""
    rng = np.random.default_rng(6)
    mean, faces = source_mean(90), triangles(90)
    identity = rng.standard_normal((2, 90, 3)) * np.array([4, 2])[:, None, None]
    coefficients = np.array([[-1, 1], [1, -1], [1, 1], [-1, -1], [0, 0]]) / 2
    turns = [Rotation.from_rotvec(rng.normal(0, 0.2, 3)).as_matrix() for _ in range(5)]
    turns[0] = np.eye(3)  # the frame is the first scan's
    scans = np.stack(
        [
            (mean + np.tensordot(row, identity, 1)) @ turn.T + 3 * turn[0]
            for row, turn in zip(coefficients, turns, strict=True)
        ]
    )
    actions = rng.standard_normal((3, 90, 3)) * 2
    for name, points in {
        **{f"scans/person{number}": points for number, points in enumerate(scans)},
        **{
            f"blendshapes/{person}/{name}": base if row is None else base + actions[row] @ turn.T
            for person, base, turn in (("a", scans[0], turns[0]), ("b", scans[2], turns[2]))
            for name, row in (("neutral", None), ("jawOpen", 0), ("smile", 1), ("pucker", 2))
        },
    }.items():
        path = folder / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        trimesh.Trimesh(points, faces, process=False).export(path)
    return mean, identity, actions


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_faces_are_built_from_scans_and_blendshapes(tmp_path, suffix):
    mean, identity, actions = write_heads(tmp_path / "heads", suffix)
    imported = import_face(tmp_path / "heads", write_landmarks(tmp_path))
    face = imported.face
    assert (imported.source, imported.expression.given) == ("5 scans and 6 blendshapes", 6)
    assert imported.expression.variance_kept == pytest.approx(1, abs=1e-6)
    own = (face.expression_std[:3].square().sum() / face.expression_std.square().sum()).item()
    assert own > 0.99  # the three actions, whoever makes them and wherever they look
    # the least squares pose of a changed head differs a little from its true one
    torch.testing.assert_close(face.mean, torch.from_numpy(to_frame(mean, mean)).float(), atol=0.03, rtol=0)
    scale = 1 / np.linalg.norm(mean[36] - mean[45])
    flip = np.array([1, -1, -1])
    for basis, fields in ((face.shape_basis[..., :4], identity), (face.expression_basis[..., :3], actions)):
        span = basis.flatten(0, 1).double()
        wanted = torch.from_numpy((fields * flip * scale).reshape(len(fields), -1).T.copy())
        left = wanted - span @ torch.linalg.lstsq(span, wanted).solution
        assert left.norm() / wanted.norm() < 0.15
    assert face.triangles.tolist() == triangles(90).tolist()


def test_obj_vertices_keep_their_numbers(tmp_path):
    """trimesh would leave out vertex 0, which no triangle uses, and renumber the landmarks."""
    write_heads(tmp_path / "heads", "obj")
    for path in (tmp_path / "heads").rglob("*.obj"):
        lines = [line for line in path.read_text().splitlines() if line.startswith("v ")]
        path.write_text("\n".join(["v 9 9 9", *lines[1:], "f 2 3 4"]))
    face = import_face(tmp_path / "heads", write_landmarks(tmp_path)).face
    assert face.num_vertices == 90
    assert face.triangles.tolist() == [[1, 2, 3]]


def test_bad_meshes_are_one_line(tmp_path):
    heads, landmarks = tmp_path / "heads", write_landmarks(tmp_path)
    write_heads(heads)
    whole = (heads / "scans/person1.ply").read_bytes()
    trimesh.Trimesh(source_mean(80), triangles(80), process=False).export(heads / "scans/person1.ply")
    with pytest.raises(ValueError, match=r"person1\.ply: 80 vertices where the first scan has 90; register"):
        import_face(heads, landmarks)
    (heads / "scans/person1.ply").write_bytes(whole[:150])
    with pytest.raises(ValueError, match=r"person1\.ply: (can't be read as a mesh|.*vertices)") as caught:
        import_face(heads, landmarks)
    assert "\n" not in str(caught.value)
    broken = source_mean(90)
    broken[3, 1] = np.nan
    trimesh.Trimesh(broken, triangles(90), process=False).export(heads / "scans/person1.ply")
    with pytest.raises(ValueError, match="not finite"):
        import_face(heads, landmarks)
    (heads / "scans/person1.ply").write_bytes(whole)
    (heads / "blendshapes/a/neutral.ply").unlink()
    with pytest.raises(ValueError, match="wants one mesh named neutral"):
        import_face(heads, landmarks)
    for path in (heads / "blendshapes").rglob("*.ply"):
        path.unlink()
    with pytest.raises(ValueError, match=r"5 meshes in scans/ and 0 sets in blendshapes/; give at least two"):
        import_face(heads, landmarks)
