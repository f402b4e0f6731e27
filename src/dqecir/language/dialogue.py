"""Join the turns of a dialogue into one text: a turn adds, replaces or takes back requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dqecir.language.reader import Ask, Reader

_TAKEN_BACK = re.compile(
    r"^\W*(?:(?:no|nope|nah)\b\W*)?(?:(?:not|forget|undo|scrap|drop) (?:that|this|it|so)\b(?: one)?|undo\b|"
    r"go back\b|never ?mind\b|take (?:that|this|it) back\b|no\W*$)\W*",
    re.IGNORECASE,
)
_ANEW = re.compile(
    r"^\W*(?:start (?:over|again|anew)|forget (?:everything|all(?: of)? (?:that|this|it))|reset|new search)"
    r"\b\W*",
    re.IGNORECASE,
)
_OPENING = re.compile(r"^\W*(?:(?:and|but|now|then|also|ok|okay|please|yes)\b\W*)+", re.IGNORECASE)


@dataclass(frozen=True)
class _Phrase:
    """Words for one request; ``ask`` is None for a number and for unread words."""

    words: str
    column: str | None
    ask: Ask | None = None

    def gives_way(self, later: Sequence[_Phrase]) -> bool:
        """Return whether later phrases request another value of the column, or refuse this one."""
        same = [one for one in later if self.column is not None and one.column == self.column]
        if self.ask is None:
            return bool(same)
        asks = [one.ask for one in same if one.ask is not None]
        return any(ask.operation != "is not" or ask.value == self.ask.value for ask in asks)


_Turn = tuple[str, list[_Phrase]]
"""The text of a turn, and its phrases."""


def in_one(turns: Sequence[str], reader: Reader) -> str:
    """Return one text with the requests of all turns, which are in order of time.

    A requested value replaces earlier values of its column. "No, not that" takes back the turn before, and
    "start over" all turns; the rest of the same turn counts.
    """
    kept: list[_Turn] = []
    for turn in turns:
        kept, text = _after(kept, turn)
        kept.append((text, _phrases(text, reader)))
    later: list[_Phrase] = []
    words: list[str] = []
    for text, phrases in reversed(kept):
        left = [one.words for one in phrases if not one.gives_way(later)]
        # A turn of which nothing gives way is easiest to read as it was said.
        words = [*([text] if len(left) == len(phrases) else left), *words]
        later += phrases
    return ", ".join(filter(None, dict.fromkeys(words)))


def _after(kept: list[_Turn], turn: str) -> tuple[list[_Turn], str]:
    """Return the earlier turns that a turn does not take back, and the rest of its text."""
    if anew := _ANEW.match(turn):
        kept, turn = [], turn[anew.end() :]
    elif back := _TAKEN_BACK.match(turn):
        kept, turn = kept[:-1], turn[back.end() :]
    opening = _OPENING.match(turn)
    return kept, (turn[opening.end() :] if opening else turn).strip()


def _phrases(text: str, reader: Reader) -> list[_Phrase]:
    if not text:
        return []
    read = reader.read(text)
    asks = [_Phrase(_worded(ask), ask.column, ask) for ask in read.asks]
    numbers = [_Phrase(one.words, one.column) for one in read.constraints]
    return [*asks, *numbers, *(_Phrase(word, None) for word in read.unread)]


def _worded(ask: Ask) -> str:
    return f"not {ask.words}" if ask.operation == "is not" else ask.words
