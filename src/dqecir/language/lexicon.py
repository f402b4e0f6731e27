"""The meanings of words in one catalogue: names of values, and words that hint at columns."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources

import yaml

from dqecir.language.english import TYPED, slips, stem, tokens, word_set
from dqecir.language.mentions import Kind
from dqecir.language.vocabulary import ColumnVocabulary, Phrases, Value
from dqecir.settings import Strict

MUTE = frozenset(("yes", "no", "true", "false", "none", "other", "unknown", "without", "not", "n", "y"))
"""Names of values that are too generic to be found in a text."""
ABSENT = ("no", "none", "false", "without", "absent")
"""Values that mean that the object of a column is absent."""
LONGEST = 5
"""Most words of a value's name."""
_STRUCTURAL = frozenset(
    map(
        stem,
        word_set(
            """a all an and any anything are as at be but by do does for from give has have i in instead is it
            its kind like look make makes made more move no not nothing now of on one other
            paint put replace same shift should show shows similar so some style swap than that
            the there this to too turn want way well with without front also comes change
            called exactly many fewer lower higher bigger smaller larger longer shorter lighter
            darker looser tighter"""
        ),
    )
)
"""Words that occur in phrases of every column, and so hint at none."""
_DENYING = frozenset(("no", "not", "without", "nothing"))
_NO_SLIPS = frozenset(("lighter", "tighter", "looser", "cellar", "sports"))
"""Correct words that differ in one letter from words of catalogues (shorts, collar)."""


class Synonyms(Strict):
    """Words for columns that users type but that training texts never have (``vocabularies/heard.yaml``)."""

    columns: tuple[str, ...]
    cues: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    things: tuple[str, ...] = ()
    """The object that is missing if the value is ``absent``: sleeves, for sleeveless."""
    absent: str = ""
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    of: str = ""
    """The column whose object this column describes: in "red stripes", red is a colour of the pattern."""
    owners: tuple[str, ...] = ()
    """Names of the column's object that fit all of its values, such as "main shape"."""


@cache
def heard() -> tuple[Synonyms, ...]:
    """Return all entries of ``vocabularies/heard.yaml``."""
    text = (resources.files("dqecir.language") / "vocabularies" / "heard.yaml").read_text(encoding="utf-8")
    return tuple(Synonyms.model_validate(entry) for entry in yaml.safe_load(text))


def heard_for(column: str) -> list[Synonyms]:
    """Return the entries for a column, found by its name, else by the last word of its name."""
    name = column.casefold()
    own = [entry for entry in heard() if name in entry.columns]
    last = re.split(r"[\W_]+", name)[-1]
    return own or [entry for entry in heard() if last in entry.columns]


class Lexicon:
    """The words of a catalogue's columns.

    ``exact`` (words as typed), ``stemmed``, ``owners`` and ``things`` (stems) map words to the (column,
    value) that they name. ``cues`` maps a stem to the columns that it hints at; ``nouns`` a noun of an object
    to the columns that describe the object. ``signs`` are sets of stems that together mean a value, with
    whether they deny it. ``comparing`` ("longer") and ``bases`` ("long") map to columns, with whether they
    mean more. ``alone`` are columns whose values are found without a hint. ``absent``: column -> its value
    that means that its object is absent.
    """

    def __init__(self, spoken: Mapping[str, ColumnVocabulary], values: Mapping[str, Sequence[str]]) -> None:
        self.exact: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
        self.stemmed: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
        self.owners: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
        self.cues: dict[str, set[str]] = defaultdict(set)
        self.nouns: dict[str, set[str]] = defaultdict(set)
        self.signs: list[tuple[frozenset[str], bool, str, Kind, str]] = []
        self.cue_words: set[str] = set()
        self.things: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.comparing: dict[str, list[tuple[str, bool]]] = defaultdict(list)
        self.bases: dict[str, list[tuple[str, bool]]] = defaultdict(list)
        self.alone: set[str] = set()
        self.absent: dict[str, str] = {}
        for column, known in spoken.items():
            self._take(column, known, values[column])
            if known.owner and known.owner.column in spoken:
                self._own_values(known.owner.column, spoken[known.owner.column])
            for of in {entry.of for entry in heard_for(column)} & spoken.keys():
                for said in spoken[of].values.values():
                    for noun in (*said.nouns, *said.plural):
                        self.nouns[tokens(noun)[-1]].add(column)
        for column, known in spoken.items():
            self._sign(column, known, values[column])
        self.heads = {key[-1] for key in self.owners}
        self._ordinary = self._ordinary_words()
        self._mendable = [
            word
            for word in {word for name in self.exact for word in name} | set(self.comparing) | self.cue_words
            if len(word) >= TYPED
        ]

    def _take(self, column: str, known: ColumnVocabulary, values: Sequence[str]) -> None:
        entries = heard_for(column)
        claimed: set[tuple[str, ...]] = set()
        for value in values:
            for name in names_of(known, value):
                claimed.add(self._name(name, column, value))
        for entry in entries:
            for group in entry.groups:
                alike = [tuple(tokens(word)) for word in group]
                own = [value for value in values if tuple(tokens(value)) in alike]
                for word in group if own else ():
                    if word not in MUTE and tuple(tokens(word)) not in claimed:
                        claimed.add(self._name(word, column, own[0]))
            for cue in entry.cues:
                self._cue(cue, column)
            for direction, words in ((True, entry.more), (False, entry.less)):
                for word in words if known.order else ():
                    self.comparing[word].append((column, direction))
        self._absence(column, known, values, entries)
        for word in _words([*known.statements.seen, *known.negations.seen, column]):
            if stem(word) not in _STRUCTURAL and not any(len(n) == 1 and n[0] == word for n in claimed):
                self._cue(word, column)
        if any(set(map(stem, _words([template]))) <= _STRUCTURAL for template in known.statements.seen):
            self.alone.add(column)
        if known.order:
            for up, phrases in ((True, known.order.up), (False, known.order.down)):
                for word in _comparatives(phrases, known):
                    self.comparing[word].append((column, up))
                    for base in {word[:-2], word[:-1], word[:-3]} if word.endswith("er") else ():
                        self.bases[base].append((column, up))
        if known.owner:
            owner = known.owner.column
            for name in [known.owner.unknown, *(o for e in heard_for(owner) for o in e.owners)]:
                self._own(name, owner, "")

    def _sign(self, column: str, known: ColumnVocabulary, values: Sequence[str]) -> None:
        """Add phrases of single values by their words: "a different pattern"."""
        for value in values:
            said = known.values.get(value, Value())
            kinds: tuple[tuple[Kind, Phrases | None], ...] = (
                ("is", said.statements),
                ("is not", said.negations),
            )
            for kind, phrases in kinds:
                for template in (phrases or Phrases()).seen:
                    words = tokens(template)
                    sign = frozenset(map(stem, words)) - _STRUCTURAL - _DENYING
                    cued = all(column in self.cues.get(word, ()) for word in sign)
                    if "{" not in template and not cued:
                        denied = bool(_DENYING & set(words))
                        self.signs.append((sign, denied, column, kind, value))

    def _cue(self, word: str, column: str) -> None:
        self.cues[stem(word)].add(column)
        self.cue_words.add(word)

    def _own_values(self, column: str, known: ColumnVocabulary) -> None:
        """Add names that an owning column's values give to what they own: "the stars"."""
        for value, said in known.values.items():
            for noun in (*said.nouns, *said.plural):
                self._own(noun, column, value)

    def _own(self, name: str, column: str, value: str) -> None:
        key = tuple(map(stem, tokens(without_article(name))))
        if (column, value) not in self.owners[key]:
            self.owners[key].append((column, value))

    def _name(self, name: str, column: str, value: str) -> tuple[str, ...]:
        words = tuple(tokens(without_article(name)))
        forms = {words, ("".join(words),)} if len(words) > 1 else {words}
        for form in forms:
            for table, key in ((self.exact, form), (self.stemmed, tuple(map(stem, form)))):
                if (column, value) not in table[key]:
                    table[key].append((column, value))
        return words

    def _absence(
        self, column: str, known: ColumnVocabulary, values: Sequence[str], entries: Sequence[Synonyms]
    ) -> None:
        """Add the object of a column that one of its values excludes."""
        absent = [v for v in values if v in {e.absent for e in entries} or v.casefold() in ABSENT]
        if not absent:
            return
        self.absent[column] = absent[0]
        things = [thing for entry in entries for thing in entry.things]
        named = {name for said in known.values.values() for name in (*said.words, *said.nouns)}
        if not things and not named and known.owner is None:
            things = [column.replace("_", " ").removeprefix("has ")]
        for thing in things:
            self.things[stem(tokens(thing)[-1])].append((column, absent[0]))

    def find(self, words: Sequence[str], start: int) -> tuple[int, list[tuple[str, str]]]:
        """Return the longest name of a value that starts at a word: its length (0 if none) and meanings."""
        for length in range(min(LONGEST, len(words) - start), 0, -1):
            part = tuple(words[start : start + length])
            found = self.exact.get(part)
            if not found and not (length == 1 and self._hints(part[0])):
                found = self.stemmed.get(tuple(map(stem, part)))
            if (
                not found
                and length == 2
                and len(part[0]) > 1
                and not (part[:1] in self.exact and part[1] in self.cue_words)
            ):
                found = self.exact.get(("".join(part),))
            if found:
                return length, found
        return 0, []

    def _hints(self, word: str) -> bool:
        """Return whether a word names a column although its stem names a value: "fit" and "fitted"."""
        single = word.removesuffix("s")
        return word in self.cue_words or (single in self.cue_words and (single,) not in self.exact)

    def owner(self, words: Sequence[str], start: int) -> tuple[int, list[tuple[str, str]]]:
        """Return the longest name of an owner that starts at a word: its length and meanings."""
        for length in range(min(3, len(words) - start), 0, -1):
            found = self.owners.get(tuple(map(stem, words[start : start + length])))
            if found:
                return length, found
        return 0, []

    def mended(self, word: str) -> str:
        """Correct a word that is one typing error from exactly one known word."""
        if len(word) < TYPED - 1 or word in self._ordinary or stem(word) in self._ordinary:
            return word
        meant = slips(word, self._mendable)
        return meant[0] if len(set(map(stem, meant))) == 1 else word

    def _ordinary_words(self) -> set[str]:
        """Return the words that are no typing errors: those of shipped entries and of this catalogue."""
        known = {word for name in self.exact for word in name} | set(self.cues) | set(self.comparing)
        for entry in heard():
            for text in (*entry.cues, *entry.things, *entry.more, *entry.less, *sum(entry.groups, ())):
                known.update(tokens(text))
        return known | {stem(word) for word in known} | _NO_SLIPS


def names_of(spoken: ColumnVocabulary, value: str) -> list[str]:
    """Return the words for a value, including a word that most of its own statements, and none of the
    column's, share: "knee", "hood"."""
    known = spoken.values.get(value, Value())
    plain = value.replace("_", " ")
    said = (*known.words, *known.nouns, *known.plural) or ((plain,) if plain.casefold() not in MUTE else ())
    general = set(_words(spoken.statements.seen))
    own = [set(_words([template])) for template in (known.statements or Phrases()).seen]
    shared = [
        word
        for word in sorted(set().union(*own) - general)
        if stem(word) not in _STRUCTURAL and 2 * sum(word in words for words in own) > len(own) > 1
    ]
    if any(re.search(r"\b(?:no|not|without|nothing)\b", t) for t in (known.statements or Phrases()).seen):
        shared = []
    return [*said, *shared]


def without_article(noun: str) -> str:
    return re.sub(r"^(an?|the|pair of) ", "", noun)


def _words(templates: Iterable[str]) -> list[str]:
    return [word for template in templates for word in tokens(re.sub(r"\{[^{}]*\}", " ", template))]


def _comparatives(phrases: Phrases, spoken: ColumnVocabulary) -> set[str]:
    """Return words that only the comparisons of one direction have: "longer", "fewer"."""
    assert spoken.order is not None
    other = spoken.order.down if phrases is spoken.order.up else spoken.order.up
    own, rest = set(_words(phrases.seen)), set(_words([*other.seen, *spoken.statements.seen]))
    return {word for word in own - rest if word.endswith("er")} or own - rest
