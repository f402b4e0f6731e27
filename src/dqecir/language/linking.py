"""Link tagged words to the columns and values of one catalogue.

A column gets one of the tagger's roles (such as garment or colour) by its name or by its values: a column
"article" with "Tshirts" and "Jeans" is a garment. Words name a value by its own name (singular or plural);
else a noun names all values that end with it ("shoes" means "Sports Shoes" and "Casual Shoes"); else the
usual value that the tagger predicts counts; else the name that is nearest by word vectors. Proper names, such
as brands, are named only by themselves.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dqecir.language.english import stem, word_set
from dqecir.language.lexicon import MUTE, without_article
from dqecir.language.spoken import USUAL, phrases, spoken
from dqecir.language.tagging import OWN, Mark, words_of
from dqecir.language.vocabulary import shipped_vocabularies

NEAR = 0.5
"""A text means a value if the cosine of their word vectors is at least this."""
NAMES = 200
"""A column with more different values than this holds proper names, such as brands."""
_OF_NAMES = word_set(
    """artist author brand brands designer maker manufacturer publisher supplier vendor
    autor fabricante fabricant hersteller marca marke marque produttore"""
)
"""If one of these words is in a column's name, the column holds proper names, even if it has few values."""
_SHARE = 0.5
"""A column that is not named like a role gets it if at least this share of its values, and at least three,
are known for the role."""
_SHORT = 3
"""Word vectors are used for texts with a word of at least this many letters. Shorter words name no kind."""
_FEW = 3
_REACH = 8
"""Most words and punctuation marks in a name, such as "U.S. Polo Assn."."""
_POSSESSIVE = re.compile(r"['\u2019]s?$")
Vector = Callable[[str], NDArray[np.float32]]
Named = tuple[str, str]
"""A column and a value."""


@cache
def usual_words() -> frozenset[str]:
    """Return every word in the phrases with which the tagger was trained."""
    return frozenset(
        word.text
        for kind, part in spoken().items()
        if kind not in ("languages", "syllables", "names")
        for phrase in phrases(part)
        for word in words_of(phrase)
    )


@cache
def usual_values(role: str) -> Mapping[str, tuple[str, int]]:
    """Return key of a phrase -> the usual value that it names, and its place among that value's phrases."""
    known = spoken()["adjectives"]
    known = spoken()["garments"] if role == "garment" else known.get(role.removeprefix("pattern_"), {})
    found: dict[str, tuple[str, int]] = {}
    for value in USUAL[role]:
        for place, phrase in enumerate([value, *known.get(value, ())]):
            found.setdefault(_key(phrase), (value, place))
    return found


def _key(name: str) -> str:
    return _joined([word.text for word in words_of(name.replace("_", " "))])


def _keys(column: str, value: str, role: str) -> list[str]:
    """Return the keys of a value's name and, for columns without a role, of a vocabulary's words for it."""
    names = [value]
    for vocabulary in shipped_vocabularies([column]) if role == OWN else ():
        spec = vocabulary.column(column)
        assert spec is not None
        known = next((one for name, one in spec.values.items() if name.casefold() == value.casefold()), None)
        names += [without_article(name) for name in (*known.words, *known.nouns)] if known else []
    return list(dict.fromkeys(map(_key, names)))


def _joined(words: Sequence[str]) -> str:
    """Return the key by which names are compared: joined stems without punctuation, "and", "the" and "'s"."""
    return "".join(stem(_POSSESSIVE.sub("", word)) for word in words if _counts(word))


def _last_key(name: str) -> str:
    """Return the key of the last word of a name, which is its noun."""
    words = [word.text for word in words_of(name.replace("_", " ")) if _counts(word.text)]
    return _joined(words[-1:])


def _counts(word: str) -> bool:
    return word not in ("and", "the") and word[0].isalnum()


class Linker:
    """The names of the columns and values of one catalogue."""

    def __init__(self, values: Mapping[str, Sequence[str]], vector: Vector | None = None) -> None:
        """Take column -> values, and a function that returns the vector of a word (None: no word vectors)."""
        self.values = {column: tuple(value for value in own if value) for column, own in values.items()}
        self._vector = vector
        self.columns: dict[str, list[str]] = defaultdict(list)
        """Role -> the columns that have it."""
        self._usual: dict[Named, list[str]] = {}
        self._names: dict[str, list[Named]] = defaultdict(list)
        self._own: set[str] = set()
        """Keys of names that are no usual values of the tagger."""
        for column, own in self.values.items():
            role = _role(column, own)
            self.columns[role].append(column)
            known = {} if role == OWN else usual_values(role)
            ranked = sorted((known[key][::-1], value) for value in own if (key := _key(value)) in known)
            for (_, usual), value in ranked:
                self._usual.setdefault((column, usual), []).append(value)
            for value in own:
                for key in () if value.casefold() in MUTE else _keys(column, value, role):
                    self._names[key].append((column, value))
                    if key not in known:
                        self._own.add(key)
        self._names.pop("", None)
        self._headings = {_key(column) for column in self.columns[OWN]} - {""}
        self._near = self._vectors()

    def _vectors(self) -> tuple[list[Named], NDArray[np.float32]] | None:
        named = [
            (column, value)
            for column, own in self.values.items()
            if _holds_words(column, own)
            for value in own
            if _key(value) in self._own
        ]
        if self._vector is None or not named:
            return None
        return named, np.stack([self._mean(value) for _, value in named])

    def _mean(self, text: str) -> NDArray[np.float32]:
        assert self._vector is not None
        mean = np.mean([self._vector(word.text) for word in words_of(text)], axis=0)
        unit: NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-6)
        return unit

    def marks(self, words: Sequence[str]) -> list[Mark]:
        """Return a mark for each word: names a value or a column that the tagger does not know, or none."""
        marks = [Mark.NONE] * len(words)
        for start in (place for place, word in enumerate(words) if _counts(word)):
            for end in range(min(len(words), start + _REACH), start, -1):
                key = _joined(words[start:end])
                if key in self._own and _counts(words[end - 1]):
                    marks[start:end] = [Mark.VALUE] * (end - start)
                    break
                if key in self._headings and marks[start] is Mark.NONE and _counts(words[end - 1]):
                    marks[start:end] = [Mark.COLUMN] * (end - start)
                    break
        known = usual_words()
        return [
            Mark.VALUE if mark is Mark.NONE and word not in known and self._nearest(word) else mark
            for word, mark in zip(words, marks, strict=True)
        ]

    def named(self, words: Sequence[str]) -> Iterator[tuple[int, int, Named]]:
        """Yield exact names of values in ``words``: start, end, (column, value).

        Where several names begin at the same word, only the longest is yielded.
        """
        start = 0
        while start < len(words):
            for end in range(min(len(words), start + _REACH), start, -1):
                found = self._named(_joined(words[start:end]), list(self.values))
                if found is not None and _counts(words[start]):
                    yield start, end, found
                    break
            else:
                end = start + 1
            start = end

    def named_values(self, role: str, words: Sequence[str], usual: str | None) -> list[Named]:
        """Return the values, all of one column, that the words of a request name; empty if there are none.

        ``role`` is the tagger's role of the words, ``usual`` the usual value that it predicts.
        """
        columns = (self.columns.get(role) if role != OWN else None) or list(self.values)
        whole = self._named(_joined(words), columns)
        if whole is not None:
            return [whole]
        kinds = self._kinds(words, columns)
        if role == "garment" and usual is not None and self._named(_key(usual), columns) is None:
            kinds = self._sorts(words, usual, columns) or kinds
        if kinds:
            return kinds
        found = self._likely(role, words, usual, columns)
        return [] if found is None else [found]

    def _kinds(self, words: Sequence[str], columns: Sequence[str]) -> list[Named]:
        """Return all values whose last word ends with the single word in ``words``; empty if there are none.

        They are from the column with most of them, and not from one with proper names, such as brands.
        """
        key = _joined(words)
        if len(words) > 1 or len(key) < _SHORT:
            return []
        kinds = [
            [(column, value) for value in self.values[column] if _last_key(value).endswith(key)]
            for column in columns
            if _holds_words(column, self.values[column])
        ]
        return max(kinds, key=len, default=[])

    def _sorts(self, words: Sequence[str], usual: str, columns: Sequence[str]) -> list[Named]:
        """Return the values that end with the usual garment ``usual``.

        If other words say which sort is meant, only the value nearest to them is returned.

        Thus "running shoes" means one sort of shoes. The result is empty if no value ends with ``usual``.
        """
        sorts = self._kinds([usual], columns)
        if not sorts:
            return []
        column = sorts[0][0]
        sorts += [(column, value) for value in self._usual.get((column, usual), [])]
        if self._vector is None or _joined(words) == _key(usual):
            return sorts
        close = np.stack([self._mean(value) for _, value in sorts]) @ self._mean(" ".join(words))
        return [sorts[int(close.argmax())]] if close.max() >= NEAR else sorts

    def _likely(
        self, role: str, words: Sequence[str], usual: str | None, columns: Sequence[str]
    ) -> Named | None:
        """Return the value that the tagger predicts, that a part of the words names, or the nearest one."""
        for column in self.columns.get(role, ()) if role != OWN else ():
            if usual is not None and (column, usual) in self._usual:
                return column, self._usual[column, usual][0]
        for length in range(min(_REACH, len(words)), 0, -1):
            for start in range(len(words) - length, -1, -1):
                part = _joined(words[start : start + length])
                found = self._named(part, columns) or self._named(part, self._elsewhere(role))
                if found is not None:
                    return found
        return self._nearest(" ".join(words))

    def _elsewhere(self, role: str) -> list[str]:
        """Return the columns in which a value is looked up if the columns with its role do not have it.

        A colour of the garment is not looked up among the colours of patterns.
        """
        other = self.columns.get("pattern_color", []) if role == "color" and self.columns.get(role) else []
        return [column for column in self.values if column not in other]

    def _named(self, key: str, columns: Sequence[str]) -> Named | None:
        """Return the value with this key in one of ``columns``.

        If several columns have it, the one with most values is taken, because it is the most exact.
        """
        found = [named for named in self._names.get(key, ()) if named[0] in columns]
        return max(found, key=lambda named: len(self.values[named[0]]), default=None)

    def _nearest(self, text: str) -> Named | None:
        """Return the value whose name is nearest to ``text`` by word vectors; None if none is near enough."""
        if self._near is None or not any(len(word.text) >= _SHORT for word in words_of(text)):
            return None
        named, vectors = self._near
        close = vectors @ self._mean(text)
        best = int(close.argmax())
        return named[best] if close[best] >= NEAR else None

    @property
    def names(self) -> set[str]:
        """All words in the names of values and columns."""
        texts = [*self.values, *(value for own in self.values.values() for value in own)]
        return {word.text for text in texts for word in words_of(text.replace("_", " "))}


def _holds_words(column: str, values: Sequence[str]) -> bool:
    """Return whether a column's values have a meaning that other words can name, unlike proper names."""
    return len(values) <= NAMES and _OF_NAMES.isdisjoint(
        word.text for word in words_of(column.replace("_", " "))
    )


def _role(column: str, values: Sequence[str]) -> str:
    """Return the tagger's role of a column, by its name and its values."""
    named = {
        known
        for vocabulary in shipped_vocabularies()
        for known, spec in vocabulary.columns.items()
        if known in USUAL and column.casefold() in {known, *(alias.casefold() for alias in spec.aliases)}
    }
    for role in USUAL:
        known = usual_values(role)
        usual = {known[key][0] for value in values if (key := _key(value)) in known}
        if role in named and usual:
            return role
        if not named and role == "garment" and len(usual) >= _FEW:
            return role
        if not named and role != "pattern_color" and len(usual) >= max(_FEW, _SHARE * len(values)):
            return role
    return OWN
