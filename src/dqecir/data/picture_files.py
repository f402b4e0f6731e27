"""Find the pictures in a folder, and say why other files are left out."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from dqecir.data.cells import folded

PICTURE_SUFFIXES = [
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".mpo",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".avif",
    ".jp2",
    ".heic",
    ".heif",
    ".hif",
]
"""Suffixes of picture files; other files are recognised by their first bytes."""
UPLOADS_MARK = ".dqecir-uploads"
"""Name of a file that marks a folder of pictures that the service stores."""
FETCHED = ("fetched.log", "not-fetched.txt")
"""Files that dqecir writes into a catalogue whose pictures it has fetched."""
FETCHED_ALL = b'{"finished": true}\n'
"""Last line of ``fetched.log`` after every address was tried."""
HALF_FETCHED = (
    "pictures are being fetched, or that was stopped: run dqecir catalogue fetch again to get the rest"
)
"""The reason with which ``fetched.log`` is reported if it does not end with that line."""

_RAW = (".cr2", ".cr3", ".nef", ".nrw", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw")
"""Suffixes of cameras' raw files, many of which begin like TIFF."""
_ELSEWHERE = {
    ".svg": "a vector drawing is not read: export it as PNG",
    ".psd": "a file of an image editor is not read: export it as JPEG or PNG",
    ".ai": "a file of an image editor is not read: export it as JPEG or PNG",
    ".pdf": "a document is not read: export its pages as JPEG",
    ".jxl": "JPEG XL is not read: save it as JPEG",
    ".zip": "an archive is not unpacked: unpack it into the folder",
    **dict.fromkeys(_RAW, "a raw file of a camera is not read: export it as JPEG"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".webm", ".mkv"), "a video is not read: export a frame as JPEG"),
}
_LEFT_FOLDERS = {
    "@eadir": "thumbnails that a network drive made",
    "#recycle": "the bin of a network drive",
    "$recycle.bin": "the bin of Windows",
    "__macosx": "files that macOS adds to archives",
    "lost+found": "files that a disk check recovered",
    **dict.fromkeys(("thumbnails", "thumbs", "_thumbs"), "a folder of thumbnails"),
}
_HEAD = 64
_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"BM",
    *(b"P%d%c" % (number, blank) for number in range(1, 7) for blank in b" \t\r\n"),
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
)


@dataclass(frozen=True)
class Refusal:
    """A file or folder that is left out, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class PictureFiles:
    """The pictures in a folder and its sub-folders, and what is left out with the reasons; sorted by path.

    A folder that is left out is one entry; its files are not listed.
    """

    pictures: tuple[Path, ...]
    left_out: tuple[Refusal, ...]


def list_pictures(root: Path) -> PictureFiles:
    """List the pictures in ``root`` and its sub-folders; nothing is decoded.

    Links to folders, hidden files and folders, bins, folders of thumbnails, indexes, and pictures that the
    service stores are left out, and so are folders that cannot be read, even ``root``.
    """
    pictures: list[Path] = []
    left_out: list[Refusal] = []
    for folder, folders, files in os.walk(root, onerror=lambda error: left_out.append(_unreadable(error))):
        here = Path(folder)
        for name in list(folders):
            if reason := _why_no_folder(here / name):
                folders.remove(name)
                left_out.append(Refusal(here / name, reason))
        for name in files:
            reason = _why_no_picture(here / name)
            if reason is None:
                pictures.append(here / name)
            else:
                left_out.append(Refusal(here / name, reason))
    return PictureFiles(tuple(sorted(pictures)), tuple(sorted(left_out, key=lambda one: one.path)))


class FileNames:
    """The files of a folder, found by name in any case, Unicode form and with any slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, name: str) -> list[str]:
        """Return the relative paths of the files that ``name`` may mean; only the exact one if it exists.

        ``name`` must be a relative path inside the folder.
        """
        plain = _without_detours(name)
        # For an impossible name, ``os.path.isfile`` returns False; ``Path.is_file`` raises.
        if os.path.isfile(self.root / plain):  # noqa: PTH113
            return [plain]
        return self._readable(self._by_name.get(folded(_without_detours(name.replace("\\", "/"))), []))

    def of_last_part(self, name: str) -> list[str]:
        """Return the relative paths of all files with the name ``name``, in any sub-folder."""
        return self._readable(self._by_last_part.get(folded(name), []))

    def similar(self, name: str) -> list[str]:
        """Return the relative paths of files with the last part of ``name``, in any folder.

        If there are none: of files whose last part differs from it only in the suffix.
        """
        last = PurePosixPath(folded(name.replace("\\", "/")))
        return self._readable(self._by_last_part.get(last.name) or self._by_stem.get(last.stem, []))

    def _readable(self, paths: list[str]) -> list[str]:
        """Return only the paths of files, not of pipes, devices and broken links."""
        return [path for path in paths if os.path.isfile(self.root / path)]  # noqa: PTH113  (as find)

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for paths in self._by_name.values():
            for path in paths:
                found.setdefault(folded(path.rpartition("/")[2]), []).append(path)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for last, paths in self._by_last_part.items():
            found.setdefault(PurePosixPath(last).stem, []).extend(paths)
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in _files_behind_links(self.root):
            relative = path.relative_to(self.root).as_posix()
            found.setdefault(folded(relative), []).append(relative)
        return found


def _without_detours(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _files_behind_links(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        own = os.path.realpath(folder)
        if own in seen:
            folders.clear()
            continue
        seen.add(own)
        yield from (Path(folder) / name for name in files)


def _unreadable(error: OSError) -> Refusal:
    return Refusal(Path(error.filename), f"the folder cannot be read ({error.strerror})")


def _why_no_folder(path: Path) -> str | None:
    if path.is_symlink():
        return "a link to a folder is not followed: name its pictures in the table, or index its target"
    if path.name.startswith("."):
        return "a hidden folder"
    if reason := _LEFT_FOLDERS.get(path.name.casefold()):
        return reason
    index = path.with_name(path.name.removesuffix("-uploads"))
    # For a folder that cannot be read, ``os.path.exists`` returns False; ``Path.exists`` raises.
    is_marked = os.path.exists(path / UPLOADS_MARK)  # noqa: PTH110
    if is_marked or (index != path and _is_index(index)):
        return "pictures that were uploaded to the service"
    return "an index" if _is_index(path) else None


def _is_index(path: Path) -> bool:
    try:
        return "engine" in json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _why_no_picture(path: Path) -> str | None:
    suffix = path.suffix.casefold()
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return "it is a pipe or a device, not a file"
        if path.name.startswith("."):
            return "a hidden file"
        if suffix in PICTURE_SUFFIXES:
            return None
        if path.name == FETCHED[0] and not path.read_bytes().endswith(FETCHED_ALL):
            return HALF_FETCHED
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        return "a link to a file that does not exist" if path.is_symlink() else "there is no such file"
    except OSError as error:
        return f"the file cannot be read ({error.strerror})"
    if is_picture(head) and suffix not in _RAW:
        return None
    return _ELSEWHERE.get(suffix, "it is not a picture")


def is_picture(head: bytes) -> bool:
    """Return whether the first 64 bytes of a file are those of a picture in a supported format.

    HEIC counts even if the extra ``heic`` is not installed.
    """
    is_avif = head[4:8] == b"ftyp" and b"avi" in head[8:]
    return head.startswith(_MAGIC) or head[8:12] == b"WEBP" or is_avif or is_heif(head)


def is_heif(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of HEIC, which needs the extra ``heic``."""
    brands = head[8:]
    return head[4:8] == b"ftyp" and b"avi" not in brands and any(brand in brands for brand in _HEIF)
