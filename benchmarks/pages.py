"""Replace the parts of pages that scripts write.

A part lies between the comments ``<!-- NAME: written by benchmarks/SCRIPT -->`` and ``<!-- end of NAME -->``.
All else on the page is written by hand, or by other scripts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dqecir.io.files import write_text


def with_part(page: str, name: str, lines: Sequence[str]) -> str:
    """Return the text ``page`` with the part ``name`` replaced by ``lines``.

    Raises :class:`ValueError` if the page does not have this part exactly once.
    """
    marks = re.compile(rf"(<!-- {name}: written by \S+ -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    body = "\n".join(lines).strip("\n")
    found, count = marks.subn(lambda mark: f"{mark[1]}\n{body}\n\n{mark[2]}", page)
    if count != 1:
        raise ValueError(f"the page has {count} parts named {name!r}: mark one with two comments")
    return found


def write_part(path: Path, name: str, lines: Sequence[str]) -> None:
    """Replace the part ``name`` of the page at ``path`` by ``lines``; see :func:`with_part`."""
    write_text(path, with_part(path.read_text(encoding="utf-8"), name, lines))
