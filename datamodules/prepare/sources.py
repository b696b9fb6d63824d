"""Find the clips of a corpus: which video, which sound, which words belong together.

GRID comes in two layouts, both read here:
    s1/bbaf2n.mpg                      sound inside; words in s1/align/, alignments/s1/, align/s1/ or beside it
    s1/bbaf2n/000.jpg ...              frames as images; sound in a .wav of the same name, anywhere below the root
and other packings with the same names at other depths (s1/video/mpg_6000/bbaf2n.mpg).
The collected corpus is <root>/<speaker>/<view>/<take>.mp4. Any other folder is taken as it is: every video below it is
a source, and the first folder on the way to it the speaker.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.prepare.decode import IMAGE_SUFFIXES, VIDEO_SUFFIXES

FRONT_VIEW = "front"  # GRID has one view, from the front; of web videos the view is not known
_MORE_SUFFIXES = (".3gp", ".flv", ".m2ts", ".m4v", ".mpeg", ".mts", ".ogv", ".ts", ".wmv")  # seen in the wild
_LONGEST_NAME = 80  # characters of a part of an id; file systems allow 255 bytes, some of which go to suffixes
_PART = re.compile(r"-\d{3,}$")  # how the clips of one source are told apart


@dataclass(frozen=True)
class SourceClip:
    """A raw clip.

    Attributes:
        id: "<speaker>/<name>" for GRID, "<speaker>/<view>/<take>" for the collected corpus.
        speaker: name of the speaker's folder; all names can be written as UTF-8.
        view: camera position.
        video: file, or folder of images.
        audio: file with the sound; None if it is in the video file.
        alignment: .align file, or None.
        landmarks: file of landmarks that were found elsewhere, where these are asked for.
    """

    id: str
    speaker: str
    view: str
    video: Path
    audio: Path | None = None
    alignment: Path | None = None
    landmarks: Path | None = None


def source_bytes(source: SourceClip) -> int:
    """Size of the raw clip with its sound, words and landmarks; 0 if it is gone."""
    return sum(path.stat().st_size for path in _files(source) if path.exists())


def source_sha256(source: SourceClip) -> str:
    """Hash of the video (file by file for a folder of images), then of its sound, words and landmarks."""
    digest = hashlib.sha256()
    for path in _files(source):
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _files(source: SourceClip) -> list[Path]:
    videos = [source.video]
    if source.video.is_dir():
        videos = sorted(path for path in source.video.iterdir() if path.is_file())
    return [*videos, *(path for path in (source.audio, source.alignment, source.landmarks) if path is not None)]


def scan_grid(root: Path) -> list[SourceClip]:
    """Clips of a GRID folder, sorted by id.

    Raises:
        ValueError: the folder is missing or holds no clip.
    """
    root = _existing(root)
    videos: dict[tuple[str, str], Path] = {}  # by speaker and name, as the file system has them
    sidecars: dict[str, dict[tuple[str, str], Path]] = {".align": {}, ".wav": {}}
    for folder, names in _walk(root):
        parts = folder.relative_to(root).parts
        if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names) and parts:
            speaker = _speaker(root, parts[:-1])
            videos.setdefault((speaker, parts[-1]), folder)
        for name in names:
            path = folder / name
            if path.suffix.lower() == ".mpg":
                videos.setdefault((_speaker(root, parts), path.stem), path)
            elif path.suffix.lower() in sidecars:
                for part in (*parts, ""):  # "" for a folder that is not sorted by speaker
                    sidecars[path.suffix.lower()].setdefault((part, path.stem), path)
    if not videos:
        raise ValueError(
            f"{root} holds no GRID clip: expected <speaker>/<clip>.mpg, or <speaker>/<clip>/ with the frames as images"
        )
    single = len({speaker for speaker, _ in videos}) == 1

    def sidecar(suffix: str, speaker: str, stem: str) -> Path | None:
        found = sidecars[suffix].get((speaker, stem))
        # every speaker says sentences with the same names, so a file without a speaker belongs to the only one
        return found or (sidecars[suffix].get(("", stem)) if single else None)

    clips = []
    for (speaker, stem), video in videos.items():
        audio = sidecar(".wav", speaker, stem) if video.is_dir() else None
        name, words = _writable(speaker), sidecar(".align", speaker, stem)
        clips.append(SourceClip(f"{name}/{_writable(stem)}", name, FRONT_VIEW, video, audio, words))
    return sorted(clips, key=lambda clip: clip.id)


def scan_collected(root: Path) -> list[SourceClip]:
    """Takes of a collected corpus, <root>/<speaker>/<view>/<take>.mp4, sorted by id.

    Raises:
        ValueError: the folder is missing or holds no take, or two of its takes have one name.
    """
    root = _existing(root)
    clips: list[SourceClip] = []
    for folder, names in _walk(root):
        parts = folder.relative_to(root).parts
        if len(parts) != 2:
            continue
        for path in sorted(folder / name for name in names):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                audio = path.with_suffix(".wav")
                speaker, view, take = map(_writable, (*parts, path.stem))
                identity = f"{speaker}/{view}/{take}"
                clips.append(SourceClip(identity, speaker, view, path, audio if audio.exists() else None))
    if not clips:
        raise ValueError(f"{root} holds no take: expected <speaker>/<view>/<take>.mp4")
    _refuse_clashes(clips)
    return sorted(clips, key=lambda clip: clip.id)


def scan_folder(root: Path) -> list[SourceClip]:
    """Every video below a folder, sorted by id; hidden files and folders are left out.

    The id is the path below the root without its suffix, in plain letters, digits, `_`, `-` and `.`; where that is not
    the name itself, or not the only one, a few letters of a hash of the path follow; so too for the speakers. A .wav or
    .align file of the same name beside the video is its sound or its words.

    Raises:
        ValueError: the folder is missing or holds no video.
    """
    root = _existing(root)
    suffixes = (*VIDEO_SUFFIXES, *_MORE_SUFFIXES)
    videos = [folder / name for folder, names in _walk(root) for name in names]
    videos = [path for path in videos if path.suffix.lower() in suffixes]
    if not videos:
        raise ValueError(f"{root} holds no video: expected files ending in {', '.join(sorted(suffixes))}")
    plain = {path: "/".join(map(_plain, path.relative_to(root).with_suffix("").parts)) for path in videos}
    # file systems that do not tell capital letters apart would write two clips into one file
    times = Counter(name.casefold() for name in plain.values())
    speakers = _plain_names({path.relative_to(root).parts[0] for path in videos if path.parent != root})
    clips = []
    for path, name in plain.items():
        relative = path.relative_to(root)
        stem = _PART.sub("", name).casefold()
        taken = times[name.casefold()] > 1 or (stem != name.casefold() and stem in times)
        if taken or name != relative.with_suffix("").as_posix():
            name = f"{name}_{_hash(relative.as_posix())}"
        speaker = name if path.parent == root else speakers[relative.parts[0]]
        beside = (path.with_suffix(suffix) for suffix in (".wav", ".align"))
        audio, alignment = (file if file.exists() else None for file in beside)
        clips.append(SourceClip(name, speaker, FRONT_VIEW, path, audio, alignment))
    return sorted(clips, key=lambda clip: clip.id)


def _refuse_clashes(clips: list[SourceClip]) -> None:
    """Two takes whose clips would have one name: most likely one recording twice, which no split must divide.

    Raises:
        ValueError: there are such takes.
    """
    known: dict[str, SourceClip] = {}  # also without regard to capital letters, as some file systems
    for clip in clips:
        if (other := known.setdefault(clip.id.casefold(), clip)) is not clip:
            raise ValueError(f"{_shown(other.video)} and {_shown(clip.video)} have one name: rename or remove one")
    for clip in clips:
        whole = known.get(_PART.sub("", clip.id).casefold(), clip)
        if whole is not clip:
            raise ValueError(
                f"{_shown(clip.video)} is named as a part of {_shown(whole.video)} would be, if that is cut: rename one"
            )


def _plain_names(names: Iterable[str]) -> dict[str, str]:
    """`_plain` of each name, with a few letters of a hash where that is another name, or not the only one."""
    plain = {name: _plain(name) for name in names}
    times = Counter(each.casefold() for each in plain.values())
    return {
        name: each if each == name and times[each.casefold()] == 1 else f"{each}_{_hash(name)}"
        for name, each in plain.items()
    }


def _writable(name: str) -> str:
    """The name itself if it can be written as UTF-8, else a plain one with a few letters of a hash."""
    return name if _shown(name) == name else f"{_plain(name)}_{_hash(name)}"


def _shown(name: str | Path) -> str:
    return os.fsencode(name).decode(errors="replace")


def _hash(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def _plain(name: str) -> str:
    """A name that every file system and shell takes: accents are dropped, all else that is unusual becomes `_`."""
    letters = unicodedata.normalize("NFKD", _shown(name))
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9._-]", "_", letters).lstrip(".-")[:_LONGEST_NAME].rstrip(".") or "_"


def _existing(root: Path) -> Path:
    root = Path(root).expanduser()
    if not root.is_dir():
        problem = "is no folder" if root.exists() else "does not exist"
        raise ValueError(f"data root {root} {problem}: give the folder that holds the speakers' folders")
    return root.resolve()


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders below the root, the root included, in sorted order, hidden ones left out."""
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(folder), sorted(name for name in names if not name.startswith("."))


def _speaker(root: Path, parts: tuple[str, ...]) -> str:
    """First folder below the root that is not a mere container; the root's own name if the clips lie in it."""
    named = [part for part in parts if part.lower() not in ("video", "videos", "frames", "mpg", "images")]
    return named[0] if named else root.name
