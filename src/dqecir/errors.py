"""The exceptions of the package; each message is one sentence that says what is wrong and what to do."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

PROBLEMS_SHOWN = 20
"""Most problems of a catalogue that its error lists."""


def listed(reasons: Sequence[str]) -> str:
    """Return reasons as lines to put below a sentence: at most :data:`PROBLEMS_SHOWN`, and how many more."""
    hidden = len(reasons) - PROBLEMS_SHOWN
    shown = [*reasons[:PROBLEMS_SHOWN], *([f"and {hidden} more"] if hidden > 0 else [])]
    return "".join(f"\n- {reason}" for reason in shown)


def counted(number: int, noun: str) -> str:
    """Return a number with a noun: ``1 picture``, ``2,000 pictures``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def about_warnings(warnings: Sequence[str], folder: Path) -> str:
    """Return a sentence: how many warnings the table of a catalogue has, and which command lists them."""
    return f"warnings about the table: {len(warnings)}; dqecir catalogue check {folder} lists them"


class DataError(ValueError):
    """Input that cannot be used: a file, a table, a text, a setting, a request."""


class ImageError(DataError):
    """A picture that cannot be used; ``reason`` is the message without the picture's path."""

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{source}: {reason}")


class CatalogueError(DataError):
    """A catalogue that cannot be used; ``problems`` are all reasons."""

    def __init__(self, folder: Path, problems: Sequence[str]) -> None:
        self.folder, self.problems = folder, tuple(problems)
        super().__init__(f"the catalogue {folder} cannot be used:{listed(problems)}")


class CheckpointError(DataError):
    """Weights that do not fit the model, or cannot be read."""


class EngineError(DataError):
    """An index that cannot be opened, read or changed."""


class UnknownItemError(EngineError):
    """No item of the index has the id ``item_id``."""

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        super().__init__(f"there is no item {item_id!r} in the index: check its id")


class ItemPictureError(DataError):
    """The picture of an item of the index is missing or cannot be read."""


class FilterError(DataError):
    """A filter that cannot be read, or that does not fit the index; the message says why."""


class EditError(DataError):
    """A picture that could not be edited."""


def reason_of(error: Exception) -> str:
    """Return an exception of another library as one short line: its message, or else its type."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def trouble_with_a_file(error: OSError) -> str:
    """Return one sentence: what failed, for which file, and what to do."""
    what = f"{error.filename}: " if error.filename else ""
    helps = _HELPS.get(error.errno or 0, "check the path and try again")
    return f"{what}{error.strerror or error}; {helps}"


_HELPS = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EIO: "free some space, or write to another disk",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EFBIG: "write to a place where files may be larger",
    errno.EROFS: "write to another folder",
    errno.EACCES: "write to a folder of your own, or change its permissions",
    errno.EPERM: "write to a folder of your own, or change its permissions",
    errno.EISDIR: "name a file and not a folder",
    errno.EEXIST: "a part of the path is a file: name another folder",
    errno.ENOTDIR: "a part of the path is a file: name another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}
