"""Face files: what is written is read back, what is no face is refused, and ICT-FaceKit arrives in the model frame."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model_zoo.face.importers import import_face, import_ict, load_face, save_face
from model_zoo.face.model_frame import read_landmarks
from model_zoo.face.morphable import MorphableFace
from tests.model_zoo.face.model_files import (
    basel_2017,
    flame,
    write_basel_2009,
    write_basel_2017,
    write_flame,
    write_landmarks,
)
from tests.model_zoo.face.small_face import small_face, template

EXPRESSIONS = ["jawOpen", "mouthSmile_L", "mouthSmile_R"]


def test_saved_face_is_read_back_bit_for_bit(tmp_path):
    face = small_face(5, 3)
    save_face(face, tmp_path / "folder" / "face.safetensors")
    read = load_face(tmp_path / "folder" / "face.safetensors")
    for name, value in face.state_dict().items():
        assert torch.equal(read.state_dict()[name], value), name
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["face.safetensors"]


def test_inactive_modes_take_no_room(tmp_path):
    save_face(small_face(5, 3), tmp_path / "face.safetensors")
    assert load_file(tmp_path / "face.safetensors")["shape_basis"].shape == (108, 3, 5)


def change(path: Path, **tensors: torch.Tensor | None) -> None:
    content = load_file(path) | tensors
    save_file({name: value for name, value in content.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"mean": None, "triangles": None}, "lacks mean, triangles; write it with save_face"),
        ({"mean": torch.zeros(3)}, "mean must be"),
        ({"mean": torch.zeros(7, 3)}, r"shape_basis must be \(7, 3, 5\), got \(108, 3, 5\)"),
        ({"mean": torch.full((108, 3), float("nan"))}, "mean has values that are not finite"),
        ({"expression_std": torch.zeros(2)}, "expression_basis must be"),
        ({"landmark_index": torch.zeros(68)}, "landmark_index must hold integers"),
        ({"triangles": torch.zeros((), dtype=torch.long)}, "triangles must be"),
        ({"triangles": torch.full((1, 3), 108)}, "triangles points outside"),
    ],
)
def test_files_that_hold_no_face_are_refused(tmp_path, tensors, message):
    path = tmp_path / "face.safetensors"
    save_face(small_face(5, 3), path)
    change(path, **tensors)
    with pytest.raises(ValueError, match=message) as error:
        load_face(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


class _Trap:
    def __reduce__(self):
        return os.abort, ()


def test_pickles_are_refused_and_not_run(tmp_path):
    path = tmp_path / "face.safetensors"
    path.write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(ValueError, match=r"not a \.safetensors face model"):
        load_face(path)


def test_cut_file_is_refused(tmp_path):
    path = tmp_path / "face.safetensors"
    save_face(small_face(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"not a \.safetensors face model"):
        load_face(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such face model file"):
        load_face(tmp_path / "face.safetensors")


def fake_ict(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A face as ICT-FaceKit writes it (OBJ, y up, z towards the camera, cm): neutral, identities, expressions."""
    rng = np.random.default_rng(0)
    neutral = template().numpy().astype(np.float64) * (9, -9, -9) + (0, 2, 5)
    identities = neutral + 0.1 * rng.standard_normal((4, 68, 3))
    expressions = neutral + 0.1 * rng.standard_normal((len(EXPRESSIONS), 68, 3))
    folder.mkdir()
    names = ["generic_neutral_mesh", *(f"identity{i:03}" for i in range(4)), *EXPRESSIONS]
    for name, vertices in zip(names, (neutral, *identities, *expressions), strict=True):
        lines = ["# mesh", *("v " + " ".join(map(repr, map(float, row))) for row in vertices)]
        lines += ["vt 0 0", "vn 0 0 1", "f 1/1 2/1 3/1 4/1", "f 5/1 6/1 7/1"]
        (folder / f"{name}.obj").write_text("\n".join(lines) + "\n")
    index = {"expressions": EXPRESSIONS, "idx_to_landmark_verts": list(range(68))}
    (folder / "vertex_indices.json").write_text(json.dumps(index))
    return neutral, identities, expressions


def to_frame(vertices: np.ndarray, neutral: np.ndarray) -> torch.Tensor:
    """Model frame by hand: half a turn about x, eye midpoint to 0, outer-eye distance to 1."""
    middle, size = (neutral[36] + neutral[45]) / 2, np.linalg.norm(neutral[36] - neutral[45])
    return torch.from_numpy((vertices - middle) / size * (1, -1, -1)).float()


def test_ict_arrives_in_the_model_frame(tmp_path):
    neutral, identities, expressions = fake_ict(tmp_path / "FaceXModel")
    face = import_ict(tmp_path)
    assert (face.num_active_shape, face.num_active_expression) == (4, 3)
    zero = torch.zeros(29)
    torch.testing.assert_close(face.mean, to_frame(neutral, neutral))
    for number, identity in enumerate(identities):
        torch.testing.assert_close(face.vertices(torch.eye(199)[number], zero), to_frame(identity, neutral))
    torch.testing.assert_close(face.shape_basis[..., :4].flatten(0, 1).norm(dim=0), torch.ones(4))
    # with as many modes as expressions, every expression can be had
    span = (face.expression_basis * face.expression_std)[..., :3].flatten(0, 1)
    wanted = torch.stack([(to_frame(e, neutral) - face.mean).flatten() for e in expressions], 1)
    torch.testing.assert_close(span @ torch.linalg.lstsq(span, wanted).solution, wanted)
    torch.testing.assert_close((span.T @ span) * 3, torch.diag(torch.linalg.svdvals(wanted) ** 2))
    assert face.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6]]


def test_ict_archive_equals_its_folder(tmp_path):
    fake_ict(tmp_path / "FaceXModel")
    with tarfile.open(tmp_path / "ict.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "FaceXModel", "deep/FaceXModel")
    folder, packed = import_ict(tmp_path / "FaceXModel"), import_ict(tmp_path / "ict.tar.xz")
    for name, value in folder.state_dict().items():
        assert torch.equal(packed.state_dict()[name], value), name


def test_incomplete_ict_is_refused(tmp_path):
    folder = tmp_path / "FaceXModel"
    fake_ict(folder)
    (folder / "jawOpen.obj").rename(tmp_path / "jawOpen.obj")
    with pytest.raises(ValueError, match="lacks the expressions jawOpen"):
        import_ict(folder)
    (folder / "jawOpen.obj").write_text("v 0 0 0\n")
    with pytest.raises(ValueError, match="jawOpen has 1 vertices, the neutral mesh 68"):
        import_ict(folder)
    (folder / "jawOpen.obj").write_text("v 0 0\n")
    with pytest.raises(ValueError, match="not three numbers a line"):
        import_ict(folder)
    (folder / "jawOpen.obj").unlink()
    (folder / "vertex_indices.json").write_text("{}")
    with pytest.raises(ValueError, match="wants expressions and idx_to_landmark_verts"):
        import_ict(folder)
    (folder / "vertex_indices.json").unlink()
    with pytest.raises(ValueError, match="not ICT-FaceKit"):
        import_ict(folder)


def test_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "ict.tar.xz").write_bytes(io.BytesIO(b"no archive" * 100).getvalue())
    with pytest.raises(ValueError, match="neither a folder nor a readable tar archive"):
        import_ict(tmp_path / "ict.tar.xz")
    with pytest.raises(ValueError, match="neither a folder nor a readable tar archive"):
        import_ict(tmp_path / "nothing")


@pytest.fixture(scope="module")
def ict() -> MorphableFace:
    if "TALKIN_ICT_FACEKIT" not in os.environ:
        pytest.skip("TALKIN_ICT_FACEKIT does not name the ICT-FaceKit archive")
    return import_ict(os.environ["TALKIN_ICT_FACEKIT"])


@pytest.mark.slow
def test_real_ict_stands_as_the_model_frame_says(ict):
    assert (ict.num_vertices, ict.num_active_shape, ict.num_active_expression) == (24_591, 100, 29)
    points = ict.landmark_mean
    assert points[45, 0] - points[36, 0] == pytest.approx(1, abs=1e-3)  # x right
    assert points[8, 1] > points[57, 1] > points[33, 1] > points[27, 1] > points[19, 1]  # y down: chin to brow
    assert points[30, 2] < points[36, 2] < points[0, 2]  # z away: nose, eyes, ears
    assert (points[66] - points[62]).norm() < 0.02  # the neutral mouth is closed


def test_formats_are_told_apart_by_content(tmp_path):
    landmarks = write_landmarks(tmp_path)
    write_flame(tmp_path, flame()).rename(tmp_path / "head.bin")
    assert import_face(tmp_path / "head.bin", landmarks).source == "FLAME"
    write_basel_2017(tmp_path, basel_2017()).rename(tmp_path / "basel.bin")
    assert import_face(tmp_path / "basel.bin", landmarks).source == "Basel 2017/2019"
    fake_ict(tmp_path / "FaceXModel")
    assert import_face(tmp_path / "FaceXModel").source == "ICT-FaceKit"


def test_inputs_that_would_be_ignored_are_refused(tmp_path):
    landmarks, (basel, expressions) = write_landmarks(tmp_path), write_basel_2009(tmp_path)
    fake_ict(tmp_path / "FaceXModel")
    with pytest.raises(ValueError, match="ICT-FaceKit carries its own landmarks; leave landmarks= out"):
        import_face(tmp_path / "FaceXModel", landmarks)
    with pytest.raises(ValueError, match="only Basel 2009 takes expressions"):
        import_face(write_flame(tmp_path, flame()), landmarks, expressions)
    save_face(import_face(basel, landmarks, expressions).face, tmp_path / "face.safetensors")
    with pytest.raises(ValueError, match=r"imported already; use it as face\.model="):
        import_face(tmp_path / "face.safetensors")


@pytest.mark.parametrize("name", ["face.xyz", "folder", "nothing"])
def test_unknown_models_are_one_line_that_lists_the_formats(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "face.xyz").write_text("no face")
    with pytest.raises(ValueError, match="Basel 2009") as caught:
        import_face(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["json", "txt", "npy"])
def test_landmark_files(tmp_path, suffix):
    path, index = tmp_path / f"landmarks.{suffix}", np.arange(100, 168)
    if suffix == "npy":
        np.save(path, index[:, None])
    else:
        path.write_text(json.dumps(index.tolist()) if suffix == "json" else "\n".join(map(str, index)))
    assert (read_landmarks(path, 168, "a face") == index).all()
    with pytest.raises(ValueError, match=r"must be whole numbers 0\.\.166, got 100\.\.167; give the vertices"):
        read_landmarks(path, 167, "a face")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", json.dumps(list(range(51))), "wants 68 landmark vertices, got 51"),
        ("a.json", '{"chin": 3}', "wants 68 landmark vertices, got 0"),
        ("a.json", "[1, 2", "can't be read"),
        ("a.json", "[[1], [2, 3]]", "can't be read"),
        ("a.txt", "one two", "can't be read"),
        ("a.txt", " ".join(["0.5"] * 68), "must be whole numbers"),
        ("a.txt", " ".join(["nan"] * 68), "must be whole numbers"),
        ("a.txt", " ".join(["-1"] * 68), r"got -1\.\.-1"),
        ("a.npy", "no array", "can't be read"),
    ],
)
def test_bad_landmark_files_are_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_landmarks(tmp_path / name, 1000, "a face")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="can't be read"):
        read_landmarks(tmp_path / "nothing.json", 1000, "a face")


@pytest.mark.parametrize(
    ("swapped", "message"),
    [((36, 45), "outer eye corners"), ((8, 27), "chin"), ((30, 0), "nose tip")],
)
def test_landmarks_in_another_order_are_noticed(tmp_path, swapped, message):
    index = list(range(68))
    index[swapped[0]], index[swapped[1]] = swapped[1], swapped[0]
    (tmp_path / "landmarks.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        import_face(write_flame(tmp_path, flame()), tmp_path / "landmarks.json")
