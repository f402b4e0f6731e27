"""Join the turns of a dialogue into one text: a turn adds, replaces or takes back requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    """Neighbouring words that are one request; ``ask`` is None for a number and for unread words."""

    said: str
    words: str
    """The words for the joined text; with "not" added if they are a refusal that could not be read alone."""
    column: str | None
    ask: Ask | None = None

    def gives_way(self, later: Sequence[_Phrase]) -> bool:
        """Return whether later phrases request another value of the column, or refuse this one."""
        same = [one for one in later if self.column is not None and one.column == self.column]
        if self.ask is None:
            return bool(same)
        asks = [one.ask for one in same if one.ask is not None]
        return any(ask.operation != "is not" or ask.value == self.ask.value for ask in asks)


@dataclass(frozen=True)
class _Turn:
    place: int
    text: str
    """The turn's text, without words such as "no, not that" that take back earlier turns."""
    phrases: list[_Phrase]


@dataclass(frozen=True)
class Dialogue:
    """The requests of several turns together."""

    text: str
    """One text with the requests of all turns."""
    taken_back: tuple[tuple[str, ...], ...]
    """For each turn, its words that later turns replaced or took back."""


def in_one(turns: Sequence[str], reader: Reader) -> Dialogue:
    """Join turns, which are in order of time, to one text.

    A request replaces earlier requests of its column; a refusal replaces only the same value. "No, not that"
    takes back the previous turn, and "start over" all previous turns; what else the turn says still counts.
    ``reader`` reads each turn.
    """
    kept: list[_Turn] = []
    taken_back: list[tuple[str, ...]] = [()] * len(turns)
    for place, said in enumerate(turns):
        kept, text = _after(kept, said)
        # A turn that only takes others back requests nothing, so that it is not taken back itself.
        if text:
            kept.append(_Turn(place, text, _phrases(text, reader)))
            taken_back[place] = (said,)
    later: list[_Phrase] = []
    words: list[str] = []
    for turn in reversed(kept):
        left = [one for one in turn.phrases if not one.gives_way(later)]
        # Keep a turn's own text if all of it still counts, because it is the easiest to read.
        words = [turn.text if len(left) == len(turn.phrases) else _joined(left, turn.text), *words]
        taken_back[turn.place] = tuple(one.said for one in turn.phrases if one not in left)
        later += turn.phrases
    return Dialogue(", ".join(filter(None, dict.fromkeys(words))), tuple(taken_back))


def _after(kept: list[_Turn], turn: str) -> tuple[list[_Turn], str]:
    """Return the earlier turns that ``turn`` does not take back, and the rest of the text of ``turn``."""
    if anew := _ANEW.match(turn):
        kept, turn = [], turn[anew.end() :]
    elif back := _TAKEN_BACK.match(turn):
        kept, turn = kept[:-1], turn[back.end() :]
    opening = _OPENING.match(turn)
    return kept, (turn[opening.end() :] if opening else turn).strip()


def _joined(phrases: Sequence[_Phrase], text: str) -> str:
    """Return the words of some phrases of a text, with a comma between those that are not neighbours."""
    words = "".join(one.words for one in phrases[:1])
    for one, following in pairwise(phrases):
        words += (" " if f"{one.words} {following.words}" in text else ", ") + following.words
    return words


def _phrases(text: str, reader: Reader) -> list[_Phrase]:
    read = reader.read(text)
    asks = [_Phrase(ask.words, _worded(ask, reader), ask.column, ask) for ask in read.asks]
    numbers = [_Phrase(one.words, one.words, one.column) for one in read.constraints]
    return [*asks, *numbers, *(_Phrase(word, word, None) for word in read.unread)]


def _worded(ask: Ask, reader: Reader) -> str:
    """Return the words of a request, so that they are read as the same request when they stand alone."""
    refused = ask.operation == "is not"
    return f"not {ask.words}" if refused and reader.read(ask.words).asks != (ask,) else ask.words
