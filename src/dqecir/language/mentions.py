"""Clauses of a modification text and their readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["is", "is not", "more", "less"]


@dataclass(frozen=True)
class Mention:
    """One thing a text says of a column: a value, a value denied, or more or less than the reference.

    ``of`` is the value of the owning column that the text names ("the stars"), where it names one. ``others``
    are values that would do as well: "red or blue".
    """

    column: str
    kind: Kind
    value: str = ""
    of: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clause:
    """A clause of a text in plain words, and its readings, any of which may be meant; none if unread."""

    words: str
    readings: tuple[Mention, ...]
