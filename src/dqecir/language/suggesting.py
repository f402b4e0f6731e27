"""Complete a text while it is typed, with the phrases with which a model was trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from dqecir.data.cells import number_in
from dqecir.language.number_words import comparisons
from dqecir.language.parsing import Kind, Mention, Parser
from dqecir.language.vocabulary import Vocabulary

_CONNECTOR = re.compile(r"(?:,|\b(?:and|but)(?=\s|$))\s*")
MOST_CONNECTORS = 2
"""Most connectors in the name of a value that is completed."""
_LATER: Mapping[Kind, int] = {"is": 0, "more": 1, "less": 1, "is not": 3}
"""Kind of phrase -> number of places by which it is moved back: statements first, then comparisons, then
refusals."""


class Suggester:
    """Completes modification texts about the columns of one catalogue.

    ``values``: column -> its values, without ``""``.
    """

    def __init__(self, vocabularies: Sequence[Vocabulary], values: Mapping[str, Sequence[str]]) -> None:
        self._parser = Parser(vocabularies, values)
        self._spoken = spoken = {name: _spoken(vocabularies, name) for name in self._parser.values}
        found: dict[str, list[tuple[tuple[int, bool, int], str, Mention]]] = {
            # Sort: the first column of every attribute, then the second of every attribute, and so on.
            name: []
            for name in sorted(spoken, key=lambda name: spoken[name].place)
        }
        seen: Counter[Mention] = Counter()
        for words, readings in self._parser.phrases.items():
            for mention in readings:
                place = spoken[mention.column].values.get(mention.value, 0)
                order = (seen[mention] + _LATER[mention.kind], not mention.of, place)
                found[mention.column].append((order, _with_articles(words), mention))
                seen[mention] += 1
        self._columns: dict[str, list[tuple[str, Mention]]] = {
            column: [(words, mention) for _, words, mention in sorted(phrases, key=lambda phrase: phrase[0])]
            for column, phrases in found.items()
        }
        self._whole = {words for phrases in self._columns.values() for words, _ in phrases}

    def suggest(self, text: str, known: Mapping[str, str] | None = None, limit: int = 8) -> list[str]:
        """Return up to ``limit`` complete texts that continue ``text``, the likeliest first.

        Phrases that begin like the last clause come before phrases that only contain its words; columns take
        turns. ``known``: column -> value that the reference shows. These values are suggested only to be
        refused; columns that earlier clauses request are not suggested. For a known price or year,
        comparisons are. If the last clause is complete, another clause is added.
        """
        known = known or {}
        starts = [0, *(connector.end() for connector in _CONNECTOR.finditer(text))]
        found: list[str] = []
        # A value's name may contain connectors, so the last clause may begin before one of them.
        for start in starts[-MOST_CONNECTORS - 1 :]:
            head, clause = text[:start], text[start:]
            typed = " ".join(clause.lower().split())
            said = self._said(head, known)
            ahead = head if not head or head[-1].isspace() else f"{head} "
            found += [ahead + words for words in self._matching(typed, said, known)]
            if typed in self._whole:
                said |= self._said(clause, known)
                found += [f"{ahead}{typed} and {words}" for words in self._matching("", said, known)]
                break
        return [words for words in dict.fromkeys(found) if words != text][: max(0, limit)]

    def _said(self, text: str, known: Mapping[str, str]) -> set[str]:
        mentioned = {mention.column for readings in self._parser.mentions(text) for mention in readings}
        return mentioned | {column for column in known if any(words in text for words in comparisons(column))}

    def _matching(self, typed: str, said: set[str], known: Mapping[str, str]) -> Iterator[str]:
        columns = [
            [words for words, mention in phrases if self._sensible(mention, known)]
            for column, phrases in self._columns.items()
            if column not in said
        ]
        columns += [
            [f"is {words}" for words in comparisons(column)]
            for column, value in known.items()
            if column not in said and number_in(value) is not None
        ]
        wanted = typed.split()
        yield from _in_turn([w for w in words if w.startswith(typed)] for words in columns)
        if wanted:
            yield from _in_turn([w for w in words if _has(w.split(), wanted)] for words in columns)

    def _sensible(self, mention: Mention, known: Mapping[str, str]) -> bool:
        """Return whether it makes sense to request this of a reference that shows ``known``."""
        own = known.get(mention.column, "")
        if mention.of and mention.of != known.get(self._spoken[mention.column].owner):
            return False  # It would name an object that the reference does not show.
        if mention.kind == "is":
            return mention.value != own
        if mention.kind == "is not":
            return mention.value == own
        return not own or bool(self._parser.admissible([[mention]], {mention.column: {own: 1.0}}))


@dataclass(frozen=True)
class _Spoken:
    """A column: its place within its attribute, the attribute's place, value -> place, and its owner."""

    place: tuple[int, int]
    values: Mapping[str, int]
    owner: str


def _spoken(vocabularies: Sequence[Vocabulary], name: str) -> _Spoken:
    for attribute, vocabulary in enumerate(vocabularies):
        known = vocabulary.column(name)
        if known is not None:
            columns = list(vocabulary.columns.values())
            place = next(place for place, column in enumerate(columns) if column is known)
            values = {value: number for number, value in enumerate(known.values)}
            return _Spoken((place, attribute), values, known.owner.column if known.owner else "")
    return _Spoken((0, len(vocabularies)), {}, "")


def _in_turn(columns: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in zip_longest(*columns):
        yield from (words for words in row if words is not None)


def _has(words: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether ``words`` contain every wanted word.

    The last wanted word may be the beginning of one.
    """
    return set(wanted[:-1]) <= set(words) and any(word.startswith(wanted[-1]) for word in words)


def _with_articles(words: str) -> str:
    return re.sub(r"\ba (?=[aeio])", "an ", words)
