"""A clip of a synthetic person, raw and prepared, seen through `experiments.view`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import trimesh

from datamodules.clip_store import Clip, clip_path
from datamodules.prepare.clip import prepare_clip
from datamodules.prepare.decode import fit_length, read_audio, read_frames, video_start
from datamodules.prepare.sound import to_float
from datamodules.prepare.sources import SourceClip
from datamodules.synthetic.corpus import generate_grid_corpus
from datamodules.video_file import write_video
from experiments import view as command
from experiments.command_line import UserError
from experiments.curves import HEIGHT, CurveStrip
from experiments.fitted_clip import FittedClip, fit_video, read_prepared
from experiments.overlay import MeshPainter, View, describe_pose, letter
from model_zoo.face.detector import DlibDetector
from model_zoo.face.morphable import MorphableFace
from model_zoo.face.procedural import procedural_face
from model_zoo.functional.camera import apply_similarity, project

NUM_FRAMES = 12
FIRST = 20  # where the sentence has begun
OUTER_EYES, NOSE_TIP, CHIN = (36, 45), 30, 8


@pytest.fixture(scope="module")
def face() -> MorphableFace:
    return procedural_face()


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A dozen frames with sound."""
    root = generate_grid_corpus(tmp_path_factory.mktemp("grid"), 1, 1, seed=5, workers=0)
    source = next(root.rglob("*.mpg"))
    frames = np.stack([*read_frames(source)])[FIRST : FIRST + NUM_FRAMES]
    sound = to_float(fit_length(read_audio(source, video_start(source)), 75))[FIRST * 640 :][: NUM_FRAMES * 640]
    path = root / "take.mp4"
    write_video(path, frames, sound, quality=10)
    return path


@pytest.fixture(scope="module")
def prepared(video, face, tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("store")
    result = prepare_clip(SourceClip("s1/take", "s1", "front", video), store, face, DlibDetector())
    assert [row.frames for row in result.rows] == [NUM_FRAMES]
    return clip_path(store, "s1/take")


@pytest.fixture(scope="module")
def raw_clip(video, face) -> FittedClip:
    return fit_video(video, face, DlibDetector(), [], lambda items, *_: items)


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "deep" / "take"
    assert command.view(command.ViewOptions(prepared, [0, 7], out=out)) == out
    return out


def test_the_folder_holds_what_was_asked_for_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "contact_sheet.png",
        "frame_0000.glb",
        "frame_0007.glb",
        "overlay.mp4",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["take"]


def test_the_overlay_has_every_frame_and_the_sound(folder, video):
    with av.open(str(folder / "overlay.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(frames) == NUM_FRAMES
    assert frames[0].shape == (512 + HEIGHT, 1024, 3)
    heard, given = (read_audio(path, 0.0)[: NUM_FRAMES * 640] for path in (folder / "overlay.mp4", video))
    assert np.corrcoef(heard, given)[0, 1] > 0.9


def test_the_overlay_shows_the_frames_beside_the_fit(folder, prepared):
    with av.open(str(folder / "overlay.mp4")) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    crop = cv2.resize(Clip(prepared).crop(0), (512, 512), interpolation=cv2.INTER_CUBIC)
    difference = np.abs(shown[:512, :512].astype(int) - crop).max(axis=2)
    assert np.median(difference) < 8  # dots, lines and letters cover little
    mesh = np.abs(shown[:512, 512:].astype(int) - crop).max(axis=2)
    assert np.median(mesh[200:350, 150:350]) > 15  # clay lies over the face
    assert np.median(mesh[60:, :20]) < 8


def test_the_contact_sheet_shows_eight_frames(folder):
    sheet = cv2.imread(str(folder / "contact_sheet.png"))
    assert sheet.shape == (512, 8 * 256, 3)


def test_the_glb_projects_to_the_landmarks(folder, prepared, face):
    clip = Clip(prepared)
    scene = trimesh.load(folder / "frame_0007.glb")
    (name,) = scene.graph.nodes_geometry
    turn, geometry = scene.graph[name]
    mesh = scene.geometry[geometry]
    assert mesh.vertices.shape == (face.num_vertices, 3)
    assert len(mesh.faces) == len(face.triangles)
    world = trimesh.transform_points(mesh.vertices, turn) / command.METRES
    scale, shift = float(clip.pose[7, 5].exp()), clip.pose[7, 3:5].numpy()
    seen = world[face.landmark_index.numpy(), :2] * (scale, -scale) + shift
    np.testing.assert_allclose(seen, clip.landmarks[7].numpy(), atol=0.01)


def test_the_glb_stands_upright_and_looks_at_the_viewer(folder, face):
    scene = trimesh.load(folder / "frame_0000.glb")
    (mesh,) = scene.geometry.values()
    marks = mesh.vertices[face.landmark_index.numpy()]
    eyes = marks[list(OUTER_EYES)]
    assert eyes[:, 1].min() > marks[NOSE_TIP, 1] > marks[CHIN, 1]
    assert marks[NOSE_TIP, 2] > eyes[:, 2].max()
    assert 0.07 < np.linalg.norm(eyes[1] - eyes[0]) < 0.11  # metres
    normals = mesh.vertex_normals
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-3)
    assert normals[face.landmark_index[NOSE_TIP], 2] > 0.5
    corners = mesh.vertices[mesh.faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    agrees = (flat * normals[mesh.faces].mean(axis=1)).sum(axis=1) > 0
    area = np.linalg.norm(flat, axis=1)
    assert area[agrees].sum() > 0.99 * area.sum()  # normals and winding; thin folds of the lips may differ


def test_raw_and_prepared_are_the_same_fit(raw_clip, prepared, face):
    clip, stored = Clip(prepared), read_prepared(prepared, face)
    assert raw_clip.num_frames == stored.num_frames == NUM_FRAMES
    assert bool(raw_clip.valid.all())
    torch.testing.assert_close(raw_clip.expression, stored.expression, atol=1e-3, rtol=0)
    moved = apply_similarity(clip.crop_transform, raw_clip.landmarks)
    torch.testing.assert_close(moved, stored.landmarks, atol=0.05, rtol=0)


def test_the_mesh_covers_what_the_camera_sees(raw_clip, face):
    look = View.within((360, 288), (640, 512))
    panel = np.zeros((look.size[1], look.size[0], 3), np.uint8)
    painter = MeshPainter(face, raw_clip.shape, look)
    painter.paint(panel, raw_clip.expression[3], raw_clip.pose[3])
    rows, columns = np.nonzero(panel.max(axis=2))
    vertices = torch.from_numpy(painter.vertices(raw_clip.expression[3]))
    points = look.place(project(vertices, raw_clip.pose[3]))
    assert abs(columns.min() - points[:, 0].min()) < 1.5
    assert abs(columns.max() - points[:, 0].max()) < 1.5
    assert abs(rows.min() - points[:, 1].min()) < 1.5


@pytest.mark.parametrize("landmarks", [None, torch.tensor([[60.0, 70.0], [90.0, 100.0]]).expand(3, 2, 2)])
def test_places_follow_the_pixels(landmarks):
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[80, 71] = 255
    look = View.within((300, 200), (640, 512), landmarks)
    panel = look.enlarge(frame)[..., 0].astype(float)
    assert panel.shape[::-1] == look.size
    assert look.size[0] % 2 == look.size[1] % 2 == 0
    y, x = np.mgrid[: panel.shape[0], : panel.shape[1]]
    centre = np.array([(panel * x).sum(), (panel * y).sum()]) / panel.sum()
    np.testing.assert_allclose(look.place(torch.tensor([71.0, 80.0])), centre, atol=0.6)
    assert (look.window == (0, 0, 300, 200)) == (landmarks is None)


@pytest.mark.parametrize(
    ("rotation", "word"),
    [
        ((0, -0.35, 0), "20° right"),
        ((0, 0.35, 0), "20° left"),
        ((0.35, 0, 0), "20° down"),
        ((0, 0, 0.35), "20° clockwise"),
    ],
)
def test_pose_in_words(rotation, word, face):
    pose = torch.tensor([*rotation, 0.0, 0.0, 0.0])
    assert word in describe_pose(pose)
    marks = face.project_landmarks(torch.zeros(199), torch.zeros(29), pose)
    nose, (left, right) = marks[NOSE_TIP], marks[list(OUTER_EYES)]
    middle = (left + right) / 2
    if "right" in word or "left" in word:
        assert (nose[0] > middle[0]) == ("right" in word)
    if "down" in word:
        level = face.landmarks(torch.zeros(199), torch.zeros(29))[NOSE_TIP, 1]
        assert nose[1] > level * np.cos(0.35)
    if "clockwise" in word:
        assert right[1] > left[1]


def test_the_curves_scroll(raw_clip, face):
    strip = CurveStrip(raw_clip, face, 960)
    now, later = strip.draw(3), strip.draw(4)
    gutter, cursor = 190, 190 + 385
    left, right = np.s_[80:150, gutter : cursor - 15], np.s_[80:150, gutter + 10 : cursor - 5]
    np.testing.assert_array_equal(later[left], now[right])
    lips = face.landmarks(raw_clip.shape, raw_clip.expression)[:, [62, 66]]
    np.testing.assert_allclose(strip.lip_opening, (lips[:, 0] - lips[:, 1]).norm(dim=-1), rtol=1e-5)


def test_letters_are_cut_off_at_the_edge():
    canvas = np.zeros((20, 30, 3), np.uint8)
    for at in ((-500, 5), (15, 500)):
        letter(canvas, "Größe 12°", at, 14, halo=True)
    assert canvas.max() == 0
    letter(canvas, "Größe 12°", (-5, 14), 14, halo=True)
    assert canvas.max() > 200


def test_a_silent_video_is_shown_without_sound(video, face, tmp_path):
    write_video(tmp_path / "silent.mp4", [*read_frames(video)][:3])
    out = command.view(command.ViewOptions(tmp_path / "silent.mp4", out=tmp_path / "out"))
    with av.open(str(out / "overlay.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert sum(1 for _ in container.decode(video=0)) == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{tmp}/none.mp4"], "does not exist: give a video file"),
        (["{tmp}"], "is a folder: give a video file"),
        (["{tmp}/text.mp4"], "not readable as video"),
        (["{tmp}/text.safetensors"], "not a whole prepared clip"),
        (["{tmp}/tone.wav"], "no video stream"),
        (["{tmp}/wall.mp4"], "no face found in 4 frames"),
        (["{tmp}/wall.mp4", "frames=4"], "frames=4: the clip has frames 0 to 3"),
        (["{prepared}", "frames=-1"], "frames=-1: the clip has frames 0 to 11"),
        (["{prepared}", "frames=first"], "separated by commas, such as frames=0,30"),
        (["{prepared}", "frame=1"], "did you mean frames=?"),
        (["{prepared}", "out="], "out= is empty"),
        (["{prepared}", "out={tmp}/tone.wav"], "is a file: give a folder"),
        (["{prepared}", "face={tmp}/none"], "does not exist"),
        (["{prepared}", "{prepared}"], "give one video or prepared clip, not 2"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, expected, prepared, tmp_path, monkeypatch, capsys):
    (tmp_path / "text.mp4").write_text("not a video\n")
    (tmp_path / "text.safetensors").write_text("not a clip\n")
    write_video(tmp_path / "wall.mp4", np.full((4, 96, 96, 3), 90, np.uint8))
    with av.open(str(tmp_path / "tone.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    given = [argument.format(tmp=tmp_path, prepared=prepared) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["view", *given])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_failure_while_drawing_leaves_nothing(prepared, tmp_path, monkeypatch):
    def broken(*_) -> bytes:
        raise OSError("disk full")

    monkeypatch.setattr(command, "export_glb", broken)
    with pytest.raises(OSError, match="disk full"):
        command.view(command.ViewOptions(prepared, [0], out=tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_another_face_is_refused(prepared, face):
    other = MorphableFace(
        face.mean * torch.tensor([1.0, 1.1, 1.0]),
        face.shape_basis,
        face.shape_std,
        face.expression_basis,
        face.expression_std,
        face.triangles,
        face.landmark_index,
    )
    with pytest.raises(UserError, match="another face model"):
        read_prepared(prepared, other)


def test_frames_without_a_face_are_not_exported(raw_clip, face):
    valid = torch.ones(NUM_FRAMES, dtype=torch.bool)
    valid[:3] = False
    clip = replace(raw_clip, valid=valid)
    assert min(command.chosen_frames(clip, face, [])) == 3
    with pytest.raises(UserError, match="nearest frame with one is 3"):
        command.chosen_frames(clip, face, [1])
