"""Write the readings of every text of a corpus after a change of the text reader's version.

    python -m benchmarks.write_readings

The first line of tests/language/readings.jsonl holds the version of the reader and the catalogues. Every
other line holds a catalogue, a text and its readings; ``null`` stands for the readings of a new text. If
the reading of a text has changed, raise READER_VERSION first. The texts were drawn from the catalogues'
own phrases and from fresh_wordings*.yaml; those of the shop were written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqecir.io.files import write_text
from dqecir.language.mentions import Clause, Mention
from dqecir.language.numeric_constraints import constraint_reader
from dqecir.language.parsing import Parser
from dqecir.language.reader_version import READER_VERSION
from dqecir.language.vocabulary import shipped_vocabularies

READINGS = Path(__file__).parent.parent / "tests" / "language" / "readings.jsonl"


class TextReader:
    """Reads texts about one catalogue: its columns with their values, and its columns of numbers."""

    def __init__(self, values: dict[str, list[str]], numbers: Sequence[str]) -> None:
        self._parser = Parser(shipped_vocabularies(values), values)
        self._constraints = constraint_reader(tuple(numbers))

    def readings(self, text: str) -> list[str]:
        """Return the numeric constraints of a text, then its clauses; an unread one begins with ``?``."""
        rest, constraints = self._constraints.parted(text)
        numbers = [
            f"{known.column} {known.order} {'this' if known.number is None else f'{known.number:g}'}"
            for known in constraints
        ]
        return numbers + [_clause(clause) for clause in self._parser.clauses(rest)]


@dataclass
class Corpus:
    """Texts with the readings that one version of the reader gives."""

    version: int
    catalogues: dict[str, dict[str, Any]]
    rows: list[tuple[str, str, list[str] | None]]
    """Catalogue, text, readings; None for the readings of a new text."""

    @classmethod
    def read(cls, path: Path) -> Corpus:
        head, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return cls(head["reader_version"], head["catalogues"], [tuple(row) for row in rows])

    def read_again(self) -> Corpus:
        """Return the texts with the readings of today's reader."""
        known = {name: TextReader(**settings) for name, settings in self.catalogues.items()}
        return Corpus(
            READER_VERSION,
            self.catalogues,
            [(name, text, known[name].readings(text)) for name, text, _ in self.rows],
        )

    def changes(self, other: Corpus) -> list[str]:
        """Return a line for each text that ``other`` reads otherwise."""
        return [
            f"{text!r} was read as {before} and is read as {after}"
            for (_, text, before), (_, _, after) in zip(self.rows, other.rows, strict=True)
            if before is not None and before != after
        ]

    def write(self, path: Path) -> None:
        head = {"reader_version": self.version, "catalogues": self.catalogues}
        lines = [json.dumps(line, ensure_ascii=False) for line in (head, *self.rows)]
        write_text(path, "\n".join([*lines, ""]))


def _clause(clause: Clause) -> str:
    if not clause.readings:
        return f"? {clause.words}"
    return " | ".join(map(_mention, clause.readings))


def _mention(mention: Mention) -> str:
    of = f" of {mention.of}" if mention.of else ""
    values = " or ".join(value for value in (mention.value, *mention.others) if value)
    return f"{mention.column}{of} {mention.kind} {values}".rstrip()


def rewrite(path: Path) -> str:
    """Write the readings of today's reader into the corpus at ``path``, and return how many changed.

    Raises ``SystemExit`` if a reading changed but the version of the reader did not.
    """
    before = Corpus.read(path)
    after = before.read_again()
    changes = before.changes(after)
    if changes and after.version == before.version:
        raise SystemExit(
            "\n".join([*changes, f"raise READER_VERSION: {len(changes)} texts are read otherwise"])
        )
    after.write(path)
    return f"{len(changes)} of {len(after.rows)} texts are read otherwise in version {after.version}"


if __name__ == "__main__":
    print(rewrite(READINGS))
