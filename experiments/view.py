"""Look at the fit of a clip: `python -m experiments.view <video or prepared clip> [frames=0,30] [face=...] [out=...]`.

Leaves `overlay.mp4` (landmarks, mesh, pose and coefficients over time, with sound), `contact_sheet.png`, and a GLB of
the fitted face for every chosen frame.
"""

from __future__ import annotations

import difflib
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import cv2
import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import Progress

from datamodules.synthetic.rasteriser import vertex_normals
from datamodules.video_file import FRAME_RATE, write_video
from experiments.command_line import UserError, guarded
from experiments.curves import CurveStrip
from experiments.fitted_clip import FittedClip, Item, check_frames, fit_video, read_prepared
from experiments.overlay import (
    DETECTED,
    FITTED,
    Canvas,
    MeshPainter,
    View,
    describe_pose,
    draw_axes,
    draw_landmarks,
    letter,
)
from model_zoo.face.detector import DlibDetector
from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.camera import rotation_matrix

USAGE = """usage: python -m experiments.view <clip> [frames=0,30] [face=procedural] [out=<folder>]

  <clip>   a video file, or a prepared clip <store>/<speaker>/<clip>.safetensors
  frames   frames, at 25 a second, whose fitted mesh is written as GLB; default: the first, and that of the widest mouth
  face     as face.model of an experiment: `procedural`, or the path of another face model;
           for a prepared clip, the model that it was prepared with
  out      default: outputs/view/<name of the clip>"""

PANEL_BOX = (640, 512)  # px, width and height at most of one of the two panels
MIN_WIDTH = 960  # px of the video
SHEET_FRAMES, SHEET_PANEL = 8, (320, 256)
METRES = 0.09  # between the outer eye corners of an adult; glTF counts in metres
_GROUND = (24, 26, 30)
_NOSE = 30  # iBUG

console = Console(stderr=True)


@dataclass(frozen=True)
class ViewOptions:
    """What the command line says.

    Attributes:
        clip: a video or a prepared clip.
        frames: whose mesh is written; none: the first and the one with the widest mouth.
        face: `procedural` or a path, as `face.model` of an experiment.
        out: folder; none: outputs/view/<name>.
    """

    clip: Path
    frames: list[int] = field(default_factory=list)
    face: str = "procedural"
    out: Path | None = None


def parse(arguments: list[str]) -> ViewOptions:
    """Options of a command line.

    Raises:
        UserError: something is missing, unknown or not a number.
    """
    known = [option.name for option in fields(ViewOptions) if option.name != "clip"]
    given: dict[str, str] = {}
    clips = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key in known and equals:
            given[key] = value
        elif equals and not Path(argument).exists() and "/" not in key and "." not in key:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}=?" if near else f"there are {', '.join(f'{name}=' for name in known)}"
            raise UserError(f"unknown option {argument!r}: {hint}")
        else:
            clips.append(argument)
    if len(clips) != 1:
        raise UserError(f"give one video or prepared clip, not {len(clips)} (python -m experiments.view --help)")
    if empty := [key for key, value in given.items() if not value.strip()]:
        raise UserError(f"{empty[0]}= is empty: leave it out, or see python -m experiments.view --help")
    try:
        frames = sorted({int(number) for number in given["frames"].split(",")}) if "frames" in given else []
    except ValueError:
        raise UserError(
            f"frames={given['frames']}: give frame numbers separated by commas, such as frames=0,30"
        ) from None
    out = Path(given["out"]).expanduser() if "out" in given else None
    return ViewOptions(Path(clips[0]).expanduser(), frames, given.get("face", "procedural"), out)


def view(options: ViewOptions) -> Path:
    """Fit (or read) a clip and write everything there is to look at, whole or not at all.

    Returns:
        The output folder.

    Raises:
        UserError: the clip, the frames, the face or the folder are not usable.
    """
    if not options.clip.is_file():
        what = "is a folder" if options.clip.is_dir() else "does not exist"
        raise UserError(f"{options.clip} {what}: give a video file, or <store>/<speaker>/<clip>.safetensors")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UserError(f"out={options.out} is a file: give a folder")
    face = load_face_model(options.face)
    prepared = options.clip.suffix == ".safetensors"
    if prepared:
        clip = read_prepared(options.clip, face)
    else:
        clip = fit_video(options.clip, face, DlibDetector(), options.frames, show)
    frames = chosen_frames(clip, face, options.frames)
    out = options.out or Path("outputs") / "view" / clip.name
    staging = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        try:
            staging.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"out={out} cannot be written ({error.strerror}): name another folder") from error
        write_overlay(clip, face, staging, show)
        for frame in frames:
            (staging / f"frame_{frame:04d}.glb").write_bytes(export_glb(clip, face, frame))
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(staging.iterdir()):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return out


def load_face_model(name: str) -> MorphableFace:
    """The face that `face.model=<name>` means to an experiment."""
    from experiments.build_data import build_face  # loads Lightning, which takes seconds; a wrong path is said before
    from experiments.schema import Config, FaceConfig

    return build_face(Config(face=FaceConfig(model=name)))


def chosen_frames(clip: FittedClip, face: MorphableFace, wanted: list[int]) -> list[int]:
    """Frames whose mesh is written: the wanted ones, or the first with a face and the one with the widest mouth.

    Raises:
        UserError: a wanted frame is not in the clip, or shows no face.
    """
    seen = torch.nonzero(clip.valid)[:, 0].tolist()
    if not wanted:
        opening = CurveStrip(clip, face, MIN_WIDTH).lip_opening
        return sorted({seen[0], max(seen, key=lambda frame: opening[frame])})
    check_frames(wanted, clip.num_frames)
    for frame in wanted:
        if frame not in seen:
            nearest = min(seen, key=lambda other: abs(other - frame))
            raise UserError(f"frames={frame}: no face was followed there; the nearest frame with one is {nearest}")
    return wanted


def write_overlay(clip: FittedClip, face: MorphableFace, folder: Path, progress=lambda items, *_: items) -> None:
    """Write overlay.mp4 and contact_sheet.png into an existing folder."""
    cells: list[Canvas] = []
    sheet_frames = np.linspace(0, clip.num_frames - 1, min(SHEET_FRAMES, clip.num_frames)).round().astype(int).tolist()

    def collect() -> Iterator[Canvas]:
        for index, (marks, mesh, strip) in enumerate(draw_frames(clip, face)):
            if index in sheet_frames:
                cells.append(_sheet_cell([marks, mesh], f"{index}"))
            _label(clip, index, marks, mesh)
            yield _stack([marks, mesh], strip)

    write_video(folder / "overlay.mp4", progress(collect(), clip.num_frames, "drawing"), clip.sound)
    sheet = np.concatenate(cells, axis=1)
    cv2.imwrite(str(folder / "contact_sheet.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def draw_frames(clip: FittedClip, face: MorphableFace) -> Iterator[tuple[Canvas, Canvas, Canvas]]:
    """Landmarks, mesh with axes, and curves of every frame; frames without a face are left as they are."""
    painter = strip = None
    for index, frame in enumerate(clip.frames):
        if painter is None or strip is None:
            look = View.within((frame.shape[1], frame.shape[0]), PANEL_BOX, clip.landmarks[clip.valid])
            painter = MeshPainter(face, clip.shape, look)
            strip = CurveStrip(clip, face, max(MIN_WIDTH, 2 * look.size[0]))
        marks, mesh = look.enlarge(frame), look.enlarge(frame)
        if clip.valid[index]:
            detected, fitted = look.place(clip.detected[index]), look.place(clip.landmarks[index])
            draw_landmarks(marks, detected, fitted)
            painter.paint(mesh, clip.expression[index], clip.pose[index])
            draw_axes(mesh, fitted[_NOSE], clip.pose[index], look.scale)
        yield marks, mesh, strip.draw(index)


def export_glb(clip: FittedClip, face: MorphableFace, frame: int) -> bytes:
    """The fitted face of a frame as a binary glTF: y up, the face towards +z, metres, with normals.

    The vertices are those of the upright head; its node turns them as the head was held.
    """
    vertices, triangles = face.vertices(clip.shape, clip.expression[frame]).numpy(), face.triangles.numpy()
    return glb(vertices, triangles, rotation_matrix(clip.pose[frame, :3]).numpy(), f"{clip.name}_{frame:04d}")


def glb(
    vertices: Float[np.ndarray, "V 3"], triangles: Int[np.ndarray, "F 3"], rotation: Float[np.ndarray, "3 3"], name: str
) -> bytes:
    """A mesh of the model frame (x right, y down, z away) in glTF's (x right, y up, z towards the viewer)."""
    flip = np.array([1, -1, -1], np.float32)  # half a turn about x: triangles keep their orientation
    normals = vertex_normals(vertices, triangles)
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0, 0, -1)  # in no triangle with an area; glTF wants unit length
    mesh = trimesh.Trimesh(
        METRES * flip * vertices,
        triangles,
        vertex_normals=flip * normals,
        process=False,  # vertex k stays vertex k
        visual=trimesh.visual.TextureVisuals(
            material=trimesh.visual.material.PBRMaterial(
                name="clay",
                baseColorFactor=(200, 190, 182, 255),
                metallicFactor=0.0,
                roughnessFactor=0.6,
                doubleSided=True,
            )
        ),
    )
    turn = np.eye(4)
    turn[:3, :3] = flip[:, None] * rotation * flip
    scene = trimesh.Scene()
    scene.add_geometry(mesh, node_name=name, geom_name=name, transform=turn)
    return scene.export(file_type="glb", include_normals=True)


def show(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """A progress bar where someone is looking."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        yield from bar.track(items, total=total, description=what)


def _label(clip: FittedClip, index: int, marks: Canvas, mesh: Canvas) -> None:
    bottom = marks.shape[0] - 12
    letter(marks, f"frame {index}   {index / FRAME_RATE:.2f} s", (12, 24), 15, halo=True)
    letter(marks, "• detected", (12, bottom - 20), 14, DETECTED, halo=True)
    letter(marks, "— fitted", (12, bottom), 14, FITTED, halo=True)
    text = describe_pose(clip.pose[index]) if clip.valid[index] else "no face followed here"
    letter(mesh, text, (12, bottom), 14, halo=True)


def _stack(panels: list[Canvas], strip: Canvas) -> Canvas:
    """The panels side by side, in the middle above the strip."""
    row = np.concatenate(panels, axis=1)
    canvas = np.full((row.shape[0] + strip.shape[0], strip.shape[1], 3), _GROUND, np.uint8)
    left = (strip.shape[1] - row.shape[1]) // 2
    canvas[: row.shape[0], left : left + row.shape[1]] = row
    canvas[row.shape[0] :] = strip
    return canvas


def _sheet_cell(panels: list[Canvas], label: str) -> Canvas:
    """The panels above one another, small."""
    size = View.within((panels[0].shape[1], panels[0].shape[0]), SHEET_PANEL).size
    cell = np.concatenate([cv2.resize(panel, size, interpolation=cv2.INTER_AREA) for panel in panels])
    letter(cell, label, (8, 22), 16, halo=True)
    return cell


def main() -> None:
    """Run the command line."""
    if len(sys.argv) < 2 or {"-h", "--help"} & set(sys.argv[1:]):
        print(USAGE)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    guarded(lambda: print(view(parse(sys.argv[1:]))))


if __name__ == "__main__":
    main()
