"""Find the names in a text: of values, of objects ("the stars", "main shape"), and comparatives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dqecir.language.english import stem, tokens, word_set
from dqecir.language.lexicon import Lexicon
from dqecir.language.roles import MARKS, Role, roles, segments

_CHUNKS = word_set("with without to into from for instead rather than over as")
"""Words with which a chunk begins, as it does after punctuation; a word in another chunk hints less at the
column of a name."""
_SOLID = "solid"
"""Word that qualifies a colour although it names a pattern: "solid white"."""


@dataclass(frozen=True)
class Name:
    """Words [start, end) and what they may mean: pairs (column, value); a comparative has an empty value."""

    start: int
    end: int
    means: Sequence[tuple[str, str]]
    kind: Literal["value", "owner", "more", "less"] = "value"
    turned: bool = False
    """Whether words before or after it make the comparison ("not so dark", "more dark"), so that a negation
    among them does not refuse it."""


@dataclass(frozen=True)
class Text:
    """An analysed text: its words, its parts [start, end) and its names.

    For every word: ``roles``, ``chunk`` (the number of its chunk) and ``cues`` (the columns that it hints
    at).
    """

    words: list[str]
    parts: list[tuple[int, int]]
    names: list[Name]
    roles: list[Role]
    chunk: list[int]
    cues: list[frozenset[str]]


def taken_in(text: str, lexicon: Lexicon) -> Text:
    """Analyse a text: correct typing errors, and find its parts and names, and each word's role and hints."""
    words = [word if word in MARKS else lexicon.mended(word) for word in tokens(text)]
    cues = [frozenset(lexicon.cues.get(stem(word), ())) for word in words]
    hints = [bool(cue) or stem(word) in lexicon.heads for cue, word in zip(cues, words, strict=True)]
    parts = segments(words, hints, _inside_names(words, lexicon))
    names: list[Name] = []
    named = [False] * len(words)
    for start, end in parts:
        place = start
        while place < end:
            name = _name_at(lexicon, words[:end], place, start)
            if name is None:
                place += 1
                continue
            solid = words[place] == _SOLID and name.end < end
            after = _name_at(lexicon, words[:end], name.end, start) if solid else None
            if after is not None and after.kind == "value":
                place += 1  # how a colour is, and not what pattern there is: "solid white"
                continue
            names.append(name)
            named[name.start : name.end] = [True] * (name.end - name.start)
            place = name.end
    for place, word in enumerate(words):
        named[place] = named[place] or stem(word) in lexicon.things
    chunk, number = [], 0
    for word in words:
        number += word in _CHUNKS or word in MARKS
        chunk.append(number)
    return Text(words, parts, names, roles(words, parts, named), chunk, cues)


def _inside_names(words: Sequence[str], lexicon: Lexicon) -> set[int]:
    """Return the places of the words of names but their last: "tops and" of "tops and tees"."""
    found: set[int] = set()
    place = 0
    while place < len(words):
        end = place + max(1, lexicon.find(words, place)[0])
        found.update(range(place, end - 1))
        place = end
    return found


def _name_at(lexicon: Lexicon, words: Sequence[str], place: int, start: int) -> Name | None:
    length, means = lexicon.find(words, place)
    size, owners = lexicon.owner(words, place)
    definite = place > start and words[place - 1] in ("the", "of")
    if owners and (size > length or definite or not means):
        return Name(place, place + size, owners, "owner")
    compared = _compared(lexicon, words, place, start)
    if compared and length <= 1:
        return compared
    if not means:
        return None
    return Name(place, place + length, means)


def _compared(lexicon: Lexicon, words: Sequence[str], place: int, start: int) -> Name | None:
    """Return the comparison at a place, if any: "longer", "too long", "less dark", "not long enough"."""
    word = words[place]
    if word in lexicon.comparing:
        if word == "longer" and place > start and words[place - 1] == "no":
            return None
        turned = place > start and words[place - 1] == "less"
        up = {column for column, way in lexicon.comparing[word] if way is not turned}
        down = {column for column, way in lexicon.comparing[word] if way is turned}
        columns = up or down
        way: Literal["more", "less"] = "more" if up else "less"
        return Name(place, place + 1, [(column, "") for column in sorted(columns)], way, turned)
    bases = lexicon.bases.get(word)
    if not bases or place == start:
        return None
    before = words[place - 1]
    back = " ".join(words[max(start, place - 3) : place])
    if before in ("too", "less") or re.search(r"\bnot (?:so|as|quite as|that)$", back):
        turned = True
    elif before == "more" or (words[place + 1 : place + 2] == ["enough"] and "not" in back):
        turned = False
    else:
        return None
    up = {column for column, up in bases if up is not turned}
    down = {column for column, up in bases if up is turned}
    way = "more" if up else "less"
    return Name(place, place + 1, [(column, "") for column in sorted(up or down)], way, True)
