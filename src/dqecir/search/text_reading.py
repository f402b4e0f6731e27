"""Read a file of modification texts, with the columns of an index, of a model, or the usual ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqecir.data.cells import has_value, measured
from dqecir.data.column_roles import roles_of
from dqecir.errors import DataError
from dqecir.index.column_facts import ColumnFacts
from dqecir.index.contract import Index
from dqecir.index.engines import open_index
from dqecir.io.files import write_text
from dqecir.language.number_words import names_a_number
from dqecir.language.reader import Reader, Reading
from dqecir.language.tagging import Tagger

MANY_VALUES = 1000
"""A column with more different values than this is text, in which no values are found."""
_FIGURES = 12
"""A column with more different numbers than this holds quantities to compare, not values to name."""


@dataclass(frozen=True)
class TextLine:
    """One line of the input file: an id, a text, and a category such as dress, which may be empty."""

    id: str
    text: str
    category: str


def read_texts(source: Path, out: Path, model: Path | None = None, index: Path | None = None) -> int:
    """Write what was read in every text of the file ``source`` to ``out`` (JSON lines); return their number.

    Columns are those of ``index``, or of ``model``, or, without both, the usual ones of the reader. Raises
    :class:`DataError` if both are given, or if a line is not as docs/language.md describes.
    """
    if index is not None and model is not None:
        raise DataError("give --index or --model, not both: the columns are read from one of them")
    if not out.parent.is_dir():
        raise DataError(f"the folder {out.parent} does not exist: create it, or choose another --out")
    lines = list(_lines(source))
    reader = _reader(model, index)
    read = [
        {"id": line.id, "text": line.text, **as_json(reader.read(line.text, line.category))} for line in lines
    ]
    write_text(out, "".join(json.dumps(row) + "\n" for row in read))
    return len(lines)


def as_json(reading: Reading) -> dict[str, Any]:
    """Return a reading as a dictionary for JSON."""
    return {
        "asks": [
            {"column": ask.column, "op": ask.operation, "value": ask.value, "words": ask.words}
            for ask in reading.asks
        ],
        "unread": list(reading.unread),
        "constraints": [
            {"column": bound.column, "order": bound.order, "number": bound.number}
            for bound in reading.constraints
        ],
        "corrections": [{"word": one.word, "read_as": one.read_as} for one in reading.corrections],
        "language": reading.language,
    }


def facts_to_read(index: Index) -> dict[str, ColumnFacts]:
    """Return column -> facts (such as its values and their counts) for the columns of an index.

    :func:`reader_of_facts` makes a reader from them.
    """
    return index.column_facts(MANY_VALUES, bins=1)


def reader_of_facts(facts: Mapping[str, ColumnFacts], tagger: Tagger | None = None) -> Reader:
    """Make a reader of texts, which finds values of an index's attributes and constraints on its numbers.

    It ignores columns of ids, addresses and free text. ``tagger`` finds requested values that no rule finds.
    Default: the shipped one. ``facts`` come from :func:`facts_to_read`.
    """
    known = {name: _values(one) for name, one in sorted(facts.items())}
    values: dict[str, list[str]] = {}
    numbers = []
    for name, role in zip(known, roles_of([*known], [*known.values()]), strict=True):
        many = names_a_number(name) or len(known[name]) > _FIGURES
        if role != "id" and many and any(math.isfinite(measured(value)) for value in known[name]):
            numbers.append(name)
        elif role == "attribute" and known[name] and facts[name].values is not None:
            values[name] = known[name]
    return Reader(values, numbers, tagger)


def _values(facts: ColumnFacts) -> list[str]:
    """Return the values of a column, the commonest first; only some of them if there are too many."""
    counts = facts.values
    found = facts.some if counts is None else sorted(counts, key=lambda value: (-counts[value], value))
    return [value for value in found if has_value(value)]


def _reader(model: Path | None, index: Path | None) -> Reader:
    if index is not None:
        return reader_of_facts(facts_to_read(open_index(index)))
    if model is None:
        return Reader()
    # Imported here, because it is slow to import and most readings need no model.
    from dqecir.model.composed_model import ComposedModel

    heads = ComposedModel.from_pretrained(model).heads
    if heads is None:
        raise DataError(
            f"the model {model} has no attribute columns to read: give --index instead, or leave out both"
        )
    return Reader(heads.config.columns)


def _lines(source: Path) -> Iterator[TextLine]:
    try:
        text = source.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text: save it as UTF-8") from error
    if not text.strip():
        raise DataError(
            f'{source} is empty: write a line such as {{"id": "1", "text": "is red"}} for each text'
        )
    # splitlines() would also split at other line separators, which a text may contain.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _line(line, f"{source}, line {number}")


def _line(line: str, where: str) -> TextLine:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: write one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f'{where} is not an object: write {{"id": "1", "text": "is red"}}')
    for key in ("id", "text"):
        if not isinstance(row.get(key), str):
            what = "has no" if key not in row else "has no text in quotes as its"
            raise DataError(f'{where} {what} {key!r}: write {{"id": "1", "text": "is red"}}')
    if not isinstance(row.get("category") or "", str):
        raise DataError(
            f"{where} has a 'category' that is not a text: write a word such as dress, or leave it out"
        )
    return TextLine(row["id"], row["text"], row.get("category") or "")
