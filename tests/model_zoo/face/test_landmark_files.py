"""Landmarks from files: both formats give the same, and what does not fit is told in one line."""

import csv

import numpy as np
import pytest

from model_zoo.face.landmark_files import LandmarkFiles

LANDMARKS = np.random.default_rng(0).uniform(0, 300, (9, 68, 2)).astype(np.float32)


def write_csv(path, landmarks) -> None:
    """As OpenFace does, blanks after commas and columns of its own included."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        names = [f"x_{i}" for i in range(68)] + [f"y_{i}" for i in range(68)]
        writer.writerow(["frame", " confidence", *(f" {name}" for name in names)])
        for number, points in enumerate(landmarks):
            values = ["" if np.isnan(value) else repr(float(value)) for value in points.T.ravel()]
            writer.writerow([number, 0.9, *values])


def test_beside_the_video_and_below_a_folder(tmp_path):
    np.save(tmp_path / "take.one.npy", LANDMARKS.astype(np.float64))
    np.testing.assert_array_equal(LandmarkFiles().of(tmp_path / "take.one.mp4", "ann/x", 9), LANDMARKS)
    (tmp_path / "found/ann").mkdir(parents=True)
    np.save(tmp_path / "found/ann/x.npy", LANDMARKS)
    np.testing.assert_array_equal(LandmarkFiles(tmp_path / "found").of(tmp_path / "b.mp4", "ann/x", 9), LANDMARKS)


def test_both_formats_give_the_same_and_mark_missing_faces(tmp_path):
    landmarks = LANDMARKS.copy()
    landmarks[4, 30] = np.nan
    np.save(tmp_path / "a.npy", landmarks)
    write_csv(tmp_path / "b.csv", landmarks)
    first, second = (LandmarkFiles().of(tmp_path / name, "", 9) for name in ("a.mp4", "b.mp4"))
    np.testing.assert_array_equal(first, second)
    assert np.isnan(first[4]).all()  # part of a face is no face
    assert np.isfinite(np.delete(first, 4, 0)).all()


def test_landmarks_of_larger_frames_are_scaled_by_the_edges_of_the_pixels(tmp_path):
    corners = np.resize(np.float32([[-0.5, -0.5], [3839.5, 2159.5], [1919.5, 1079.5]]), (9, 68, 2))
    np.save(tmp_path / "a.npy", corners)
    found = LandmarkFiles().of(tmp_path / "a.mp4", "", 9, scale=(0.5, 0.25))
    expected = np.resize(np.float32([[-0.5, -0.5], [1919.5, 539.5], [959.5, 269.5]]), (9, 68, 2))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_does_not_fit_is_one_clear_line(tmp_path):
    video = tmp_path / "a.mp4"
    with pytest.raises(ValueError, match=r"expected .*a\.npy or a\.csv"):
        LandmarkFiles().of(video, "", 9)
    np.save(tmp_path / "a.npy", LANDMARKS)
    with pytest.raises(ValueError, match="holds 9 x 68 x 2 numbers, the video needs 10 x 68 x 2"):
        LandmarkFiles().of(video, "", 10)
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"a\.npy is no array"):
        LandmarkFiles().of(video, "", 9)
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy is no array"):
        LandmarkFiles().of(video, "", 9)
    (tmp_path / "c.csv").write_text("x_0,y_0\n1,2\n")
    with pytest.raises(ValueError, match="lacks the columns"):
        LandmarkFiles().of(tmp_path / "c.mp4", "", 1)
    write_csv(tmp_path / "d.csv", LANDMARKS)
    (tmp_path / "d.csv").write_text((tmp_path / "d.csv").read_text().replace("0.9", "0.9,x", 1))
    with pytest.raises(ValueError, match=r"d\.csv, line 2: expected numbers"):
        LandmarkFiles().of(tmp_path / "d.mp4", "", 9)
