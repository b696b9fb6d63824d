"""`python -m experiments.prepare face=…`: imported once, used by every run; mistakes are one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from experiments.build_data import build_face
from experiments.command_line import UserError, check_overrides
from experiments.face_models import imported_path
from experiments.prepare import main, names_a_face_file, prepare_face
from experiments.schema import register
from model_zoo.face import importers
from model_zoo.face.importers import load_face
from tests.model_zoo.face.model_files import (
    basel_2017,
    flame,
    write_basel_2009,
    write_basel_2017,
    write_flame,
    write_landmarks,
)

register()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TALKIN_CACHE", str(tmp_path / "cache"))


def face_config(**keys: Path):
    return check_overrides(["+exp=grid_joint", *(f"face.{key}={value}" for key, value in keys.items())])


def test_a_face_is_imported_into_one_file_that_runs_use(tmp_path, capsys):
    path, expressions = write_basel_2009(tmp_path)
    landmarks, out = write_landmarks(tmp_path), tmp_path / "deep" / "face.safetensors"
    prepare_face([f"face={path}", f"landmarks={landmarks}", f"expressions={expressions}", f"out={out}"])
    said = capsys.readouterr().out
    assert "199 active modes from 199 given, 100.00% of the variance kept" in said
    assert "29 active modes from 29 given" in said
    assert f"face.model={out}" in said
    face = build_face(face_config(model=out))
    assert (face.num_active_shape, face.num_active_expression) == (199, 29)


def test_without_out_it_lies_where_runs_look(tmp_path, capsys, monkeypatch):
    path, landmarks = write_flame(tmp_path, flame()), write_landmarks(tmp_path)
    target = prepare_face([f"face={path}", f"landmarks={landmarks}"])
    assert target.is_relative_to(tmp_path / "cache" / "faces")
    assert "29 active modes from 606 given" in capsys.readouterr().out
    monkeypatch.setattr("experiments.face_models.import_face", None)  # a second import would fail
    face = build_face(face_config(model=path, landmarks=landmarks))
    for name, value in load_face(target).state_dict().items():
        assert torch.equal(face.state_dict()[name], value), name


def test_runs_import_what_nobody_prepared_and_follow_its_content(tmp_path):
    path, landmarks = write_basel_2017(tmp_path, basel_2017()), write_landmarks(tmp_path)
    first = build_face(face_config(model=path, landmarks=landmarks))
    before = imported_path(path, landmarks, None)
    assert before.exists()
    write_basel_2017(tmp_path, basel_2017(num_expressions=7))
    second = build_face(face_config(model=path, landmarks=landmarks))
    assert imported_path(path, landmarks, None) != before
    assert (first.num_active_expression, second.num_active_expression) == (29, 7)
    landmarks.write_text(landmarks.read_text() + " ")
    assert imported_path(path, landmarks, None) not in (tmp_path / "cache" / "faces").iterdir()


@pytest.mark.parametrize(
    ("arguments", "is_file"),
    [
        (["face=procedural"], False),
        (["data=grid", "data.root=/data/grid"], False),
        (["face.model=/data/face.safetensors"], False),
        (["face=model.h5"], True),
        (["face=/models/ict"], True),
        (["face=unheard"], False),
    ],
)
def test_paths_are_told_from_choices(arguments, is_file):
    assert names_a_face_file(arguments) is is_file


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data=grid"], r"data: a face model is imported with face=, landmarks=, expressions=, out= alone"),
        (["out=face.pt"], r"out=face\.pt: give a file name that ends in \.safetensors"),
    ],
)
def test_arguments_that_do_not_belong_are_named(tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        prepare_face([f"face={write_flame(tmp_path, flame())}", *more])


def test_a_face_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"does not exist: use `procedural`"):
        build_face(face_config(model=tmp_path / "nowhere.h5"))


def test_the_command_fails_in_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(b"\x80\x04N.")
    monkeypatch.setattr(sys, "argv", ["prepare", f"face={path}"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {path}: a pickle runs code when read")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_half_an_import_leaves_no_file(tmp_path, monkeypatch):
    path, landmarks = write_flame(tmp_path, flame()), write_landmarks(tmp_path)
    monkeypatch.setattr(importers.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        prepare_face([f"face={path}", f"landmarks={landmarks}"])
    assert list((tmp_path / "cache" / "faces").iterdir()) == []
