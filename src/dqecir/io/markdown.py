"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table as lines of Markdown: a header, and one line for each row."""
    lines = [heads, *rows]
    drawn = [" ".join(["|", *(f"{cell} |" if cell else "|" for cell in line)]) for line in lines]
    return [drawn[0], "|" + "---|" * len(heads), *drawn[1:]]
