"""The clauses of a modification text and their readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["is", "is not", "more", "less"]


@dataclass(frozen=True)
class Mention:
    """One request about a column: a value, a refused value, or more or less than the reference.

    A column may belong to another one, as a shape's colour to the shape. ``of`` is the other column's value,
    if the text names it ("the stars"), else empty. ``value`` is empty for more and less. ``others`` are
    alternative values: "red or blue".
    """

    column: str
    kind: Kind
    value: str = ""
    of: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clause:
    """A clause of a text in plain words, and its possible readings; empty if it could not be read."""

    words: str
    readings: tuple[Mention, ...]
