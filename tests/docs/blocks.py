"""Code blocks of the README and the documents: each is run, or a comment before it states why not.

The comment is one of

    <!-- run -->
    <!-- run, but for: dqecir serve (does not end); pip (installs) -->
    <!-- run by tests/e2e/test_commands.py -->
    <!-- read by dqecir.language.vocabulary:load_vocabulary -->
    <!-- not run: needs the pictures of FashionIQ -->

test_blocks.py runs those of the first two kinds, and reads those of the fourth kind as a file, by a function
or a class of settings.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_EXCEPT = re.compile(r"run, but for: (?P<lines>.+)")
_READER = re.compile(r"read by ([\w.]+):(\w+)")
_ONE_EXCEPTION = re.compile(r"(?P<start>.+?) \(.+\)")


@dataclass(frozen=True)
class Block:
    """A code block, the comment before it, and where it stands."""

    place: str
    mark: str
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        """Return whether test_blocks.py runs it."""
        return self.mark == "run" or _EXCEPT.fullmatch(self.mark) is not None

    @property
    def reader(self) -> tuple[str, str] | None:
        """Return the module and the name of what reads the block as a file."""
        found = _READER.fullmatch(self.mark)
        return (found[1], found[2]) if found else None

    @property
    def skipped(self) -> tuple[str, ...]:
        """Return the beginnings of lines that are not run."""
        found = _EXCEPT.fullmatch(self.mark)
        parts = found["lines"].split("; ") if found else []
        return tuple(_ONE_EXCEPTION.fullmatch(part)["start"] for part in parts)

    def commands(self) -> Iterator[str]:
        """Yield the lines of a block of commands, without those that are not run."""
        for line in self.lines():
            if line.strip() and not line.startswith(("#", *self.skipped)):
                yield line

    def lines(self) -> list[str]:
        """Return all lines; a line that ends in a backslash is joined with the next."""
        return self.text.replace("\\\n", " ").splitlines()


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, found.end()) + 1}",
            found["mark"] or "",
            found["language"],
            found["text"],
        )
        for found in _BLOCK.finditer(text)
    ]


def commands_of(block: Block) -> list[list[str]]:
    """Return the words of every dqecir command of a block, including those that are not run."""
    return [shlex.split(line, comments=True) for line in block.lines() if line.startswith("dqecir ")]


ALL = [block for page in PAGES for block in blocks(page)]
